"""Which output or input of the model each parameter of a loss means."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from ..code.roles import role, takes_all
from ..subject import Batch
from ..trials.trial import items, leaves
from .handling import (
    declared,
    hands_to_forward,
    iterated,
    keys_read,
    parts_of,
    reads_attributes,
    taken_apart,
)
from .recipes import Arguments, Binding, Recipe, Unbound
from .taken import Taken, slot_name

_PADDING = re.compile(r"(pad(ding)?(_?(idx|index|id|token|token_id))?|ignore_index)", re.IGNORECASE)
_TARGET = re.compile(r"targets?|tgt|y_true|gt|ground_truth", re.IGNORECASE)


def by_names(
    function: Callable[..., Any],
    parameters: list[inspect.Parameter],
    binding: Binding,
    *,
    paired: bool = False,
    whole: bool = False,
) -> Recipe | Unbound:
    """Bind every parameter by its name, then by shape and position.

    `paired` hands a loader's `(x, label)` to a parameter `batch`, and to the first one; `whole`
    hands all that forward returned to one that is called like an output.
    """
    try:
        return _Names(function, parameters, binding, paired, whole).recipe()
    except Unbound as unbound:
        return unbound


class _Names(Taken):
    """One parameter after the other takes an output (a path into it), an input or a constant."""

    def __init__(
        self,
        function: Callable[..., Any],
        parameters: list[inspect.Parameter],
        binding: Binding,
        paired: bool = False,
        whole: bool = False,
    ) -> None:
        super().__init__(binding)
        self.function = function
        self.paired = paired
        self.entire = whole
        self.parameters = [p for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
        self.spread = any(p.kind is p.VAR_POSITIONAL for p in parameters)
        self.spare = next((p.name for p in parameters if p.kind is p.VAR_KEYWORD), None)
        self.heads: list[tuple[Any, ...]] = []

    def recipe(self) -> Recipe:
        for step in (
            self._whole,
            self._several,
            self._exact,
            self._inputs,
            self._roles,
            self._shapes,
            self._constants,
        ):
            for p in self.parameters:
                if p.name not in self.bound and not self._is_set(p, step == self._exact):
                    step(p)
        self._in_order()
        self._left_over()
        self._check()
        # A loss that is given nothing reads what the forward pass left on the model.
        bound, needs = dict(self.bound), self.needs_output or self.spread or not self.bound
        keys = keys_read(self.function, self.spare) if self.spare else set()
        positional = [p.name for p in self.parameters if p.kind is not p.KEYWORD_ONLY]
        spread = self.spread

        def arguments(model: nn.Module, batch: Batch, output: Any) -> Arguments:
            values = {name: take(model, batch, output) for name, take in bound.items()}
            if spread:
                parts = list(output) if isinstance(output, tuple | list) else [output]
                args = [values.pop(n) for n in positional if n in values]
                return [*args, *parts], {**values, **dict.fromkeys(keys, 1.0)}
            return [], {**values, **dict.fromkeys(keys, 1.0)}

        ones = [*keys, *self.ones]
        unweighed = next((name for name in ones if role(name) == "weight"), None)
        return Recipe(
            arguments,
            needs_output=needs,
            unweighed=unweighed,
            loose=self.loose,
            written=self.written,
            unknown=tuple(self.unknown),
            elsewhere=next(filter(self._is_target, sorted(self.given)), None),
        )

    def _is_set(self, p: inspect.Parameter, exact: bool) -> bool:
        """Whether a default says what it is: a word, or a number by another name than a tensor's.

        The `c` of `loss(x, u, c=1.0)` is no class.
        """
        numeric = isinstance(p.default, int | float)
        return isinstance(p.default, str) or (numeric and not exact and p.name not in self.inputs)

    def _whole(self, p: inspect.Parameter) -> None:
        """The output or a loader's dict as it is, for a function that takes it apart."""
        read = keys_read(self.function, p.name)
        if read and read <= set(self.binding.batch.kwargs):
            self.bound[p.name] = lambda m, b, out: dict(b.kwargs)
            return
        keys = {str(path[0]) for path in self.slots if path and isinstance(path[0], str)}
        apart = () not in self.slots and (self.entire or taken_apart(self.function, p.name))
        entries = bool(read & keys) or reads_attributes(self.function, p.name, keys)
        named = apart and takes_all(p.name)
        if entries or named or declared(p, self.binding.output, self._returned()):
            self.take_whole(p.name)

    def _returned(self) -> Any:
        """What forward is annotated to return."""
        forward = getattr(type(self.binding.model), "forward", None)
        return getattr(forward, "__annotations__", {}).get("return")

    def _several(self, p: inspect.Parameter) -> None:
        """A list among the outputs, for a function that goes through it: a sample each."""
        output = self.binding.output
        lists = [
            (k,) for k, v in items(output) if isinstance(v, list | tuple) and len(list(leaves(v)))
        ]
        if not lists or not iterated(self.function, p.name):
            return
        named = {path: slot_name(path, self.binding.names) for path in lists}
        alike = [path for path, name in named.items() if name and _bare(name) == _bare(p.name)]
        free = [path for path in lists if any(s[:1] == path for s in self.slots)]
        for path in alike or (free if len(free) == 1 else []):
            for inner in [s for s in self.slots if s[:1] == path]:
                self.slots.pop(inner)
            self.take_output(p.name, path)
            return

    def _exact(self, p: inspect.Parameter) -> None:
        if () not in self.slots and taken_apart(self.function, p.name):
            return
        # The other parameter holds all outputs, or the loss makes them itself.
        kind = type(self.binding.model)
        if p.name in self.inputs and (self.whole or hands_to_forward(self.function, p.name, kind)):
            self.take_input(p.name, self.inputs[p.name])
            return
        for path, name in self.slots.items():
            if name and _bare(name) == _bare(p.name):
                self.take_output(p.name, path)
                return
        if p.name in self.objects:  # a posterior of the user's own class
            self.take_output(p.name, (self.objects[p.name],))

    def _inputs(self, p: inspect.Parameter) -> None:
        if self._is_reconstruction_called_input(p):
            return
        names = list(self.inputs)
        if p.name in names and role(p.name) in {"input", "label", "step", "weight", None}:
            self.take_input(p.name, self.inputs[p.name])
        elif role(p.name) == "label" and len(names) > 1:
            self.take_input(p.name, self.inputs[names[1]])
        elif names and self._is_a_loaders(p) and (keys := keys_read(self.function, p.name)):
            self.take_entries(p.name, keys)
        elif names and self._is_a_loaders(p):
            self.take_parts(p.name, parts_of(self.function, p.name) or 2)
        elif role(p.name) == "input" and names:
            self.take_input(p.name, self.inputs[names[0]])

    def _is_a_loaders(self, p: inspect.Parameter) -> bool:
        """Whether a parameter stands for what a loader gives, `(x, label)`."""
        handed = self.paired and p.name == self.parameters[0].name
        named = p.name == "batch" or p.name.endswith("_batch")
        apart = parts_of(self.function, p.name) > 0 or bool(keys_read(self.function, p.name))
        return (handed or named) and (self.paired or apart)

    def _is_target(self, name: str) -> bool:
        """Whether a parameter stands for what is to come out, under no name of an input."""
        return name not in self.inputs and _TARGET.fullmatch(name) is not None

    def _is_reconstruction_called_input(self, p: inspect.Parameter) -> bool:
        """In `loss(input, target, ...)`, after `F.mse_loss`, the input is the reconstruction."""
        names = {q.name.lower() for q in self.parameters}
        first = self.parameters[0].name
        return (
            p.name == first
            and p.name.lower() in {"input", "inputs"}
            and bool(names & {"target", "targets"})
            and not any(role(q.name) == "recon" for q in self.parameters)
        )

    def _roles(self, p: inspect.Parameter) -> None:
        wanted = role(p.name)
        if wanted is None or wanted in {"weight", "step", "input", "label"}:
            return
        for path, name in self.slots.items():
            if name and role(name) == wanted:
                self.take_output(p.name, path)
                return

    def _shapes(self, p: inspect.Parameter) -> None:
        wanted = role(p.name)
        if wanted == "recon" or self._is_reconstruction_called_input(p):
            if (path := self._like_input()) is not None:
                self.take_output(p.name, path)
            elif takes_all(p.name):
                self.take_all(p.name)
        elif takes_all(p.name) and wanted is None:
            self.take_all(p.name)
        elif wanted in {"mu", "logvar"}:
            other = {"mu": "logvar", "logvar": "mu"}[wanted]
            if not self.heads:
                known = any(role(q.name) == other and q.name in self.bound for q in self.parameters)
                self.heads = self._pair()[: 1 if known else 2]
            place = self.heads[0 if wanted == "mu" else -1] if self.heads else None
            if place in self.slots:
                self.take_output(p.name, place)

    def _constants(self, p: inspect.Parameter) -> None:
        if p.default is not p.empty:
            return
        if p.name in {"model", "vae", "net", "module", "network"}:
            self.bound[p.name] = lambda m, b, out: m
            self.written[p.name] = "model"
        elif role(p.name) == "weight":
            self.ones.append(p.name)
            self.bound[p.name] = lambda m, b, out: 1.0
            self.written[p.name] = "1.0"
        elif role(p.name) == "step":
            self.bound[p.name] = lambda m, b, out: 0
            self.written[p.name] = "0"
        elif _PADDING.fullmatch(p.name) and (index := _padding(self.binding.model)) is not None:
            self.bound[p.name] = lambda m, b, out: index

    def _in_order(self) -> None:
        """As many parameters left as outputs left: one to one, unless a role contradicts."""
        if self._runs_it():
            return
        left = [p for p in self.parameters if p.name not in self.bound and p.default is p.empty]
        slots = [s for s in self.slots if not self._is_input(s)]
        apart = () not in self.slots and any(taken_apart(self.function, p.name) for p in left)
        if left and len(left) == len(slots) and not apart:
            for p, path in zip(left, slots, strict=True):
                known, wanted = role(self.slots[path] or ""), role(p.name)
                if known is None or wanted is None or known == wanted:
                    self.take_output(p.name, path)

    def _left_over(self) -> None:
        """What is taken apart takes all outputs; the one that is then left, what no other has."""
        left = [p for p in self.parameters if p.name not in self.bound and p.default is p.empty]
        several = () not in self.slots and not self.needs_output
        apart = [p for p in left if several and taken_apart(self.function, p.name)]
        if len(apart) == 1:
            self.take_whole(apart[0].name)
            left.remove(apart[0])
            self.loose = True
        if len(left) != 1 or role(left[0].name) is not None:
            return
        self.loose = True
        self.unknown.append(left[0].name)
        if self.inputs and (not self.given or self._runs_it()):
            self.take_input(left[0].name, next(iter(self.inputs.values())))
        elif self.needs_output and not self.whole and (path := self._like_input()) is not None:
            self.take_output(left[0].name, path)
        elif several and not apart:
            self.take_whole(left[0].name)

    def _runs_it(self) -> bool:
        """Whether the loss is given the model, and no output: it makes its own."""
        return "model" in self.written.values() and not self.needs_output

    def _check(self) -> None:
        for p in self.parameters:
            if p.name not in self.bound and p.default is p.empty:
                shapes = [
                    list(v.shape) for _, v in leaves(self.binding.output) if isinstance(v, Tensor)
                ]
                raise Unbound(p.name, f"forward returned tensors of shape {shapes}")


def _padding(model: nn.Module) -> int | None:
    """The token that an embedding of the model takes for none."""
    tables = (m for m in model.modules() if isinstance(m, nn.Embedding | nn.EmbeddingBag))
    return next((m.padding_idx for m in tables if m.padding_idx is not None), None)


def _bare(name: str) -> str:
    return name.lower().replace("_", "")
