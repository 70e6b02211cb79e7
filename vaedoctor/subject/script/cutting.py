"""Where a training loop's preparations end and its step begins.

The step begins at the first call of the model. What it is given is what the loop's items are by
then; whatever is made from that is a part of the step.
"""

from __future__ import annotations

import ast
import builtins
import copy
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from torch import Tensor, nn

from ..code.roles import role
from ..code.scope import Unknown
from ..code.syntax import called_name, names_read, root_name
from .datascope import DataScope, is_tensor_or_holds_one
from .feeding import Followed
from .fields import NamedFields, fields
from .loop import Loop
from .names import free, reads, writes

_MAKERS = {"zeros", "ones", "full", "eye", "tensor", "arange", "linspace", "device"}
_NOTHING = object()


@dataclass(frozen=True, slots=True)
class Cut:
    """The step of a loop, apart from the loop.

    `given` are the expressions of the file that it is given, by the names it has for them;
    `passes` is the step as far as it calls the model; `methods` are those of the model it calls.
    """

    loop: Loop
    given: Mapping[str, ast.expr] = field(repr=False)
    passes: Loop = field(repr=False)
    methods: tuple[str, ...]


def cut(loop: Loop, followed: Followed, model: nn.Module) -> Cut | None:
    """The step of a loop that calls methods of a model; None where it calls another one's."""
    return _Cutter(loop, followed, model).cut()


@dataclass(frozen=True)
class _Cutter:
    """Tells what in a loop belongs to the step, and what comes from around it."""

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

    def cut(self) -> Cut | None:
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

    def _of(self, body: list[ast.stmt], given: list[str], methods: tuple[str, ...]) -> Cut:
        """The step on what it is given; of a container its parts."""
        step = self.loop.step
        known = {n for s in (*body, self.after[-1]) for n in names_read(s) | writes(s)}
        named = NamedFields(
            {n: fields(n, [*body, self.after[-1]]) for n in given if not self._is_bare(n)}, known
        )
        whole = tuple(named.visit(copy.deepcopy(s)) for s in body)
        loss: ast.expr = named.visit(copy.deepcopy(step.loss))
        entries: dict[str, ast.expr] = {}
        for name in given:
            found = named.of(name)
            entries |= found or {name: ast.copy_location(ast.Name(name, ast.Load()), step.entry)}
        loop = replace(self.loop, step=replace(step, statements=whole, loss=loss))
        return Cut(loop, entries, self._passes(loop), methods)

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
        """Whether a statement runs a part of the model, hands it on, or calls what does."""
        names, entry = self.loop.setting.models, self.loop.step.entry
        for call in (n for n in ast.walk(statement) if isinstance(n, ast.Call)):
            if (call.lineno, call.col_offset) == (entry.lineno, entry.col_offset):
                return True
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
        made = all(root_name(c.func) == "torch" and called_name(c) in _MAKERS for c in calls)
        return made and bool(calls)

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
            elif not self._is_bare(read) and fields(read, list(self.after)):
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


def _is_learned(value: Any) -> bool:
    return isinstance(value, Tensor) and (value.requires_grad or value.dim() == 0)
