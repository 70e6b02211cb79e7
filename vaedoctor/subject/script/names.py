"""Which names statements read, write and fill."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence

from ..code.syntax import root_name


def one_by_one(statement: ast.stmt) -> list[ast.stmt]:
    """`x, y = a[i], b[i]` as two assignments, where neither reads what the other writes."""
    match statement:
        case ast.Assign(targets=[ast.Tuple(elts=targets)], value=ast.Tuple(elts=values)):
            starred = any(isinstance(e, ast.Starred) for e in (*targets, *values))
            if len(targets) == len(values) and not starred:
                pairs = zip(targets, values, strict=True)
                parts = [ast.copy_location(ast.Assign([t], v), statement) for t, v in pairs]
                if not reads(statement) & writes(statement):
                    return [*parts]
    return [statement]


def reads(node: ast.AST) -> set[str]:
    """The names that code loads."""
    return {n.id for n in ast.walk(node) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)}


def writes(statement: ast.stmt) -> set[str]:
    """The names that a statement binds."""
    found = {
        n.id
        for n in ast.walk(statement)
        if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)
    }
    return found if not isinstance(statement, ast.FunctionDef | ast.ClassDef) else set()


def fills(statement: ast.stmt) -> set[str]:
    """The names that a statement changes in part: `terms["kl"] = kl`, `terms.append(kl)`."""
    match statement:
        case ast.Assign(targets=targets):
            written = [n for t in targets for n in ast.walk(t) if isinstance(n, ast.Subscript)]
            parts: list[ast.expr] = [n for n in written if isinstance(n.ctx, ast.Store)]
        case ast.AugAssign(target=ast.Subscript() as target):
            parts = [target]
        case ast.Expr(ast.Call(ast.Attribute(held, "append" | "extend" | "update"))):
            parts = [held]
        case _:
            parts = []
    return {root_name(p) for p in parts} - {"", "self"}


def names_in(target: ast.expr) -> Iterator[str]:
    """The names in the target of a loop."""
    yield from (n.id for n in ast.walk(target) if isinstance(n, ast.Name))


def _calls_any(statement: ast.stmt, names: set[str]) -> bool:
    called = (n.func for n in ast.walk(statement) if isinstance(n, ast.Call))
    return any(
        (f.attr if isinstance(f, ast.Attribute) else getattr(f, "id", "")) in names for f in called
    )


def free(statements: Sequence[ast.stmt]) -> set[str]:
    """Names that are read before the statements bind them."""
    bound, found = set[str](), set[str]()
    for statement in statements:
        inner = {
            n.id
            for c in ast.walk(statement)
            if isinstance(c, ast.comprehension)
            for n in ast.walk(c.target)
            if isinstance(n, ast.Name)
        }
        inner |= {
            a.arg
            for c in ast.walk(statement)
            if isinstance(c, ast.Lambda)
            for a in (*c.args.args, *c.args.kwonlyargs)
        }
        updated = statement.target if isinstance(statement, ast.AugAssign) else None
        read = reads(statement) | (set(names_in(updated)) if updated is not None else set())
        loops_over = set(names_in(statement.target)) if isinstance(statement, ast.For) else set()
        found |= read - bound - inner - loops_over
        bound |= writes(statement)
    return found
