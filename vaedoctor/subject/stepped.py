"""The pass of a model without `forward`: the step of the file's own training loop.

Where the loop says method by method how the loss is made from a batch, that step is the forward
pass and the objective. What it is given is what the loop's items are by the first call of the
model; whatever is made from that is a part of the step.
"""

from __future__ import annotations

import ast
import builtins
import copy
import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from .datascope import DataScope, is_tensor_or_holds_one
from .example import Example, methods_of
from .feeding import Followed, is_built_once, is_chosen
from .loop import Loop, loops
from .roles import role
from .scope import Unknown
from .source import Source, called_name, names_read, root_name
from .steps import free, is_of_own, reads, writes
from .subject import Batch, Objective
from .total import total
from .trace import generators_restored
from .witness import user_frame

_MOST = 4
_MAKERS = {"zeros", "ones", "full", "eye", "tensor", "arange", "linspace", "device"}


@dataclass(frozen=True, slots=True)
class Stepped:
    """One step of a loop as a forward pass: what it is given by name, and where that is told."""

    loop: Loop
    given: Mapping[str, ast.expr] = field(repr=False)
    passes: Loop = field(repr=False)
    followed: Followed = field(repr=False)
    methods: tuple[str, ...]
    assembled: ClassVar[bool] = False

    def forward(self, model: nn.Module, plan: int | None) -> Callable[..., Any]:
        """A forward pass that returns what the step makes by calling the model."""
        kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
        signature = inspect.Signature([inspect.Parameter(n, kind) for n in self.given])

        def forward(*args: Any, **kwargs: Any) -> Any:
            known = signature.bind(*args, **kwargs).arguments
            return self.passes.run_on(model, {}, known)

        forward.__signature__ = signature  # type: ignore[attr-defined]
        return forward

    @property
    def way(self) -> tuple[str, ...]:
        """How the report calls the pass."""
        return (f"the step of the training loop, {self._line}",)

    @property
    def _line(self) -> str:
        return self.loop.source.line(self.loop.line)

    def tells(self, error: BaseException | None) -> bool:
        """Whether an exception on the file's own data is the model's doing, not the step's cut."""
        at = user_frame(error)
        inside = at is not None and at[0].f_code.co_name != "<module>"
        own = is_of_own(self.followed.step, self.followed.holders)
        return own and inside and isinstance(error, RuntimeError | ValueError | IndexError)

    def objective(self) -> Objective:
        """What the loop goes backward from."""

        def run(model: nn.Module, batch: Batch) -> Any:
            known = dict(zip(self.given, batch.args, strict=False)) | dict(batch.kwargs)
            value = self.loop.run_on(model, {}, known)
            return -total(value) if self.loop.negated else value

        origin = f"found: `{self.loop.name}` of the training loop, {self._line}"
        return Objective(run, self.loop.name, origin, self.loop.at, unweighed=self.loop.unweighed)

    def examples(self, model: nn.Module, seed: int) -> Iterator[Example]:
        """What the file's loop gives the step, where that can be told."""
        followed = self.followed
        source, namespace = followed.source, followed.namespace
        with generators_restored(), suppress(Unknown):
            torch.manual_seed(seed)
            scope = followed.anywhere()
            args = tuple(scope.value(e) for e in self.given.values())
            if any(map(is_tensor_or_holds_one, args)):
                once = is_built_once(source, model, namespace)
                own = is_of_own(followed.step, followed.holders)
                sure = once and own and not is_chosen(source, scope.trail)
                yield Example(args, {}, *followed.told(scope.trail), few=True, sure=sure)


def stepped(
    model: nn.Module, source: Source | None, namespace: Mapping[str, Any], seed: int
) -> list[Stepped]:
    """The steps of the file's loops that call methods of a model, those with most of them first."""
    found: list[Stepped] = []
    known = methods_of(source, {k.__name__ for k in type(model).__mro__}) if source else {}
    for loop in loops(source, namespace, model) if source is not None else ():
        setting = loop.setting
        followed = Followed(
            loop.source, namespace, setting.holders, known, loop.step, setting.models
        )
        with generators_restored(), suppress(Unknown):
            torch.manual_seed(seed)
            one = _Cut(loop, followed, model).stepped()
            if one is not None and one.loop.name not in {f.loop.name for f in found}:
                found.append(one)
        if len(found) == _MOST:
            break
    return sorted(found, key=lambda s: -len(s.methods))


