"""Where the stations of the anatomy and the terms of the loss stand on the paper."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from ..finding import Arrow, Finding, Part, Picture, Span, Term
from .plain import number

WIDTH = 400.0
HIGH, GAP, TOP = 52.0, 40.0, 12.0
MARGIN = 44.0  # for the lanes of what jumps over a station
BETWEEN = 12.0
MOST_ROWS = 16  # further layers of one kind are drawn as one box
MOST_TERMS = 4
IDLE = "idle"
SOURCES = ("x", "condition", "noise")
LEAK = "VAE403"  # drawn as a lane
NEAR = 3  # lines from an operation to the station it leads to
_HOMES = {"VAE3": "sample", "VAE402": "x_hat"}  # of findings whose line is no station's


@dataclass(frozen=True, slots=True)
class Box:
    """A station or term on the paper: `x` and `y` are the left upper corner.

    `marks` are the numbers of the findings that belong to it.
    """

    item: Part | Term
    x: float
    y: float
    wide: float
    row: int
    marks: tuple[int, ...] = ()

    @property
    def role(self) -> str:
        """What it is: `x`, `encoder`, `kl`, …."""
        return self.item.role

    @property
    def middle(self) -> float:
        """The centre across."""
        return self.x + self.wide / 2

    @property
    def bottom(self) -> float:
        """The lower edge."""
        return self.y + HIGH

    @property
    def facts(self) -> str:
        """Kind, shape and line of a station; value and line of a term; no kind without room."""
        if isinstance(self.item, Term):
            known = [number(self.item.value) if self.item.value is not None else ""]
        else:
            known = [self.item.kind, "×".join(map(str, self.item.shape or ()))]
        known.append(f":{self.item.at.line}" if self.item.at else "")
        facts = [fact for fact in known if fact]
        long = len(facts) > 2 and len(" · ".join(facts)) * 5.9 > self.wide - 16
        return " · ".join(facts[1:] if long else facts)


@dataclass(frozen=True, slots=True)
class Layout:
    """Everything in its place: stations by index, the arrows between them, the terms below."""

    stations: tuple[Box, ...]
    arrows: tuple[Arrow, ...]
    terms: tuple[Box, ...]

    @property
    def height(self) -> float:
        """The height of the whole."""
        return max(b.bottom for b in (*self.stations, *self.terms)) + 8

    @property
    def marked(self) -> frozenset[int]:
        """The numbers of the findings that have a place on the picture."""
        return frozenset(m for b in (*self.stations, *self.terms) for m in b.marks)


def arrange(picture: Picture, findings: Sequence[Finding]) -> Layout | None:
    """The layout of a picture; None for an empty one."""
    picture = shortened(picture)
    if not picture.parts:
        return None
    terms = picture.terms[:MOST_TERMS]
    marks = _marks((*picture.parts, *terms), findings)
    rows = _rows(picture)
    stations = []
    for i, (part, row) in enumerate(zip(picture.parts, rows, strict=True)):
        place = rows[:i].count(row)
        x, wide = _across(place, rows.count(row), WIDTH - 2 * MARGIN, 190.0)
        stations.append(Box(part, x, TOP + row * (HIGH + GAP), wide, row, marks[i]))
    last = max(rows) + 1
    below = TOP + last * (HIGH + GAP)
    placed = []
    for i, term in enumerate(terms):
        x, wide = _across(i, len(terms), WIDTH - 2 * BETWEEN, 182.0)
        placed.append(Box(term, x, below, wide, last, marks[len(rows) + i]))
    return Layout(tuple(stations), picture.arrows, tuple(placed))


def _across(place: int, count: int, room: float, most: float) -> tuple[float, float]:
    """The left edge and width of one of several boxes in a row."""
    wide = min((room - BETWEEN * (count - 1)) / count, most)
    used = count * wide + BETWEEN * (count - 1)
    return (WIDTH - used) / 2 + place * (wide + BETWEEN), wide


def shortened(picture: Picture) -> Picture:
    """The picture with at most `MOST_ROWS` stations: runs of layers become one box each.

    Without arrows (a report of another version) each station feeds the next.
    """
    parts = list(picture.parts)
    stands_for = list(range(len(parts)))
    while len(kept := sorted(set(stands_for))) > MOST_ROWS:
        run = _longest_run([parts[i] for i in kept])
        if len(run) < 4:
            break
        middle = [kept[k] for k in run[1:-1]]
        first = middle[0]
        parts[first] = replace(parts[first], name=f"{len(middle)} more layers", kind="", at=None)
        stands_for = [first if n in middle else n for n in stands_for]
    order = {old: i for i, old in enumerate(kept)}
    arrows = {
        (order[stands_for[a.start]], order[stands_for[a.end]])
        for a in picture.arrows
        if max(a.start, a.end) < len(parts) and stands_for[a.start] < stands_for[a.end]
    }
    if not picture.arrows:
        arrows = {(i, i + 1) for i in range(len(order) - 1)}
    return replace(
        picture,
        parts=tuple(parts[old] for old in order),
        arrows=tuple(Arrow(*ends) for ends in sorted(arrows)),
    )


def _longest_run(parts: Sequence[Part]) -> list[int]:
    """The positions of the most neighbours with one role, of encoder or layers."""
    best: list[int] = []
    run: list[int] = []
    for i, part in enumerate(parts):
        same = bool(run) and parts[run[-1]].role == part.role
        run = [*run, i] if same and part.role in ("encoder", "layer") else [i]
        best = max(best, run, key=len)
    return best


def _rows(picture: Picture) -> list[int]:
    """The row of each part: below all that feeds it.

    What nothing feeds, and is no input, stands below the part before it; an idle layer beside what
    would have followed it.
    """
    rows = [0] * len(picture.parts)
    for i, part in enumerate(picture.parts):  # no arrow goes back
        fed = [rows[a.start] + 1 for a in picture.arrows if a.end == i]
        if fed:
            rows[i] = max(fed)
        elif i and part.role not in SOURCES:
            rows[i] = rows[i - 1] + (picture.parts[i - 1].role != IDLE)
    used = {row: i for i, row in enumerate(sorted(set(rows)))}
    return [used[row] for row in rows]


def _marks(items: Sequence[Part | Term], findings: Sequence[Finding]) -> list[tuple[int, ...]]:
    """The numbers of the findings that belong to each item; each to one at most."""
    marks: list[list[int]] = [[] for _ in items]
    for i, finding in enumerate(findings, start=1):
        home = _home(items, finding)
        if home is not None:
            marks[home].append(i)
    return [tuple(m) for m in marks]


def _home(items: Sequence[Part | Term], finding: Finding) -> int | None:
    """The item at the finding's place, else the next one behind it; for showing only."""
    at = finding.at
    asked: tuple[Callable[[Part | Term], bool], ...] = (
        lambda item: at is not None and item.at is not None and _start(item.at) == _start(at),
        lambda item: at is not None and item.at is not None and _line(item.at) == _line(at),
        lambda item: bool(item.name) and f"`{item.name}`" in finding.message,
        lambda item: isinstance(item, Term) and finding.name.startswith(item.role),
        lambda item: any(finding.code.startswith(c) and item.role == r for c, r in _HOMES.items()),
    )
    for fits in asked:
        for i, item in enumerate(items):
            if fits(item):
                return i
    return None if finding.code == LEAK else _next(items, at)


def _next(items: Sequence[Part | Term], at: Span | None) -> int | None:
    """The item whose line follows within a few lines: what it computes passes there."""
    if at is None:
        return None
    behind = [
        (item.at.line, i)
        for i, item in enumerate(items)
        if item.at is not None and item.at.file == at.file and 0 < item.at.line - at.line <= NEAR
    ]
    return min(behind)[1] if behind else None


def _line(at: Span) -> tuple[str, int]:
    return at.file, at.line


def _start(at: Span) -> tuple[str, int, int]:
    return at.file, at.line, at.col
