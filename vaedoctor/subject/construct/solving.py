"""Made-up constructor sizes that must agree: which ones do is told by experiment.

A size is doubled and the model tried again: the two sizes in the error's text move with it or
not. Where they do, the value at which they would meet is solved for and tried. A size that numbers
are cut into rows of is as wide as what the last layer gave. An error whose text no made-up size
moves, or whose two sizes meet nowhere, is the model's own.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ..trials.witness import user_frame
from .making import Call

Values = dict[str, Any]
Path = tuple[Any, ...]
_MOST_SECONDS = 12.0
_MOST_SIZES = 12
_MOST_ROUNDS = 6
_LARGEST = 65_536
_SMALL = (2, 1)
_PAIRS = tuple(
    re.compile(p)
    for p in (
        r"cannot be multiplied \(\d+x(?P<arrived>\d+) and (?P<wanted>\d+)x\d+\)",
        r"to have (?P<wanted>\d+) channels, but got (?P<arrived>\d+) channels",
        r"Expected size (?P<wanted>\d+) but got size (?P<arrived>\d+)",
        r"tensor a \((?P<arrived>\d+)\) must match the size of tensor b \((?P<wanted>\d+)\)",
        r"shape \[\*, (?P<wanted>\d+)\], but got input of size\[(?:\d+, )*(?P<arrived>\d+)\]",
        r"running_mean should contain (?P<arrived>\d+) elements not (?P<wanted>\d+)",
        r"[Ee]xpected (?P<wanted>\d+),? (?:but )?got (?P<arrived>\d+)",
    )
)
_VIEW = re.compile(r"shape '\[([\d, -]+)\]' is invalid for input of size (\d+)")
_SPLIT = re.compile(r"sum exactly to (\d+) .*split_sizes=\[([\d, ]+)\]")


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a model with made-up arguments did: what ended it, and how many layers had run before.

    `given` is the shape of what the last layer gave; `result` is the caller's; `error` is None
    where the forward pass came to its end.
    """

    values: Values
    error: BaseException | None
    completed: int
    given: tuple[int, ...] = ()
    result: Any = None


@dataclass(frozen=True, slots=True)
class Solution:
    """The outcome that ran, if one did; else whether other sizes might have run."""

    ran: Outcome | None
    open: bool
    because: str = ""


def solve(start: Outcome, again: Callable[[Values], Outcome | None], *, rows: int = 8) -> Solution:
    """Try other sizes in the place of the made-up ones until the forward pass comes to its end.

    `again` builds and tries a model; None where it cannot be built.
    """
    ends = time.thread_time() + _MOST_SECONDS
    search = _Search(start, again, rows, ends)
    for _ in range(_MOST_ROUNDS):
        before = search.best
        ran = search.round()
        if ran is not None:
            return Solution(ran, open=True, because=str(start.error).partition("\n")[0])
        if search.best is before or time.thread_time() > ends:
            break
    return Solution(None, open=search.open)


class _Search:
    """One round after the other from the outcome that came furthest."""

    def __init__(
        self,
        start: Outcome,
        again: Callable[[Values], Outcome | None],
        rows: int,
        ends: float,
    ) -> None:
        self.best = start
        self.again = again
        self.rows = rows
        self.ends = ends
        self.open = False
        self._tried = {repr(start.values)}

    def round(self) -> Outcome | None:
        """Move every size a little, then to where the sizes of the error would meet."""
        start = self.best
        for values in _equated(start):
            one = self._try(values)
            if one is not None and one.error is None:
                return one
            if one is not None and not _is_alike(one, start):
                self._further(one)
        if self.best is not start:
            return None
        solved = list(as_wide_as_given(start))
        gap = gap_of(start.error, self.rows)
        for path, size in sizes_in(start.values):
            for moved in (2 * size, *(s for s in _SMALL if gap is None and s < size)):
                one = self._try(with_size(start.values, path, moved))
                if one is None:
                    continue
                if one.error is None:
                    return one
                if not _is_alike(one, start):
                    self.open = True
                    self._further(one)
                    continue
                other = gap_of(one.error, self.rows)
                if gap is None or other is None:
                    self.open = self.open or str(one.error) != str(start.error)
                elif (meets := _meeting(size, gap, moved, other)) is not None:
                    self.open = True
                    solved.append(with_size(start.values, path, meets))
        for values in solved:
            one = self._try(values)
            if one is not None and one.error is None:
                return one
            if one is not None and not _is_alike(one, start):
                self._further(one)
        return None

    def _try(self, values: Values) -> Outcome | None:
        if repr(values) in self._tried or time.thread_time() > self.ends:
            return None
        self._tried.add(repr(values))
        return self.again(values)

    def _further(self, one: Outcome) -> None:
        if one.completed > self.best.completed:
            self.best = one


