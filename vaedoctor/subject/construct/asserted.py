"""What a constructor checks about its numbers, and numbers that pass the check.

`assert 1 <= n_dims <= 3` and `if dim % heads: raise ValueError` say which sizes may be given. The
condition is evaluated where it failed, with others in the place of the made-up numbers in it.
"""

from __future__ import annotations

import ast
import inspect
import itertools
import linecache
from collections.abc import Iterator, Mapping
from types import FrameType
from typing import Any

from ..code.signatures import signature_of
from .making import Call
from .solving import Values, sizes_in, with_size

_EVALUATED = (
    ast.Expression, ast.Compare, ast.BoolOp, ast.BinOp, ast.UnaryOp, ast.Name, ast.Attribute,
    ast.Constant, ast.Tuple, ast.List, ast.Set, ast.operator, ast.cmpop, ast.boolop, ast.unaryop,
    ast.expr_context,
)  # fmt: skip
_MOST = 6


def passing(error: BaseException, made: Values) -> Iterator[Values]:
    """The made-up values with another number, for which the check that raised is passed."""
    found = check_in(error)
    if found is None:
        return
    test, wanted, frame = found
    held = {**frame.f_globals, **frame.f_locals}
    places = {size: path for path, size in reversed(sizes_in(made))}
    names = [n for n in _names(test) if type(v := _value(n, held)) is int and v in places]
    options = _numbers(test, held, [_value(n, held) for n in names])
    proposals = (
        with_size(made, places[_value(name, held)], number)
        for name, number in itertools.product(names, options)
        if _value(name, held) != number and _holds(test, name, number, held) is wanted
    )
    yield from itertools.islice(proposals, _MOST)


def equalling(error: BaseException, made: Values) -> Iterator[Values]:
    """Where `part.size == 2` failed, the made-up values with a part that is given this size."""
    found = check_in(error)
    for node in ast.walk(found[0]) if found is not None else ():
        match node:
            case ast.Compare(left=left, ops=[ast.Eq() | ast.NotEq()], comparators=[right]):
                for one, other in ((left, right), (right, left)):
                    held = {**found[2].f_globals, **found[2].f_locals} if found is not None else {}
                    wanted = evaluated(other, held)
                    if isinstance(one, ast.Attribute) and type(wanted) in (int, float, bool, str):
                        yield from _with_argument(made, one.attr, wanted)


def evaluated(node: ast.expr, held: dict[str, Any]) -> Any:
    """What a condition's side is, where nothing but comparing and counting is done in it."""
    if not all(map(_is_plain, ast.walk(node))):
        return None
    try:
        return eval(compile(ast.Expression(node), "<check>", "eval"), {}, held)
    except Exception:
        return None


def _with_argument(made: Any, name: str, value: Any) -> Iterator[Any]:
    """Made-up values of which one call gets an argument that it takes."""
    inside = made.values if isinstance(made, Call) else made
    if not isinstance(inside, Mapping):
        return
    if isinstance(made, Call) and name in signature_of(made.thing).parameters:
        yield Call(made.thing, {**inside, name: value})
    for key, inner in inside.items():
        for other in _with_argument(inner, name, value):
            changed = {**inside, key: other}
            yield Call(made.thing, changed) if isinstance(made, Call) else changed


def classes_asked(error: BaseException) -> list[tuple[str, type]]:
    """The names and the classes of `assert isinstance(name, Class)` where such a check raised."""
    found = check_in(error)
    asked = []
    for node in ast.walk(found[0]) if found is not None else ():
        match node:
            case ast.Call(func=ast.Name(id="isinstance"), args=[value, kinds]):
                several = kinds.elts if isinstance(kinds, ast.Tuple) else [kinds]
                held = {**found[2].f_globals, **found[2].f_locals} if found is not None else {}
                for one in several:
                    kind = _static(ast.unparse(one), held)
                    if isinstance(kind, type):
                        asked.append((ast.unparse(value).rpartition(".")[2].lstrip("_"), kind))
    return asked


