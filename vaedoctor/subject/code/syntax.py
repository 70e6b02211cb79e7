"""Pieces of a syntax tree: blocks, callees, and the names that they read."""

from __future__ import annotations

import ast
from collections.abc import Iterator

Function = ast.FunctionDef | ast.AsyncFunctionDef
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
_MOVES = {"to", "cuda", "cpu", "train", "eval", "float", "share_memory"}


def blocks(stmt: ast.stmt) -> Iterator[list[ast.stmt]]:
    """The blocks of a compound statement: body, else, handlers, finally."""
    for part in ("body", "orelse", "finalbody"):
        inner = getattr(stmt, part, None)
        if isinstance(inner, list) and inner:
            yield inner
    for handler in getattr(stmt, "handlers", ()):
        yield handler.body


def own_expressions(stmt: ast.stmt) -> Iterator[ast.AST]:
    """Every expression node that belongs to the statement itself, not to its blocks."""
    for child in ast.iter_child_nodes(stmt):
        if not isinstance(child, ast.stmt | ast.excepthandler):
            yield from ast.walk(child)


def called_name(call: ast.Call) -> str:
    """`VAE` for `VAE(...)` and for `models.VAE(...)`; empty when the callee has no name."""
    if isinstance(call.func, ast.Name):
        return call.func.id
    return call.func.attr if isinstance(call.func, ast.Attribute) else ""


def stripped(node: ast.expr) -> ast.expr:
    """The expression without trailing `.to(device)`, `.cuda()`, `.eval()`."""
    while (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in _MOVES
    ):
        node = node.func.value
    return node


def root_name(node: ast.AST) -> str:
    """The name an attribute, call or subscript chain starts from: `vae` for `vae.fc.weight`."""
    while isinstance(node, ast.Attribute | ast.Call | ast.Subscript):
        node = node.func if isinstance(node, ast.Call) else node.value
    return node.id if isinstance(node, ast.Name) else ""


def names_read(node: ast.AST) -> set[str]:
    """All names a piece of syntax loads."""
    return {n.id for n in ast.walk(node) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)}


def globals_read(node: ast.AST) -> set[str]:
    """Names a piece of syntax loads from outside: what functions bind themselves is left out."""
    if isinstance(node, (*FUNCTIONS, ast.Lambda)):
        a = node.args
        local = {p.arg for p in (*a.posonlyargs, *a.args, *a.kwonlyargs)}
        local |= {p.arg for p in (a.vararg, a.kwarg) if p is not None}
        body = node.body if isinstance(node.body, list) else [node.body]
        local |= {
            n.id
            for part in body
            for n in ast.walk(part)
            if isinstance(n, ast.Name) and not isinstance(n.ctx, ast.Load)
        }
        shared = {g for n in ast.walk(node) if isinstance(n, ast.Global) for g in n.names}
        inside = set().union(*(globals_read(part) for part in body), set())
        outside = [*a.defaults, *(d for d in a.kw_defaults if d)]
        outside += getattr(node, "decorator_list", [])
        return (inside - (local - shared)).union(*(globals_read(n) for n in outside))
    if isinstance(node, ast.Name):
        return {node.id} if isinstance(node.ctx, ast.Load) else set()
    return set().union(*(globals_read(child) for child in ast.iter_child_nodes(node)), set())


def is_main_guard(stmt: ast.stmt) -> bool:
    """Whether a statement is `if __name__ == "__main__"`."""
    return isinstance(stmt, ast.If) and "__name__" in names_read(stmt.test)
