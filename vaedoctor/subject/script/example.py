"""The user's own example input: `vae(torch.randn(16, input_dim))` somewhere in the file.

Data that the file makes itself counts: `vae(make_data()[:32])`, also through a method that passes
it on, `vae.loss(batch)`. What reads files, loads data sets or trains is not called for it.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Mapping, Set
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ..code.openscope import OpenScope
from ..code.scope import Scope, Unknown
from ..code.source import Source
from ..code.syntax import Function, own_expressions
from ..subject import Around
from ..trials.switches import generators_restored
from ..trials.trial import leaves
from .construction import user_names
from .datascope import DataScope
from .following import follow, way_to

_DEEPEST = 2
_ALIKE = 0.5  # of two tensors' correlation: one is made of the other
_SAME = 2.0


@dataclass(frozen=True, slots=True)
class Example:
    """The arguments of the user's own call of the model, and its line as one names it.

    `few`: a loader's batch, of which some rows do, and what it gives `around` it; `sure` says that
    the file makes no other model of the class that they could be meant for; `stops` why there are
    no arguments, where the file's own data does not get that far.
    """

    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    line: str
    origin: str = ""
    few: bool = False
    sure: bool = False
    around: Mapping[str, Around] = field(default_factory=dict)
    stops: str = ""


def own_examples(
    source: Source, model: nn.Module, namespace: Mapping[str, Any], seed: int
) -> Iterator[Example]:
    """Calls of the model whose arguments are example tensors, in the file's order."""
    kind = type(model).__name__
    names = user_names(source, kind) - {"self"}
    methods = methods_of(source, {k.__name__ for k in type(model).__mro__})
    for place in source.places:
        if place.in_class:
            continue
        for node in own_expressions(place.stmt):
            if not isinstance(node, ast.Call) or not (node.args or node.keywords):
                continue
            held = _held(node, methods)
            if held is None or held[0] not in names:
                continue
            scope = _scope(source, namespace, place.function, place.stmt.lineno)
            maker = scope.maker(held[0])
            if maker != kind and isinstance(namespace.get(maker), type):
                continue
            found = _evaluated(node, scope, seed, Methods(source, namespace, methods, held[1]))
            if found is not None:
                yield Example(*found, line=source.line(node.lineno))


Arguments = tuple[tuple[Any, ...], dict[str, Any]]


def _held(node: ast.Call, methods: Mapping[str, Function]) -> tuple[str, str] | None:
    """What is called and by which method: `vae(x)`, `vae.loss(x)`."""
    match node.func:
        case ast.Name(id=name):
            return name, "forward"
        case ast.Attribute(value=ast.Name(id=name), attr=attr) if attr in methods:
            return name, attr
    return None


def methods_of(source: Source, kinds: Set[str]) -> dict[str, Function]:
    """The methods that the file gives the model's class."""
    found: dict[str, Function] = {}
    for place in source.places:
        owner = place.owners[-1] if place.owners else None
        match place.stmt, owner:
            case ast.FunctionDef(name=name) as method, ast.ClassDef(name=kind) if kind in kinds:
                found[name] = method
    return found


def _scope(
    source: Source, namespace: Mapping[str, Any], function: Function | None, line: int
) -> OpenScope:
    """The names at a line; of `for i in range(0, n, 32)` the first round."""
    scope = OpenScope(source, namespace, function, line)
    for node in ast.walk(function if function is not None else source.tree):
        match node:
            case ast.For(
                target=ast.Name(id=name), iter=ast.Call(func=ast.Name("range"), args=ends)
            ) if node.lineno < line <= (node.end_lineno or line):
                scope.assign(name, ends[0] if len(ends) > 1 else ast.Constant(0))
    return scope


