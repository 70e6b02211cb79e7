"""What the lines below a construction do to the model, and the optimizer that they build."""

from __future__ import annotations

import ast
import copy
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from ...finding import Span
from ..code.scope import Scope
from ..code.source import Source
from ..code.syntax import blocks, names_read, root_name
from .construction import Construction, builds_from_parameters, names_bound, value_of

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
        own = builds_from_parameters(stmt, name, type(model).__name__)
        if own or (value_of(stmt) and read & parameter_lists):
            made = _evaluate(stmt, namespace, scope, source)
            parameter_lists |= names_bound(stmt)
            if isinstance(made, torch.optim.Optimizer):
                optimizers.append(made)
                at = at or source.span(value_of(stmt))
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


def _freezes(stmt: ast.stmt) -> bool:
    match stmt:
        case ast.Assign(targets=[ast.Attribute(attr="requires_grad")]):
            return True
        case ast.Expr(value=ast.Call(func=ast.Attribute(attr=attr))):
            return attr in {"requires_grad_", "fill_", "normal_", "uniform_", "zero_"}
    return False


def _elsewhere(
    construction: Construction, model: nn.Module, namespace: dict[str, Any]
) -> tuple[list[torch.optim.Optimizer], Span | None]:
    """An optimizer the file builds for the same name in another block."""
    assert construction.name is not None
    for place in construction.source.places:
        if place.in_class or not builds_from_parameters(place.stmt, construction.name):
            continue
        source = construction.source
        scope = Scope(source, namespace, place.function, place.stmt.lineno)
        scope.known[construction.name] = model
        made = _evaluate(place.stmt, namespace, scope, source)
        if isinstance(made, torch.optim.Optimizer):
            return [made], source.span(value_of(place.stmt))
    return [], None


def _follow_assignment(stmt: ast.stmt, scope: Scope) -> None:
    if isinstance(stmt, ast.Assign) and len(stmt.targets) == 1:
        target = stmt.targets[0]
        if isinstance(target, ast.Name):
            scope.known.pop(target.id, None)
            scope.assign(target.id, stmt.value)


def _evaluate(stmt: ast.stmt, namespace: dict[str, Any], scope: Scope, source: Source) -> Any:
    made = _guarded(lambda: eval(_compiled(value_of(stmt), source), namespace, scope))
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
