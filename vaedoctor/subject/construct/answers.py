"""What an exception of the constructor says about the made-up values that it was given."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ..trials.witness import user_frame
from .making import Call
from .sizes import Sizes
from .solving import sizes_in, with_size

Values = dict[str, Any]
NAMES = ("a", "b")
_DIVIDES = re.compile(
    r"(\d+)\D{0,60}?(?:divisible|multiple|divided)\D{0,60}?(\d+)", re.IGNORECASE | re.DOTALL
)
_ONE = re.compile(
    r"'int' (has no len|object is not (iterable|subscriptable))|type 'int' has no len"
)
_BOUND = re.compile(
    r"(?<![\w.])(\d+)(?![\w.])\D{0,40}?\b(?:must|should|has to|needs to|cannot|can't|may not)"
    r"\D{0,16}?\b(?:less|smaller|lower|fewer|below|greater|larger|more|higher|above|exceed|at most"
    r"|at least)\b\D{0,40}?(?<![\w.])(\d+)(?![\w.])"
)


def answering(error: BaseException, made: Values) -> Iterator[Values]:
    """The made-up values with what the exception says in their place."""
    yield from _looked_up_by_name(error, made)
    yield from _longer_lists(error, made)
    yield from _several(error, made)
    yield from _dividing(str(error), made)
    yield from _bounded(str(error), made)


def _bounded(text: str, made: Values) -> Iterator[Values]:
    """`split (17) must be less than layers (2)`: the one within the other's bound, or moved."""
    found = _BOUND.search(text)
    if found is None:
        return
    size, bound = int(found[1]), int(found[2])
    for old, other in ((size, bound), (bound, size)):
        for path, number in sizes_in(made):
            if number == old:
                near = (other - 1, other + 1, other, 2 * other)
                yield from (with_size(made, path, n) for n in near if n > 0 and n != old)


def _looked_up_by_name(error: BaseException, made: Values) -> Iterator[Values]:
    """`for name in names: widths[name]`, where both are lists: names, and a dict that has them."""
    frame = user_frame(error)
    if frame is None or not isinstance(error, IndexError | TypeError | KeyError):
        return
    held = frame[0].f_locals
    for node in _subscripts(frame[1]):
        index = held.get(node.slice.id) if isinstance(node.slice, ast.Name) else None
        asked = _value(node.value, held)
        lists = {k: v for k, v in made.items() if type(v) in (list, tuple) and v}
        for table in [k for k, v in made.items() if type(index) is int and _same(v, asked)]:
            for names in [k for k, v in lists.items() if index in v and k != table]:
                sizes = Sizes(made)
                widths = {n: sizes.one(f"{table}.{n}", "input") for n in NAMES}
                yield {**made, names: list(NAMES), table: widths}


def _longer_lists(error: BaseException, made: Values) -> Iterator[Values]:
    """`widths[2]` of a list of two: with one more entry, or two."""
    frame = user_frame(error)
    if frame is None or not isinstance(error, IndexError):
        return
    for node in _subscripts(frame[1]):
        asked = _value(node.value, frame[0].f_locals)
        if type(asked) in (list, tuple) and asked and all(type(n) is int for n in asked):
            for more in (1, 2):
                longer = _in_the_place_of(asked, [*asked, *range(asked[-1] + 2, 99)[:more]], made)
                if longer != made:
                    yield longer


def _several(error: BaseException, made: Values) -> Iterator[Values]:
    """`len(sides)` of a number, whatever its annotation says: two of them, of a picture's size."""
    frame = user_frame(error)
    if frame is None or not isinstance(error, TypeError) or not _ONE.search(str(error)):
        return
    held = {**frame[0].f_locals}
    owner = held.get("self")
    held |= {f"self.{k}": v for k, v in vars(owner).items()} if hasattr(owner, "__dict__") else {}
    read = [held[n] for n in re.findall(r"(?:self\.)?[A-Za-z_]\w*", frame[1]) if n in held]
    for name, value in made.items():
        if type(value) is int and any(type(r) is int and r == value for r in read):
            side = next((s for s in Sizes().named("image_size") if type(s) is int), value)
            sides = [side, side] if Sizes.kind(name) == "input" else [value, value]
            yield {**made, name: sides}
            yield {**made, name: tuple(sides)}


def _in_the_place_of(old: Sequence[int], new: list[int], made: Any) -> Any:
    """Made-up values with another list in the place of one, wherever it stands."""
    if type(made) in (list, tuple) and list(made) == list(old):
        return type(made)(new)
    if isinstance(made, Call):
        return Call(made.thing, _in_the_place_of(old, new, dict(made.values)))
    if type(made) is dict:
        return {k: _in_the_place_of(old, new, v) for k, v in made.items()}
    return made


def _subscripts(line: str) -> Iterator[ast.Subscript]:
    try:
        tree = ast.parse(line.rstrip(": "))
    except SyntaxError:
        return
    yield from (n for n in ast.walk(tree) if isinstance(n, ast.Subscript))


def _value(node: ast.expr, held: Mapping[str, Any]) -> Any:
    match node:
        case ast.Name(id=name):
            return held.get(name)
        case ast.Attribute(value=value, attr=attr):
            return getattr(_value(value, held), attr, None)
    return None


def _same(made: Any, asked: Any) -> bool:
    return type(made) in (int, list, tuple, dict) and type(made) is type(asked) and made == asked


def _dividing(text: str, made: Values) -> Iterator[Values]:
    """A size that is to be divisible by another: the next one that is."""
    found = _DIVIDES.search(text)
    if found is None:
        return
    size, part = int(found[1]), int(found[2])
    for path, number in sizes_in(made):
        if number == size and part > 0 and size % part:
            for step in (4 * part, part):  # what each part gets is often halved again
                yield with_size(made, path, step * (size // step + 1))