def as_wide_as_given(start: Outcome) -> Iterator[Values]:
    """`x.view(-1, size)` of what the last layer gave: its channels, or its last axis."""
    found = _VIEW.search(str(start.error))
    if found is None or len(start.given) < 2:
        return
    cut = {int(n) for n in found[1].split(",")}
    for path, size in sizes_in(start.values):
        for width in dict.fromkeys((start.given[1], start.given[-1])):
            if size in cut and width != size:
                yield with_size(start.values, path, width)


def _equated(start: Outcome) -> Iterator[Values]:
    """The two made-up sizes that met in the operation, one as large as the other."""
    found = next((m for p in _PAIRS if (m := p.search(str(start.error)))), None)
    wanted, arrived = (int(found[k]) for k in ("wanted", "arrived")) if found else (0, 0)
    places = sizes_in(start.values)
    if {wanted, arrived} <= {size for _, size in places}:
        yield from (with_size(start.values, p, arrived) for p, size in places if size == wanted)
        yield from (with_size(start.values, p, wanted) for p, size in places if size == arrived)


def gap_of(error: BaseException | None, rows: int) -> int | None:
    """How much larger the size is that an operation wanted than the one that arrived."""
    text = str(error)
    for pattern in _PAIRS:
        if found := pattern.search(text):
            return int(found["wanted"]) - int(found["arrived"])
    if found := _VIEW.search(text):
        sizes = [int(n) for n in found[1].split(",")]
        wanted = math.prod(n for n in sizes if n > 0)
        return (wanted * rows if -1 in sizes[:1] else wanted) - int(found[2])
    if found := _SPLIT.search(text):
        return int(found[1]) - sum(int(n) for n in found[2].split(","))
    return None


def sizes_in(values: Mapping[Any, Any], path: Path = ()) -> list[tuple[Path, int]]:
    """The whole numbers among made-up values, with the ways that lead to them."""
    return list(_sizes(values, path))[:_MOST_SIZES]


def with_size(values: Values, path: Path, size: int) -> Values:
    """The values with another number at a place."""
    changed: Values = _placed(values, path, size)
    return changed


def _sizes(value: Any, path: Path) -> Iterator[tuple[Path, int]]:
    if type(value) is int and value > 0:
        yield path, value
    elif isinstance(value, Call):
        yield from _sizes(dict(value.values), path)
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _sizes(inner, (*path, key))
    elif isinstance(value, list | tuple):
        for index, inner in enumerate(value):
            yield from _sizes(inner, (*path, index))


def _placed(value: Any, path: Path, size: int) -> Any:
    if not path:
        return size
    key, *rest = path
    if isinstance(value, Call):
        return Call(value.thing, _placed(dict(value.values), path, size))
    if isinstance(value, Mapping):
        return {**value, key: _placed(value[key], tuple(rest), size)}
    changed = [_placed(v, tuple(rest), size) if i == key else v for i, v in enumerate(value)]
    return type(value)(changed)


def _meeting(size: int, gap: int, moved: int, other: int) -> int | None:
    """The size at which the gap closes, from the gaps at two sizes."""
    if other == gap:
        return None
    meets = size - gap * (moved - size) / (other - gap)
    whole = round(meets)
    return whole if abs(meets - whole) < 1e-9 and 0 < whole <= _LARGEST and whole != size else None


def _is_alike(one: Outcome, other: Outcome) -> bool:
    """Whether two outcomes ended in the same line with the same kind of error."""
    return type(one.error) is type(other.error) and _line(one) == _line(other)


def _line(outcome: Outcome) -> tuple[str, str] | None:
    frame = user_frame(outcome.error)
    return None if frame is None else (frame[0].f_code.co_filename, frame[1])
