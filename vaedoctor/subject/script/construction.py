"""How the user's own file builds the model: the call, what follows it, and the optimizer."""

from __future__ import annotations

import ast
import copy
import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from ...finding import Span
from ..code.openscope import OpenScope, told
from ..code.scope import Scope, Unknown
from ..code.source import (
    Place,
    Source,
    blocks,
    called_name,
    is_main_guard,
    names_read,
    own_expressions,
    root_name,
    stripped,
)
from .datascope import DataScope

_CHANGES = {
    "apply",
    "add_module",
    "register_module",
    "register_parameter",
    "register_buffer",
    "register_forward_hook",
    "register_forward_pre_hook",
    "requires_grad_",
    "reset_parameters",
    "insert",
    "append",
    "extend",
}
_NOT_APPLIED = {"train", "eval", "to", "cuda", "cpu", "load_state_dict", "forward", "zero_grad"}


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
        made = [s for s in before if _builds_from_parameters(s, self.name)]
        names = {n for s in made for n in _names_bound(s)}
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


@dataclass(frozen=True, slots=True)
class Aftermath:
    """What the statements after the construction gave: optimizers; whether the model changed."""

    optimizers: tuple[torch.optim.Optimizer, ...] = ()
    optimizer_at: Span | None = None
    changed: bool = False


def apply_following(
    construction: Construction, model: nn.Module, namespace: dict[str, Any], scope: Scope
) -> Aftermath:
    """Apply what the user does to the instance after building it, and build the optimizer."""
    assert construction.name is not None
    source, name = construction.source, construction.name
    if later := construction.later():
        with suppress(Exception):  # not every model can be copied
            old = copy.deepcopy(model)
            aftermath = _applied(construction.following(), old, name, namespace, scope, source)
            last = _applied(later, model, name, namespace, scope, source)
            return replace(aftermath, changed=last.changed)
    aftermath = _applied(construction.following(), model, name, namespace, scope, source)
    if not aftermath.optimizers:
        optimizers, at = _elsewhere(construction, model, namespace)
        return replace(aftermath, optimizers=tuple(optimizers), optimizer_at=at)
    return aftermath


def _applied(
    stmts: tuple[ast.stmt, ...],
    model: nn.Module,
    name: str,
    namespace: dict[str, Any],
    scope: Scope,
    source: Source,
) -> Aftermath:
    scope.known[name] = model
    optimizers: list[torch.optim.Optimizer] = []
    at: Span | None = None
    changed = False
    parameter_lists: set[str] = set()
    for stmt in _flat(stmts):
        read = names_read(stmt)
        own = _builds_from_parameters(stmt, name, type(model).__name__)
        if own or (_value_of(stmt) and read & parameter_lists):
            made = _evaluate(stmt, namespace, scope, source)
            parameter_lists |= _names_bound(stmt)
            if isinstance(made, torch.optim.Optimizer):
                optimizers.append(made)
                at = at or source.span(_value_of(stmt))
        elif name not in read:
            _follow_assignment(stmt, scope)
        elif changes_instance(stmt, name):
            changed = _execute(stmt, namespace, scope, source) or changed
    return Aftermath(tuple(optimizers), at, changed)


def changes_instance(stmt: ast.stmt, name: str) -> bool:
    """Whether a simple statement changes the instance: `vae.extra = ...`, `vae.apply(init)`."""
    match stmt:
        case ast.Assign(targets=[ast.Attribute() | ast.Subscript() as target]):
            return root_name(target) == name
        case ast.Expr(value=ast.Call(func=ast.Attribute(attr=attr) as func) as call):
            if root_name(func) == name:
                return attr not in _NOT_APPLIED and (
                    attr in _CHANGES or attr.endswith("_") or "init" in attr or "freeze" in attr
                )
            return ".init." in ast.unparse(func) and _mentions(call, name)
        case ast.Expr(value=ast.Call(func=ast.Name(id=called)) as call):
            return "init" in called.lower() and _mentions(call, name)
        case ast.For(iter=loop, body=body, orelse=[]):
            return name in names_read(loop) and all(_freezes(s) for s in body)
    return False