@dataclass(frozen=True)
class _Cut:
    """Where a loop's preparations end and its step begins."""

    loop: Loop
    followed: Followed
    model: nn.Module

    @cached_property
    def above(self) -> tuple[ast.stmt, ...]:
        """The statements above the first call of the model."""
        return self.loop.step.above

    @cached_property
    def after(self) -> tuple[ast.stmt, ...]:
        """The statements from the first call of the model on, the loss as the last."""
        step = self.loop.step
        below = [s for s in step.statements if not any(s is a for a in step.above)]
        return (*below, ast.copy_location(ast.Expr(step.loss), step.loss))

    @cached_property
    def scope(self) -> DataScope:
        return self.followed.anywhere()

    def stepped(self) -> Stepped | None:
        methods = self._methods()
        if methods is None:
            return None
        told = sorted(free(self.after), key=self._order)
        varying = [n for n in told if self._varies(n, len(self.above))]
        kept = self._kept([n for n in told if n not in varying])
        given: list[str] = []
        for name in varying:
            others = set(varying) - {name}
            made = self._derived(name, others)
            if made is None:
                given.append(name)
            else:
                kept |= made
        if not given:
            return None
        body = [*(s for i, s in enumerate(self.above) if i in kept), *self.after[:-1]]
        return self._of(body, given, methods)

    def _of(self, body: list[ast.stmt], given: list[str], methods: tuple[str, ...]) -> Stepped:
        """The step on what it is given; of a container its parts."""
        step = self.loop.step
        fields = {n: _fields(n, [*body, self.after[-1]]) for n in given if not self._is_bare(n)}
        parts = _Parts({n: f for n, f in fields.items() if f}, reads_all([*body, self.after[-1]]))
        whole = [parts.visit(copy.deepcopy(s)) for s in body]
        loss: ast.expr = parts.visit(copy.deepcopy(step.loss))
        entries: dict[str, ast.expr] = {}
        for name in given:
            found = parts.of(name)
            entries |= found or {name: ast.copy_location(ast.Name(name, ast.Load()), step.entry)}
        alone = replace(step, statements=tuple(whole), loss=loss)
        loop = replace(self.loop, step=alone)
        return Stepped(loop, entries, self._passes(loop), self.followed, methods)

    def _passes(self, loop: Loop) -> Loop:
        """The step as far as it calls the model, for what it makes there."""
        step = loop.step
        calls = [i for i, s in enumerate(step.statements) if self._calls(s)]
        early = [i for i in calls if not writes(step.statements[i]) & reads(step.loss)]
        body = step.statements[: (early or calls or [-1])[-1] + 1]
        made = sorted(set().union(*(writes(s) for s in body), set()))
        if not made:
            keys: list[str] = ["loss"]
            values: list[ast.expr] = [step.loss]
        else:
            keys, values = made, [ast.Name(n, ast.Load()) for n in made]
        output = ast.Dict([ast.Constant(k) for k in keys], values)
        for node in ast.walk(output):
            ast.copy_location(node, step.loss)
        return replace(loop, step=replace(step, statements=body, loss=output))

    def _methods(self) -> tuple[str, ...] | None:
        """The methods of the model that the step calls; None where one is not this model's."""
        found: dict[str, None] = {}
        for call in (n for s in self.after for n in ast.walk(s) if isinstance(n, ast.Call)):
            match call.func:
                case ast.Attribute(held, attr) if ast.unparse(held) in self.loop.setting.models:
                    if not hasattr(self.model, attr):
                        return None
                    found[attr] = None
                case ast.Name(id=name) if name in self.loop.setting.models:
                    return None  # it is called as a whole
        return tuple(found)

    def _calls(self, statement: ast.stmt) -> bool:
        """Whether a statement runs a part of the model, or hands it on."""
        names = self.loop.setting.models
        for call in (n for n in ast.walk(statement) if isinstance(n, ast.Call)):
            given = [call.func, *call.args, *(k.value for k in call.keywords)]
            if any(
                ast.unparse(n) in names
                for g in given
                for n in ast.walk(g)
                if isinstance(n, ast.Name | ast.Attribute)
            ):
                return True
        return False

    def _last(self, name: str, before: int) -> int:
        """The last statement above a place that gives a name its meaning; -1 without any."""
        made = (i for i in range(before - 1, -1, -1) if name in writes(self.above[i]))
        return next(made, -1)

    def _varies(self, name: str, before: int) -> bool:
        """Whether a name means another thing in each step: it comes from the loop's items."""
        if name in self.loop.setting.models or hasattr(builtins, name):
            return False
        at = self._last(name, before)
        if at < 0:
            return self._is_item(name)
        read = free([self.above[at]])
        if any(self._varies(n, at) for n in read):
            return True
        value = self._value(name)
        if value is _NOTHING:
            return role(name) not in {"weight", "step"} and not self._is_told(name)
        return is_tensor_or_holds_one(value) and not self._is_constant(self.above[at])

    def _is_item(self, name: str) -> bool:
        """Whether a name that nothing above gives is a loop's item, or data around the loop."""
        step, setting = self.loop.step, self.loop.setting
        function = step.function
        own = {n for t in step.targets for n in t}
        own |= (
            {p.arg for p in (*function.args.posonlyargs, *function.args.args)}
            if function
            else set()
        )
        value = self._value(name)
        if value is _NOTHING:
            told = role(name) in {"weight", "step"} or setting.counts(name)
            return (name in own or self._is_handed(name)) and not told and not self._is_told(name)
        if not is_tensor_or_holds_one(value):
            return False
        return name in own or (self._is_handed(name) and not _is_learned(value))

    def _is_handed(self, name: str) -> bool:
        """Whether the step gives a name to the model as it is."""
        calls = (n for s in self.after for n in ast.walk(s) if isinstance(n, ast.Call))
        return any(
            isinstance(a, ast.Name) and a.id == name
            for c in calls
            if root_name(c.func) in self.loop.setting.models
            for a in (*c.args, *(k.value for k in c.keywords))
        )

    def _is_told(self, name: str) -> bool:
        """Whether the names around the loop say what a name means, and it is no data."""
        space = self.loop.made[1]
        return name in space and not is_tensor_or_holds_one(space[name])

    def _is_constant(self, statement: ast.stmt) -> bool:
        """Whether a statement makes tensors that are the same in every step: `torch.zeros(6)`."""
        calls = [n for n in ast.walk(statement) if isinstance(n, ast.Call)]
        return all(root_name(c.func) == "torch" and called_name(c) in _MAKERS for c in calls)

    def _is_bare(self, name: str) -> bool:
        return isinstance(self._value(name), Tensor)

    def _value(self, name: str) -> Any:
        try:
            return self.scope.value(ast.Name(name, ast.Load()))
        except Unknown:
            return _NOTHING

    def _derived(self, name: str, others: set[str]) -> set[int] | None:
        """The statements that make a name of others that the step reads as well, or None."""
        at, end = self._last(name, len(self.above)), len(self.above)
        if at < 0:
            return None
        found = {at}
        for read in free([self.above[at]]):
            if not self._varies(read, at):
                found |= self._kept([read], at)
            elif read == name or self._last(read, at) != self._last(read, end):
                return None
            elif not self._is_bare(read) and _fields(read, list(self.after)):
                return None  # what is taken from a loader's batch is prepared, as its other parts
            elif read not in others:
                further = self._derived(read, others)
                if further is None:
                    return None
                found |= further
        return found if any(self._varies(n, at) for n in free([self.above[at]])) else None

    def _kept(self, names: list[str], before: int | None = None) -> set[int]:
        """The statements that give names which do not come from the data."""
        found = set[int]()
        for name in names:
            at = self._last(name, len(self.above) if before is None else before)
            if at >= 0:
                found |= {at} | self._kept(sorted(free([self.above[at]])), at)
        return found

    def _order(self, name: str) -> tuple[int, int, str]:
        """The order in which the step reads names: first what it gives to the model."""
        for number, statement in enumerate(self.after):
            places = [
                (n.lineno, n.col_offset)
                for n in ast.walk(statement)
                if isinstance(n, ast.Name) and n.id == name
            ]
            if places:
                return number, min(places)[0] * 10_000 + min(places)[1], name
        return len(self.after), 0, name


