"""How the user's own file builds the model: the call, its arguments, and what stands below it."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from ..code.openscope import OpenScope, told
from ..code.scope import Scope, Unknown
from ..code.source import Place, Source
from ..code.syntax import (
    called_name,
    is_main_guard,
    names_read,
    own_expressions,
    root_name,
    stripped,
)
from .datascope import DataScope


@dataclass(frozen=True, slots=True)
class Construction:
    """The user's own call of a class or factory, the name it is bound to, and where."""

    source: Source
    call: ast.Call
    name: str | None
    place: Place

    def scope(self, namespace: Mapping[str, Any]) -> Scope:
        """What names mean at the call."""
        return OpenScope(self.source, namespace, self.place.function, self.place.stmt.lineno)

    def data_scope(self, namespace: Mapping[str, Any]) -> Scope:
        """The same, where sizes are those of the data that the file makes, or a caller's."""
        return DataScope(self.source, namespace, self.place.function, self.place.stmt.lineno)

    def following(self) -> tuple[ast.stmt, ...]:
        """The statements after the call in its block, up to where the name is bound again."""
        if self.name is None:
            return ()
        return self._parts()[0]

    def later(self) -> tuple[ast.stmt, ...]:
        """What follows when the name is bound to another instance, and an older optimizer steps.

        Empty unless the optimizer of the first instance steps after the name has moved on, and
        no other takes its name: then it trains a model that nobody looks at.
        """
        if self.name is None:
            return ()
        before, after = self._parts()
        rest = self.place.block[self.place.index + 1 + len(before) :]
        if not rest or not self._is_made_again(rest[0]):
            return ()
        made = [s for s in before if builds_from_parameters(s, self.name)]
        names = {n for s in made for n in names_bound(s)}
        inside = [n for s in after for n in ast.walk(s)]
        again = {n.id for n in inside if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
        calls = [n for n in inside if isinstance(n, ast.Call) and called_name(n) == "step"]
        return after if (names - again) & {root_name(c.func) for c in calls} else ()

    def _is_made_again(self, stmt: ast.stmt) -> bool:
        """Whether a statement makes another instance; a wrapper such as DataParallel does not."""
        value = stripped(stmt.value) if isinstance(stmt, ast.Assign) else None
        same = isinstance(value, ast.Call) and called_name(value) == called_name(self.call)
        return same and value is not None and self.name not in names_read(value)

    def _parts(self) -> tuple[tuple[ast.stmt, ...], tuple[ast.stmt, ...]]:
        """The statements of the block up to where the name is bound again, and those behind it."""
        after = self.place.block[self.place.index + 1 :]
        for end, stmt in enumerate(after):
            if self.name is not None and _rebinds(stmt, self.name):
                return after[:end], after[end + 1 :]
        return after, ()


def constructions(source: Source, name: str) -> list[Construction]:
    """Calls of `name` outside classes: the top level first, then the main guard, functions."""
    found: list[Construction] = []
    guarded = {id(s) for top in source.tree.body if is_main_guard(top) for s in ast.walk(top)}
    for place in source.places:
        if place.in_class:
            continue
        found += [
            Construction(source, node, _bound_to(place.stmt, node), place)
            for node in own_expressions(place.stmt)
            if isinstance(node, ast.Call) and called_name(node) == name
        ]
    return sorted(found, key=lambda c: (bool(c.place.owners), id(c.place.stmt) in guarded))


def chosen(source: Source, thing: Any, namespace: Mapping[str, Any]) -> Iterator[Construction]:
    """Calls of what is looked up: `MODELS[args.model](**config)` where that is the thing."""
    for place in source.places:
        if place.in_class:
            continue
        for node in own_expressions(place.stmt):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Subscript):
                found = Construction(source, node, _bound_to(place.stmt, node), place)
                with suppress(Unknown):
                    if found.data_scope(namespace).value(node.func) is thing:
                        yield found