@dataclass(frozen=True, slots=True)
class Methods:
    """Follows the arguments of a method to those of the forward pass inside."""

    source: Source
    namespace: Mapping[str, Any]
    known: Mapping[str, Function]
    entered: str

    def to_forward(self, given: Arguments, name: str = "", depth: int = 0) -> Arguments:
        """The arguments that forward gets; raises `Unknown` where that cannot be told.

        Of several calls of it the fullest counts: the others leave out a modality, or a condition.
        """
        name = name or self.entered
        if name == "forward":
            return given
        function = self.known.get(name)
        if function is None or depth > _DEEPEST:
            raise Unknown(name)
        taken = [a.arg for a in (*function.args.posonlyargs, *function.args.args)][1:]
        held = {**dict(zip(taken, given[0], strict=False)), **given[1]}
        found: list[Arguments] = []
        calls = (n for n in ast.walk(function) if isinstance(n, ast.Call))
        for call in sorted(calls, key=lambda n: (n.lineno, n.col_offset)):
            match call.func:
                case ast.Name("self") | ast.Attribute(ast.Name("self"), "forward"):
                    inner = "forward"
                case ast.Attribute(ast.Name("self"), inner) if inner in self.known:
                    pass
                case _:
                    continue
            scope = DataScope(self.source, self.namespace, function, call.lineno)
            scope.known.update(held)
            for block, at in way_to(function.body, call):
                for stmt in block[:at]:
                    follow(stmt, scope)
            with suppress(Unknown):
                arguments = as_given(_arguments(call, scope), held.values())
                found.append(self.to_forward(arguments, inner, depth + 1))
        if not found:
            raise Unknown(name)
        return max(found, key=_fullness)


def _fullness(given: Arguments) -> int:
    return sum(isinstance(v, Tensor) for v in (*given[0], *given[1].values()))


def as_given(taken: Arguments, given: Iterable[Any]) -> Arguments:
    """What forward takes as the step itself is given it: before `x * 2 - 1`, in forward's shape.

    The step will do again what it does to the numbers of its data.
    """
    args, kwargs = taken
    inner = {i: v for i, v in enumerate((*args, *kwargs.values())) if _is_numbers(v)}
    outer = [v for _, v in leaves(list(given)) if _is_numbers(v)]
    pairs = [(_likeness(v, o), i, o) for i, v in inner.items() for o in outer]
    for likeness, place, value in sorted(pairs, key=lambda pair: pair[0], reverse=True):
        if likeness < _ALIKE:
            break
        if place in inner and any(o is value for o in outer):
            changed = inner.pop(place)
            outer = [o for o in outer if o is not value]
            if likeness < _SAME:
                args, kwargs = _replaced(args, kwargs, place, value.reshape(changed.shape))
    return args, kwargs


def _is_numbers(value: Any) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point() and value.numel() > 1


def _likeness(one: Tensor, other: Tensor) -> float:
    """How well one tensor's numbers tell the other's, from 0 to 1; 2 where they are the same."""
    if one.numel() != other.numel() or one.dtype is not other.dtype:
        return 0.0
    flat = torch.stack([one.detach().flatten(), other.detach().flatten()]).double()
    if torch.equal(*flat.sort(1).values):
        return _SAME
    found = float(torch.corrcoef(flat)[0, 1].abs())
    return found if found > 0 else 0.0


def _replaced(args: tuple[Any, ...], kwargs: dict[str, Any], place: int, value: Any) -> Arguments:
    values = [*args, *kwargs.values()]
    values[place] = value
    given = tuple(values[: len(args)])
    return given, dict(zip(kwargs, values[len(args) :], strict=True))


def _arguments(node: ast.Call, scope: Scope) -> Arguments:
    args = tuple(scope.value(a) for a in node.args)
    return args, {k.arg: scope.value(k.value) for k in node.keywords if k.arg}


def _evaluated(node: ast.Call, scope: Scope, seed: int, methods: Methods) -> Arguments | None:
    with generators_restored():
        torch.manual_seed(seed)
        try:
            args, kwargs = methods.to_forward(_arguments(node, scope))
        except Unknown:
            return None
    values = (*args, *kwargs.values())
    if not any(isinstance(v, Tensor) for v in values):
        return None
    return args, kwargs
