"""The data that the file's own training loop feeds the model, as far as it can be told.

The loop is followed up to its call of the model: what it goes over, its first item, and what is
done to it. Nothing is trained, and no file is read.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ..code.scope import Unknown
from ..code.signatures import signature_of
from ..code.source import Source
from ..code.syntax import Function, called_name, names_read
from ..subject import Around
from ..trials.switches import generators_restored
from .construction import constructions, own_arguments
from .datascope import DataScope, Trail, first, is_tensor_or_holds_one
from .example import Arguments, Example, Methods, as_given, methods_of
from .fitted import fitted
from .following import bind, follow, stopped, way_to
from .handing import sites
from .holders import Holders, callees, class_around
from .names import names_in, writes
from .steps import Step, is_of_own, steps

_DEEPEST = 2


def fed(
    source: Source, model: nn.Module, namespace: Mapping[str, Any], seed: int
) -> Iterator[Example]:
    """What the file's loops, or its trainer's loader, hand to the forward pass."""
    kinds = frozenset(k.__name__ for k in type(model).__mro__ if k.__module__ != "builtins")
    holders = Holders(source, kinds - {"Module", "LightningModule", "ABC"})
    methods = methods_of(source, set(kinds))
    once = is_built_once(source, model, namespace)
    for step, names in steps(source, holders):
        followed = Followed(source, namespace, holders, methods, step, names)
        with generators_restored(), suppress(Unknown):
            torch.manual_seed(seed)
            (args, kwargs), trail, around = followed.arguments()
            sure = once and is_of_own(step, holders) and not is_chosen(source, trail)
            told = followed.told(trail)
            yield Example(args, kwargs, *told, few=True, sure=sure, around=around)
            continue
        trail = followed.trail
        if trail.stops and not trail.made_like and is_of_own(step, holders):
            yield Example((), {}, source.line(step.line), stops=trail.stops)
    for call, scope in fitted(source, model, namespace):
        with generators_restored(), suppress(Unknown):
            torch.manual_seed(seed)
            item = first(scope.value(call))
            entered = Methods(source, namespace, methods, "training_step")
            args, kwargs = entered.to_forward(((item, 0), {}))
            sure = once and not is_chosen(source, scope.trail)
            yield Example(args, kwargs, *_told(source, call, scope.trail), few=True, sure=sure)


def _told(source: Source, node: ast.expr | ast.stmt, trail: Trail) -> tuple[str, str]:
    """The line, and how the batch is called in the report."""
    line = source.line(node.lineno)
    if like := " and ".join(trail.made_like):
        return line, f"made up like {like}, which {line} feeds the model"
    return line, f"your own data, as {line} feeds it"


def is_built_once(source: Source, model: nn.Module, namespace: Mapping[str, Any]) -> bool:
    """Whether the file builds one model of the class, with arguments that are told."""
    found = constructions(source, type(model).__name__)
    if len(found) != 1:
        return False
    (only,) = found
    told = own_arguments(only, signature_of(type(model)), only.scope(namespace))[1]
    return told and not _behind(source, names_read(only.call)) & _chosen(source)


def _behind(source: Source, names: set[str]) -> set[str]:
    """The names that others are made from, by the file's assignments."""
    made = [n for n in ast.walk(source.tree) if isinstance(n, ast.Assign)]
    found, waiting = set[str](), set(names)
    while waiting:
        found |= waiting
        read = (names_read(n.value) for n in made if writes(n) & waiting)
        waiting = set().union(*read, set()) - found
    return found


def is_chosen(source: Source, trail: Trail) -> bool:
    """Whether a choice decides what was met on the way to a batch."""
    return bool(trail.read & _chosen(source))


def _chosen(source: Source) -> set[str]:
    """Names that a choice gives one meaning or another: what is told of them may be the other."""
    found = set[str]()
    for node in ast.walk(source.tree):
        if isinstance(node, ast.If) and node.orelse:
            one, other = (
                set().union(*(writes(s) for s in part)) for part in (node.body, node.orelse)
            )
            found |= one & other
    return found