def user_names(source: Source, class_name: str) -> set[str]:
    """Names under which the file's own code holds the model."""
    found = {c.name for c in constructions(source, class_name) if c.name}
    return found | {"model", "vae", "net", "self"}


def _freezes(stmt: ast.stmt) -> bool:
    match stmt:
        case ast.Assign(targets=[ast.Attribute(attr="requires_grad")]):
            return True
        case ast.Expr(value=ast.Call(func=ast.Attribute(attr=attr))):
            return attr in {"requires_grad_", "fill_", "normal_", "uniform_", "zero_"}
    return False


def _builds_from_parameters(stmt: ast.stmt, name: str, kind: str = "") -> bool:
    """Whether a statement reads the parameters of the instance, or of another of its class."""
    value = _value_of(stmt)
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


def _elsewhere(
    construction: Construction, model: nn.Module, namespace: dict[str, Any]
) -> tuple[list[torch.optim.Optimizer], Span | None]:
    """An optimizer the file builds for the same name in another block."""
    assert construction.name is not None
    for place in construction.source.places:
        if place.in_class or not _builds_from_parameters(place.stmt, construction.name):
            continue
        source = construction.source
        scope = Scope(source, namespace, place.function, place.stmt.lineno)
        scope.known[construction.name] = model
        made = _evaluate(place.stmt, namespace, scope, source)
        if isinstance(made, torch.optim.Optimizer):
            return [made], source.span(_value_of(place.stmt))
    return [], None


def _value_of(stmt: ast.stmt) -> Any:
    if isinstance(stmt, ast.Assign | ast.AnnAssign):
        return stmt.value
    return None


def _names_bound(stmt: ast.stmt) -> set[str]:
    targets = stmt.targets if isinstance(stmt, ast.Assign) else []
    return {t.id for t in targets if isinstance(t, ast.Name)}


def _follow_assignment(stmt: ast.stmt, scope: Scope) -> None:
    if isinstance(stmt, ast.Assign) and len(stmt.targets) == 1:
        target = stmt.targets[0]
        if isinstance(target, ast.Name):
            scope.known.pop(target.id, None)
            scope.assign(target.id, stmt.value)


def _evaluate(stmt: ast.stmt, namespace: dict[str, Any], scope: Scope, source: Source) -> Any:
    made = _guarded(lambda: eval(_compiled(_value_of(stmt), source), namespace, scope))
    if made is not None and isinstance(stmt, ast.Assign):
        for target in stmt.targets:
            if isinstance(target, ast.Name):
                scope.known[target.id] = made
    return made


def _execute(stmt: ast.stmt, namespace: dict[str, Any], scope: Scope, source: Source) -> bool:
    def run() -> bool:
        exec(
            compile(ast.Module([stmt], []), str(source.path), "exec", dont_inherit=True),
            namespace,
            scope,
        )
        return True

    return _guarded(run) is True


def _compiled(expr: ast.expr, source: Source) -> Any:
    return compile(ast.Expression(expr), str(source.path), "eval", dont_inherit=True)


def _guarded(run: Callable[[], Any]) -> Any:
    """The result, or None: a statement that fails here is the script's business."""
    try:
        return run()
    except KeyboardInterrupt:
        raise
    except BaseException:
        return None


def _flat(stmts: tuple[ast.stmt, ...]) -> Iterator[ast.stmt]:
    """The statements, those of `with torch.no_grad()` included."""
    for stmt in stmts:
        if isinstance(stmt, ast.With) and "no_grad" in ast.unparse(stmt.items[0]):
            for inner in blocks(stmt):
                yield from inner
        else:
            yield stmt


def _mentions(node: ast.AST, name: str) -> bool:
    return name in names_read(node)


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