_NOTHING = object()


def _is_learned(value: Any) -> bool:
    return isinstance(value, Tensor) and (value.requires_grad or value.dim() == 0)


def reads_all(statements: list[ast.stmt]) -> set[str]:
    """The names that occur in statements."""
    return set().union(*(names_read(s) | writes(s) for s in statements), set())


def _fields(name: str, statements: list[ast.stmt]) -> dict[str, ast.expr]:
    """The parts of a container that statements read, by their text; none where it is read whole."""
    found: dict[str, ast.expr] = {}
    inside = set[int]()
    loads = [n for s in statements for n in ast.walk(s) if isinstance(n, ast.Name) and n.id == name]
    for node in (n for s in statements for n in ast.walk(s)):
        match node:
            case ast.Subscript(ast.Name(id=held) as root, ast.Constant(value=str() | int())):
                pass
            case ast.Attribute(ast.Name(id=held) as root, attr) if not hasattr(Tensor, attr):
                pass
            case _:
                continue
        if held == name:
            found[ast.unparse(node)] = node
            inside.add(id(root))
    return found if all(id(n) in inside for n in loads) else {}


class _Parts(ast.NodeTransformer):
    """Puts names in the place of a container's parts: `batch["x"]` becomes `x`."""

    def __init__(self, fields: Mapping[str, Mapping[str, ast.expr]], taken: set[str]) -> None:
        self.names: dict[str, str] = {}
        self.fields = fields
        for root, parts in fields.items():
            for text, node in parts.items():
                name = _called(root, node)
                while name in taken:
                    name += "_"
                taken = taken | {name}
                self.names[text] = name

    def of(self, root: str) -> dict[str, ast.expr]:
        """The parts of a container by their new names."""
        return {self.names[t]: node for t, node in self.fields.get(root, {}).items()}

    def visit_Subscript(self, node: ast.Subscript) -> ast.AST:
        return self._named(node)

    def visit_Attribute(self, node: ast.Attribute) -> ast.AST:
        return self._named(node)

    def _named(self, node: ast.expr) -> ast.AST:
        name = self.names.get(ast.unparse(node))
        if name is None:
            return self.generic_visit(node)
        return ast.copy_location(ast.Name(name, ast.Load()), node)


def _called(root: str, node: ast.expr) -> str:
    match node:
        case ast.Subscript(slice=ast.Constant(value=str() as key)) if key.isidentifier():
            return key
        case ast.Subscript(slice=ast.Constant(value=int() as key)):
            return f"{root}_{key}" if f"{root}_{key}".isidentifier() else f"{root}_part"
        case ast.Attribute(attr=attr):
            return attr
    return root