@dataclass(frozen=True, slots=True)
class Followed:
    """One step of the file, followed from its loop to its call of the model."""

    source: Source
    namespace: Mapping[str, Any]
    holders: Holders
    methods: Mapping[str, Function]
    step: Step
    names: frozenset[str]
    trail: Trail = field(default_factory=Trail)

    def told(self, trail: Trail) -> tuple[str, str]:
        """The line of the call, and how the batch is called."""
        return _told(self.source, self.step.entry, trail)

    def arguments(self) -> tuple[Arguments, Trail, dict[str, Around]]:
        """What forward gets, what was met on the way, what is beside it; raises `Unknown`."""
        step = self.step
        scope, raw = self.at_entry()
        given = self._to_forward(step.entry, scope, self.names, step.direct, 0)
        if not any(map(is_tensor_or_holds_one, (*given[0], *given[1].values()))):
            raise Unknown("no tensor")
        return given, scope.trail, self._around(given, scope, raw)

    def at_entry(self) -> tuple[DataScope, dict[str, Any]]:
        """What names mean at the call of the model, and what its loops give; raises `Unknown`."""
        step = self.step
        body = step.function.body if step.function is not None else self.source.tree.body
        scope, raw = self._walked(body, step.function, step.entry, 0)
        if raw is None:
            raise Unknown("no loop around the step")
        return scope, raw

    def anywhere(self) -> DataScope:
        """What names mean at the call of the model, also where no loop is around it."""
        step = self.step
        body = step.function.body if step.function is not None else self.source.tree.body
        return self._walked(body, step.function, step.entry, 0)[0]

    def _walked(
        self, body: list[ast.stmt], function: Function | None, entry: ast.Call, depth: int
    ) -> tuple[DataScope, dict[str, Any] | None]:
        """What names mean at the call, by the statements of the loops around it, and at first."""
        path = list(way_to(body, entry))
        kinds = (ast.For, ast.While)
        loops = [i for i, (block, at) in enumerate(path) if isinstance(block[at], kinds)]
        if not loops and function is not None and depth <= _DEEPEST:
            return self._entered(function, path, depth)
        start = loops[0] if loops else len(path)
        line = path[start][0][path[start][1]].lineno if loops else entry.lineno
        scope = DataScope(self.source, self.namespace, function, line)
        scope.trail = self.trail
        scope.trail.holders = self.holders
        raw: dict[str, Any] = {}
        for inside, (block, at) in enumerate(path[start:]):
            for stmt in block[:at] if inside else ():
                follow(stmt, scope)
            if isinstance(around := block[at], ast.For):
                try:
                    bind(around.target, scope.first_of(around.iter), scope)
                except (Unknown, LookupError, TypeError, ValueError) as error:
                    scope.lost |= set(names_in(around.target))
                    scope.trail.stops = scope.trail.stops or stopped(around, scope, error)
                raw |= {n: scope.known.get(n) for n in names_in(around.target)}
        return scope, raw if loops else None

    def _entered(
        self, function: Function, path: list[tuple[list[ast.stmt], int]], depth: int
    ) -> tuple[DataScope, dict[str, Any] | None]:
        """The same in a function that does one step: it is given what the loop around its call is.

        What it is given is the loop's item under another name.
        """
        for given, place, call in sites(self.source, function):
            body = place.function.body if place.function is not None else self.source.tree.body
            around, raw = self._walked(body, place.function, call, depth + 1)
            if raw is None:
                continue
            scope = DataScope(self.source, self.namespace, function, function.body[0].lineno)
            scope.trail = around.trail
            for name, expr in given.items():
                try:
                    scope.known[name] = around.value(expr)
                except Unknown:
                    scope.lost.add(name)
            items = {n: scope.known.get(n) for n, e in given.items() if names_read(e) & set(raw)}
            for block, at in path:
                for stmt in block[:at]:
                    follow(stmt, scope)
            return scope, items
        return DataScope(self.source, self.namespace, function, function.lineno), None

    def _around(
        self, given: Arguments, scope: DataScope, raw: Mapping[str, Any]
    ) -> dict[str, Around]:
        """The loop's items; of what the step itself changes, as the loop gives them."""
        first = next((v for v in (*given[0], *given[1].values()) if isinstance(v, Tensor)), None)
        again = set().union(*(writes(s) for s in self.step.statements), set())
        found: dict[str, Around] = {}
        for name, item in raw.items():
            value = item if name in again else scope.known.get(name)
            if not isinstance(value, Tensor) or first is None or not (value.dim() and first.dim()):
                continue
            if value.shape[0] == first.shape[0]:
                alike = value.numel() == first.numel() and value.dtype == first.dtype
                like = alike and value.is_floating_point() and value.numel() > 0
                same = like and torch.equal(value.reshape(first.shape), first)
                ends = (float(value.min()), float(value.max())) if like and not same else None
                found[name] = Around(tuple(value.shape[1:]), value.dtype, same, ends)
        return found

    def _to_forward(
        self, call: ast.Call, scope: DataScope, names: frozenset[str], direct: bool, depth: int
    ) -> Arguments:
        """The arguments of forward: of the call itself, or of the one inside what is called."""
        if direct:
            name = ast.unparse(call.func)
            attr = "" if name in names else name.rpartition(".")[2]
            args = tuple(scope.value(a) for a in call.args if ast.unparse(a) not in names)
            kwargs = {k.arg: scope.value(k.value) for k in call.keywords if k.arg}
            entered = "forward" if attr in {"", "forward", "__call__"} else attr
            return Methods(self.source, self.namespace, self.methods, entered).to_forward(
                (args, kwargs)
            )
        for callee, shift in callees(self.source, called_name(call)):
            place = next(p for p in self.source.places if p.stmt is callee)
            inside = next(self.holders.levels(callee, class_around(place)))
            found = _call_of(callee, inside)
            if found is None or depth > _DEEPEST:
                continue
            inner = DataScope(self.source, self.namespace, callee, callee.body[0].lineno)
            taken = [p.arg for p in (*callee.args.posonlyargs, *callee.args.args)][shift:]
            given = dict(zip(taken, call.args, strict=False))
            given |= {k.arg: k.value for k in call.keywords if k.arg}
            for name, expr in given.items():
                with suppress(Unknown):
                    if ast.unparse(expr) not in names:
                        inner.known[name] = scope.value(expr)
            inner.lost |= {n for n in given if n not in inner.known}
            outer = list(inner.known.values())
            inner.trail = scope.trail
            for block, at in way_to(callee.body, found):
                for stmt in block[:at]:
                    follow(stmt, inner)
            found_inside = self._to_forward(found, inner, inside, True, depth + 1)
            return as_given(found_inside, outer)
        raise Unknown(called_name(call))


def _call_of(function: Function, names: frozenset[str]) -> ast.Call | None:
    """The call of the model inside a function that is given it."""
    for node in ast.walk(function):
        if isinstance(node, ast.Call) and ast.unparse(node.func) in names and node.args:
            return node
    return None
