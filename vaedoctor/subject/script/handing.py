"""What the calls of a file hand to the parameters of its own functions."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from ..code.source import Place, Source
from ..code.syntax import Function, called_name, own_expressions
from .holders import callees


def is_parameter(function: Function | None, name: str) -> bool:
    """Whether a function is given something by that name."""
    if function is None:
        return False
    a = function.args
    return name in {p.arg for p in (*a.posonlyargs, *a.args, *a.kwonlyargs)}


def is_rebound(function: Function | None, name: str, line: int) -> bool:
    """Whether a function gives a name another meaning above a line."""
    return any(
        isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store) and n.id == name
        for n in (ast.walk(function) if function is not None else ())
        if getattr(n, "lineno", line) < line
    )


def handed_by_calls(
    source: Source, function: Function, name: str
) -> Iterator[tuple[ast.expr, Place]]:
    """The expressions that the file's own calls give a parameter of a function, method or class."""
    yield from ((expr, place) for expr, place, _ in handing_calls(source, function, name))


def handing_calls(
    source: Source, function: Function, name: str
) -> Iterator[tuple[ast.expr, Place, ast.Call]]:
    """The same, each with the call."""
    for given, place, call in sites(source, function):
        if name in given:
            yield given[name], place, call


def sites(
    source: Source, function: Function
) -> Iterator[tuple[dict[str, ast.expr], Place, ast.Call]]:
    """The file's own calls of a function, method or class: what each parameter is given, where."""
    home_of = next((p for p in source.places if p.stmt is function), None)
    owner = home_of.owners[-1] if home_of is not None and home_of.owners else None
    in_class = isinstance(owner, ast.ClassDef)
    called = owner.name if in_class and function.name == "__init__" else function.name  # type: ignore[union-attr]
    for place in source.places:
        for node in own_expressions(place.stmt):
            if not isinstance(node, ast.Call) or called_name(node) != called:
                continue
            if not in_class and not isinstance(node.func, ast.Name):
                continue  # `optimizer.step()` is no call of `def step(x)`
            for callee, shift in callees(source, called):
                if callee is not function:
                    continue
                positional = [p.arg for p in (*function.args.posonlyargs, *function.args.args)]
                given = dict(zip(positional[shift:], node.args, strict=False))
                given |= {k.arg: k.value for k in node.keywords if k.arg}
                told = {n: e for n, e in given.items() if not isinstance(e, ast.Starred)}
                yield told, place, node
