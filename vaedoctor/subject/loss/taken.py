"""What the parameters of a loss take: entries of the output, items of the batch, constants."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from ..code.roles import role
from ..subject import Batch
from ..trials.trial import forward_parameters, items, leaves, pick
from .recipes import Binding


class Taken:
    """Which output, input or constant each parameter of a loss takes, so far.

    `slots` are the outputs that none has taken, `written` how a call of the loss would read,
    `unknown` the parameters whose values nobody told.
    """

    def __init__(self, binding: Binding) -> None:
        self.binding = binding
        self.inputs = _input_slots(binding)
        self.slots = {path: slot_name(path, binding.names) for path, _ in leaves(binding.output)}
        self.objects = {
            slot_name((key,), binding.names): key
            for key, value in items(binding.output)
            if hasattr(value, "__dict__") and not list(leaves(value))
        }
        self.bound: dict[str, Callable[[nn.Module, Batch, Any], Any]] = {}
        self.given: set[str] = set()
        self.ones: list[str] = []
        self.needs_output = False
        self.whole = self.loose = False
        self.written: dict[str, str] = {}
        self.unknown: list[str] = []

    def take_output(self, name: str, path: tuple[Any, ...]) -> None:
        """An entry of what the model returned."""
        self.slots.pop(path, None)
        self.needs_output = True
        self.bound[name] = lambda m, b, out: pick(out, path)
        self.written[name] = "output" + "".join(f"[{key!r}]" for key in path)

    def take_input(self, name: str, key: int | str) -> None:
        """An item of the batch."""

        def take(model: nn.Module, batch: Batch, output: Any) -> Any:
            return pick_input(batch, key)

        self.bound[name] = take
        self.given.add(name)
        called = next(n for n, slot in self.inputs.items() if slot == key)
        self.written[name] = called
        if called in self._made_up():
            self.unknown.append(name)

    def take_all(self, name: str) -> None:
        """All that the model returned."""
        self.needs_output = True
        self.bound[name] = lambda m, b, out: out
        self.written[name] = "output"

    def _made_up(self) -> set[str]:
        """The inputs of which nobody told what they are: real numbers beside the data."""
        batch = self.binding.batch
        if not batch.guessed:
            return set()
        values = {n: pick_input(batch, slot) for n, slot in self.inputs.items()}
        real = [n for n, v in values.items() if isinstance(v, Tensor) and v.is_floating_point()]
        return set(real[1:])

    def take_whole(self, name: str) -> None:
        """All that the model returned, for a parameter that takes it apart."""
        self.needs_output = self.whole = True
        self.bound[name] = lambda m, b, out: out
        self.written[name] = "output"

    def take_parts(self, name: str, count: int) -> None:
        """A loader's batch `(x, label)` for a function that unpacks it."""

        def take(model: nn.Module, batch: Batch, output: Any) -> Any:
            parts = [*batch.args, *batch.kwargs.values()]
            x = next((a for a in parts if isinstance(a, Tensor)), None)
            while len(parts) < count and x is not None:
                parts.append(x.new_zeros(x.shape[0]).long())
            return tuple(parts[:count])

        self.bound[name] = take

    def take_entries(self, name: str, keys: set[str]) -> None:
        """A loader's dict, for a function that reads these keys of it."""
        inputs = self.inputs
        told = {k: inputs[k] for k in keys if k in inputs}
        rest = sorted(keys - set(told), key=lambda k: (role(k) != "input", k))
        slots = [s for s in inputs.values() if s not in told.values()]
        told |= dict(zip(rest, slots, strict=False))

        def take(model: nn.Module, batch: Batch, output: Any) -> Any:
            given: dict[int | str, Any] = dict(enumerate(batch.args))
            given.update(batch.kwargs)
            found = {key: given[slot] for key, slot in told.items()}
            x = next((v for v in found.values() if isinstance(v, Tensor)), None)
            if x is not None:
                found |= {k: x.new_zeros(x.shape[0]).long() for k in rest if k not in found}
            return found

        self.bound[name] = take

    def _like_input(self) -> tuple[Any, ...] | None:
        x = next((a for a in self.binding.batch.args if isinstance(a, Tensor)), None)
        if x is None:
            return next(iter(self.slots), None)
        fits = []
        for path in self.slots:
            value = pick(self.binding.output, path)
            if isinstance(value, Tensor) and value is not x:
                if value.shape == x.shape:
                    return path
                if value.numel() == x.numel():
                    fits.append(path)
        if not fits and len(self.slots) == 1:
            return next(iter(self.slots))
        return fits[0] if fits else None

    def _pair(self) -> list[tuple[Any, ...]]:
        """The first two outputs left that are shaped alike and are not data."""
        free = [s for s in self.slots if not self._is_input(s)]
        if len(free) > 2:  # beside the two heads, which are the same in every run, the sample
            moving = self.binding.moving()
            still = [s for s in free if s not in moving]
            free = still if len(still) > 1 else free
        shapes = {s: getattr(pick(self.binding.output, s), "shape", None) for s in free}
        for first in free:
            others = [s for s in free if s != first and shapes[s] == shapes[first]]
            if others:
                return [first, others[0]]
        return free[:1]

    def _is_input(self, path: tuple[Any, ...]) -> bool:
        value = pick(self.binding.output, path)
        return any(value is a for a in self.binding.batch.args)


def pick_input(batch: Batch, key: int | str) -> Any:
    """The item of a batch in a place, or of a name."""
    return batch.kwargs[key] if isinstance(key, str) else batch.args[key]


def _input_slots(binding: Binding) -> dict[str, int | str]:
    """The batch's items by forward's parameter names."""
    found: dict[str, int | str] = {}
    names = [p.name for p in forward_parameters(binding.model)]
    for index, _ in enumerate(binding.batch.args):
        found[names[index] if index < len(names) else f"arg{index}"] = index
    return found | {key: key for key in binding.batch.kwargs}


def slot_name(path: tuple[Any, ...], names: list[Any]) -> str:
    """The name that a path into the outputs has in the user's code; empty where it has none."""
    if path and isinstance(path[-1], str):
        return path[-1]
    node: Any = names
    for key in path:
        if not isinstance(node, list) or not isinstance(key, int) or key >= len(node):
            return ""
        node = node[key]
    if not path and len(names) == 1:
        node = names[0]
    return node if isinstance(node, str) else ""