def _static(name: str, held: Mapping[str, Any]) -> Any:
    """What a dotted name stands for, an attribute of a module or a class included."""
    first, *rest = name.split(".")
    value = held.get(first)
    for attribute in rest:
        value = inspect.getattr_static(value, attribute, None)
    return value


def check_in(error: BaseException) -> tuple[ast.expr, bool, FrameType] | None:
    """The condition that failed, whether it should be true, and where its names are."""
    trace, last = error.__traceback__, None
    while trace is not None:
        trace, last = trace.tb_next, trace
    if last is None:
        return None
    frame, line = last.tb_frame, last.tb_lineno
    try:
        tree = ast.parse("".join(linecache.getlines(frame.f_code.co_filename)))
    except (SyntaxError, ValueError):
        return None
    around = [n for n in ast.walk(tree) if isinstance(n, ast.stmt) and _covers(n, line)]
    inner = min(around, key=lambda n: (n.end_lineno or n.lineno) - n.lineno, default=None)
    if isinstance(inner, ast.Assert):
        return inner.test, True, frame
    branches = [n for n in around if isinstance(n, ast.If) and inner in (*n.body, *n.orelse)]
    if isinstance(inner, ast.Raise) and branches:
        return branches[0].test, inner in branches[0].orelse, frame
    return None


def _covers(node: ast.stmt, line: int) -> bool:
    return node.lineno <= line <= (node.end_lineno or node.lineno)


def _is_plain(node: ast.AST) -> bool:
    """Whether a part of a condition does nothing but compare and count: `len(points) + 1`."""
    match node:
        case ast.Call(func=ast.Name(id="len"), args=[_], keywords=[]):
            return True
    return isinstance(node, _EVALUATED)


def _names(test: ast.expr) -> list[str]:
    """`name` and `self.name` in a condition that nothing but comparing and counting is done in."""
    if not all(map(_is_plain, ast.walk(test))):
        return []
    found = [ast.unparse(n) for n in ast.walk(test) if isinstance(n, ast.Name | ast.Attribute)]
    return [n for n in dict.fromkeys(found) if n != "self"]


def _value(name: str, held: Mapping[str, Any]) -> Any:
    first, *rest = name.split(".")
    value = held.get(first)
    for attribute in rest:
        value = getattr(value, "__dict__", {}).get(attribute)
    return value


def _numbers(test: ast.expr, held: Mapping[str, Any], sizes: list[Any]) -> list[int]:
    """Numbers to try: those of the condition and their neighbours, small ones, multiples."""
    said = [n.value for n in ast.walk(test) if isinstance(n, ast.Constant)]
    said += [_value(n, held) for n in _names(test)]
    compared = [n for n in ast.walk(test) if isinstance(n, ast.Compare)]
    said += [evaluated(side, dict(held)) for c in compared for side in (c.left, *c.comparators)]
    near = [s + d for s in said if type(s) is int for d in (0, -1, 1)]
    many = [size * k for size in sizes for k in (1, 2, 3, 4)]
    return [n for n in dict.fromkeys((*near, 2, 1, 4, 8, 16, 32, *many)) if n > 0]


def _holds(test: ast.expr, name: str, number: int, held: Mapping[str, Any]) -> bool | None:
    """Whether a condition is true with another number under a name; None if that is not known."""
    expression = ast.parse(ast.unparse(test), mode="eval")
    expression.body = _Replaced(name, number).visit(expression.body)
    try:
        return bool(eval(compile(expression, "<check>", "eval"), {}, dict(held)))
    except Exception:
        return None


class _Replaced(ast.NodeTransformer):
    """Puts a number in the place of a name."""

    def __init__(self, name: str, number: int) -> None:
        self.name, self.number = name, number

    def visit(self, node: ast.AST) -> Any:
        if isinstance(node, ast.Name | ast.Attribute) and ast.unparse(node) == self.name:
            return ast.copy_location(ast.Constant(self.number), node)
        return self.generic_visit(node)
