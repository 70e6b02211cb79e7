"""Places in a function of the user's that are still to be filled in: `encoder=...`."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator
from typing import Any

from ...spelling import listed
from ..code.source import function_tree, source_of
from ..errors import TargetError


def refuse_unfilled(thing: Any, label: str) -> None:
    """Raise `TargetError` where a function of the user's still has `...` where a value belongs."""
    tree = function_tree(thing) if inspect.isfunction(thing) else None
    places = [] if tree is None else list(dict.fromkeys(_places(tree, "")))
    if not places:
        return
    source = source_of(thing)
    lines = source.text.splitlines() if source is not None else []
    named = [f"`{name}` in line {line}" if name else f"line {line}" for line, name in places]
    shown = [lines[n - 1].strip() for n, _ in places if n <= len(lines)]
    verb = "is" if len(named) == 1 else "are"
    raise TargetError(
        f"`{label}` is not filled in: {listed(named)} {verb} still `...`",
        next_step="\n".join(["put your own in the place of `...`:", *dict.fromkeys(shown)]),
    )


def _places(node: ast.AST, name: str) -> Iterator[tuple[int, str]]:
    """The line and the name of each `...` that is a value: no index, no empty body."""
    match node:
        case ast.Constant(value=value) if value is ...:
            yield node.lineno, name
            return
        case ast.Subscript(value=held):
            yield from _places(held, name)
            return
        case ast.Expr(value=ast.Constant()) | ast.arguments():
            return
        case ast.keyword(arg=str(arg)):
            name = arg
        case ast.Assign(targets=[target]) | ast.AnnAssign(target=target):
            name = ast.unparse(target)
        case ast.Dict(keys=keys, values=values):
            for key, inner in zip(keys, values, strict=True):
                own = key.value if isinstance(key, ast.Constant) else name
                yield from _places(inner, str(own))
            return
    for child in ast.iter_child_nodes(node):
        yield from _places(child, name)
