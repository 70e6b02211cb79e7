"""What names mean from statement to statement of a loop, and where the file's own data ends it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from typing import Any

from ..code.scope import Unknown
from ..code.syntax import blocks, root_name
from .datascope import DataScope
from .names import writes


def way_to(body: list[ast.stmt], node: ast.AST) -> Iterator[tuple[list[ast.stmt], int]]:
    """The blocks around a node, from the outermost in, each with how far it has come."""
    for index, stmt in enumerate(body):
        if any(inner is node for inner in ast.walk(stmt)):
            yield body, index
            for block in blocks(stmt):
                yield from way_to(block, node)
            return


def follow(stmt: ast.stmt, scope: DataScope) -> None:
    """Let names mean what a statement gives them, or nothing where that cannot be told."""
    try:
        match stmt:
            case ast.Assign(targets=[target], value=value):
                bind(target, scope.value(value), scope)
                return
            case ast.AugAssign(target=ast.Name(id=name) as target, op=op, value=value):
                left = ast.copy_location(ast.Name(name, ast.Load()), target)
                bind(target, scope.value(ast.BinOp(left, op, value)), scope)
                return
            case ast.If(test=test):
                for inner in stmt.body if scope.value(test) else stmt.orelse:
                    follow(inner, scope)
                return
            case ast.With():
                for inner in stmt.body:
                    follow(inner, scope)
                return
            case ast.Expr(ast.Call(ast.Attribute(attr=name)) as call) if name.endswith("_"):
                if root_name(call.func) in scope.known:
                    scope.value(call)  # `x.unsqueeze_(1)`
                return
            case ast.Expr() | ast.Assert():
                return
    except (Unknown, TypeError, ValueError) as error:
        scope.trail.stops = scope.trail.stops or stopped(stmt, scope, error)
    scope.lost |= writes(stmt) | _changed(stmt)


def stopped(stmt: ast.stmt, scope: DataScope, error: Exception) -> str:
    """Where what the file's own data gives is not what a statement asks of it; or nothing."""
    line = scope.called(stmt)
    if isinstance(error, _Parts):
        return f"{line} takes {error.asked} of your own data apart, which has {error.given}"
    for node in ast.walk(stmt):
        match node:
            case ast.Subscript(ast.Name(id=name), ast.Constant(value=str() as key)):
                held = scope.known.get(name) if name not in scope.lost else None
                if isinstance(held, dict) and held and key not in held:
                    keys = ", ".join(f"`{k}`" for k in held)
                    return f"{line} asks your own data for `{key}`, which has {keys}"
    return ""


def _changed(stmt: ast.stmt) -> set[str]:
    """What a statement changes in part or in place: `x[x > 0] = 1`, `x.clamp_(0, 1)`."""
    parts = (n for n in ast.walk(stmt) if isinstance(n, ast.Subscript | ast.Attribute))
    found = {root_name(n) for n in parts if isinstance(n.ctx, ast.Store)}
    match stmt:
        case ast.Expr(ast.Call(func)):
            found.add(root_name(func))
    return found - {"", "self"}


def bind(target: ast.expr, value: Any, scope: DataScope) -> None:
    """Let the names of a target mean a value; raises `ValueError` where the parts do not fit."""
    if isinstance(target, ast.Name):
        scope.lost.discard(target.id)
        scope.known[target.id] = value
    elif isinstance(target, ast.Tuple | ast.List):
        parts = list(value)
        if len(parts) != len(target.elts):
            starred = any(isinstance(e, ast.Starred) for e in target.elts)
            of_batch = isinstance(value, tuple | list) and not starred
            if not of_batch:
                raise ValueError("another number of parts")
            raise _Parts(len(target.elts), len(parts))
        for element, part in zip(target.elts, parts, strict=True):
            bind(element, part, scope)
    else:
        raise TypeError("neither a name nor names")


class _Parts(ValueError):
    """What is taken apart has another number of parts."""

    def __init__(self, asked: int, given: int) -> None:
        super().__init__(f"{given} parts instead of {asked}")
        self.asked = _counted(asked)
        self.given = _counted(given)


def _counted(parts: int) -> str:
    return f"{parts} part" + "s" * (parts != 1)