def binding_of(source: Source, name: str) -> Construction | None:
    """The top-level statement that binds an instance to a name: `vae = VAE(...)`."""
    for place in source.places:
        if place.owners or not isinstance(place.stmt, ast.Assign):
            continue
        call = stripped(place.stmt.value)
        if isinstance(call, ast.Call) and _bound_to(place.stmt, call) == name:
            return Construction(source, call, name, place)
    return None


def own_arguments(
    construction: Construction, signature: inspect.Signature, scope: Scope
) -> tuple[dict[str, Any], bool]:
    """The user's own arguments by parameter name, and whether all of them could be evaluated."""
    parameters = list(signature.parameters.values())
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    spread = next((p.name for p in parameters if p.kind is p.VAR_POSITIONAL), None)
    spare = next((p.name for p in parameters if p.kind is p.VAR_KEYWORD), None)
    found: dict[str, Any] = {}
    complete = True
    rest: list[Any] = []
    try:
        values = _spread(construction.call.args, scope)
    except Unknown:
        values, complete = [], False
    for index, node in enumerate(values):
        try:
            value = told(node, scope) if isinstance(node, ast.expr) else node
        except Unknown:
            complete = False
            continue
        if index < len(positional):
            found[positional[index].name] = value
        elif spread is not None:
            rest.append(value)
        else:
            complete = False
    for keyword in construction.call.keywords:
        try:
            value = told(keyword.value, scope)
        except Unknown:
            complete = False
            continue
        pairs = value.items() if keyword.arg is None else [(keyword.arg, value)]
        for key, one in pairs:
            if key in signature.parameters:
                found[key] = one
            elif spare is not None:
                found.setdefault(spare, {})[key] = one
            else:
                complete = False
    if rest and spread is not None:
        found[spread] = tuple(rest)
    return found, complete


def _spread(args: list[ast.expr], scope: Scope) -> list[Any]:
    found: list[Any] = []
    for node in args:
        if isinstance(node, ast.Starred):
            found += scope.value(node.value)
        else:
            found.append(node)
    return found


def user_names(source: Source, class_name: str) -> set[str]:
    """Names under which the file's own code holds the model."""
    found = {c.name for c in constructions(source, class_name) if c.name}
    return found | {"model", "vae", "net", "self"}


def builds_from_parameters(stmt: ast.stmt, name: str, kind: str = "") -> bool:
    """Whether a statement reads the parameters of the instance, or of another of its class."""
    value = value_of(stmt)
    if value is None:
        return False
    return any(
        isinstance(n, ast.Attribute)
        and n.attr in {"parameters", "named_parameters"}
        and (root_name(n) == name or _makes(n.value, kind))
        for n in ast.walk(value)
    )


def _makes(expr: ast.expr, kind: str) -> bool:
    return isinstance(expr, ast.Call) and isinstance(expr.func, ast.Name) and expr.func.id == kind


def value_of(stmt: ast.stmt) -> Any:
    """What a statement assigns; None where it assigns nothing."""
    if isinstance(stmt, ast.Assign | ast.AnnAssign):
        return stmt.value
    return None


def names_bound(stmt: ast.stmt) -> set[str]:
    """The bare names that a statement binds."""
    targets = stmt.targets if isinstance(stmt, ast.Assign) else []
    return {t.id for t in targets if isinstance(t, ast.Name)}


def _bound_to(stmt: ast.stmt, call: ast.Call) -> str | None:
    match stmt:
        case ast.Assign(targets=[ast.Name(id=name)], value=value) if stripped(value) is call:
            return name
        case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value):
            return name if stripped(value) is call else None
    return None


def _rebinds(stmt: ast.stmt, name: str) -> bool:
    match stmt:
        case ast.Assign(targets=[ast.Name(id=bound)], value=value) if bound == name:
            inner = stripped(value)
            return not (isinstance(inner, ast.Name) and inner.id == name)
    return False
