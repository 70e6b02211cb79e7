"""The picture of the anatomy as inline SVG: data flows down in grey, gradients flow up in colour.

Where a finding belongs to a station, the station carries its number; a gradient that stops is a
crossed-out arrow, a way around the latent a lane in the colour of errors, an idle layer a dashed
box without arrows.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from ..finding import Arrow, Finding, Part, Picture, Report, Severity, Term
from .plain import number
from .svg import drawing, element, label

WIDTH = 400.0
MOST_ROWS = 26  # further layers of one kind are drawn as one box
_HIGH, _GAP, _TOP = 52.0, 40.0, 12.0
_MARGIN = 44.0  # for the lanes of what jumps over a station
_LEAK = "VAE403"
_ALONE = ("idle",)


@dataclass(frozen=True, slots=True)
class Box:
    """A station on the paper: `x` and `y` are the left upper corner."""

    part: Part
    x: float
    y: float
    wide: float
    row: int
    marks: tuple[int, ...] = ()

    @property
    def middle(self) -> float:
        """The centre across."""
        return self.x + self.wide / 2

    @property
    def bottom(self) -> float:
        """The lower edge."""
        return self.y + _HIGH


def diagram(report: Report, *, prefix: str = "") -> str:
    """The anatomy of one report; empty where none was found.

    The numbers on it are links to `#<prefix>-finding-<number>`.
    """
    picture = shortened(report.picture)
    if not picture.parts:
        return ""
    boxes = _boxes(picture, report.findings)
    lanes = _Lanes(boxes)
    drawn = [line for arrow in picture.arrows for line in _arrow(arrow, boxes, lanes, report)]
    below = max(b.bottom for b in boxes) + _GAP
    terms, height = _terms(picture.terms, boxes, lanes, below)
    stations = [piece for b in boxes for piece in _station(b, report.findings, prefix)]
    says = " → ".join(f"{p.role} {p.name}".strip() for p in picture.parts)
    return drawing("anatomy of the model", says, WIDTH, height, [*drawn, *terms, *stations])


def shortened(picture: Picture) -> Picture:
    """The picture with at most `MOST_ROWS` stations: runs of layers become one box each."""
    parts = list(picture.parts)
    new = list(range(len(parts)))
    while len(set(new)) > MOST_ROWS:
        run = _longest_run([parts[i] for i in sorted(set(new))])
        if len(run) < 4:
            break
        kept = sorted(set(new))
        middle = [kept[k] for k in run[1:-1]]
        folded = f"{len(middle)} more layers"
        parts[middle[0]] = replace(parts[middle[0]], name=folded, kind="", at=None)
        new = [middle[0] if n in middle else n for n in new]
    order = {old: i for i, old in enumerate(sorted(set(new)))}
    ends = {
        (order[new[a.start]], order[new[a.end]]): a
        for a in picture.arrows
        if a.start < len(parts) and a.end < len(parts) and new[a.start] != new[a.end]
    }
    arrows = tuple(Arrow(start, end, a.label) for (start, end), a in ends.items())
    if not arrows and len(order) > 1:
        arrows = tuple(Arrow(i, i + 1) for i in range(len(order) - 1))
    return replace(picture, parts=tuple(parts[old] for old in order), arrows=arrows)


def _longest_run(parts: Sequence[Part]) -> list[int]:
    """The positions of the most neighbours with one role, of encoder or layers."""
    best: list[int] = []
    run: list[int] = []
    for i, part in enumerate(parts):
        same = run and parts[run[-1]].role == part.role
        run = [*run, i] if same and part.role in ("encoder", "layer") else [i]
        best = max(best, run, key=len)
    return best


def _rows(picture: Picture) -> list[int]:
    """The row of each part: below everything that feeds it; an idle one beside the one before."""
    rows = [0] * len(picture.parts)
    for _ in picture.parts:  # a picture has no cycles, but a hostile one may
        for arrow in picture.arrows:
            if arrow.start < arrow.end:
                rows[arrow.end] = max(rows[arrow.end], rows[arrow.start] + 1)
    for i, part in enumerate(picture.parts):
        if part.role in _ALONE and i:
            rows[i] = rows[i - 1] + 1
    used = {row: i for i, row in enumerate(sorted(set(rows)))}
    return [used[row] for row in rows]


def _boxes(picture: Picture, findings: Sequence[Finding]) -> list[Box]:
    rows = _rows(picture)
    marks = _marks(picture.parts, findings)
    boxes = []
    placed: dict[int, int] = {}
    for part, row, mark in zip(picture.parts, rows, marks, strict=True):
        beside = rows.count(row)
        room = WIDTH - 2 * _MARGIN
        wide = min(room, 190.0) if beside == 1 else (room - 12 * (beside - 1)) / beside
        used = beside * wide + 12 * (beside - 1)
        x = (WIDTH - used) / 2 + placed.get(row, 0) * (wide + 12)
        placed[row] = placed.get(row, 0) + 1
        boxes.append(Box(part, x, _TOP + row * (_HIGH + _GAP), wide, row, tuple(mark)))
    return boxes


def _marks(parts: Sequence[Part], findings: Sequence[Finding]) -> list[list[int]]:
    """The numbers of the findings that belong to each station, each to one station."""
    marks: list[list[int]] = [[] for _ in parts]
    for i, finding in enumerate(findings, start=1):
        found = _home(parts, finding)
        if found is not None:
            marks[found].append(i)
    return marks


def _home(parts: Sequence[Part], finding: Finding) -> int | None:
    """The station at the finding's place; else the one that its message names."""
    at = finding.at
    lines = [
        i
        for i, p in enumerate(parts)
        if at is not None and p.at is not None and (p.at.file, p.at.line) == (at.file, at.line)
    ]
    exact = [i for i in lines if at is not None and (p := parts[i].at) and p.col == at.col]
    named = [i for i, p in enumerate(parts) if p.name and f"`{p.name}`" in finding.message]
    return next(iter((*exact, *lines, *named)), None)


class _Lanes:
    """Ways along the margins for what jumps over stations, each as near as it can be."""

    def __init__(self, boxes: Sequence[Box]) -> None:
        self.used: dict[str, list[tuple[float, float]]] = {}
        self.boxes = boxes

    def take(self, start: float, end: float, side: str) -> float:
        """The x of a free lane on a side, for a way from one y to another."""
        for k in range(4):
            key = f"{side}{k}"
            if all(end < a or b < start for a, b in self.used.get(key, [])):
                break
        self.used.setdefault(key, []).append((start, end))
        edge = min(b.x for b in self.boxes if b.y <= end and b.bottom >= start)
        near = edge - 10 - 9 * k
        return max(near, 4.0) if side == "left" else min(WIDTH - near, WIDTH - 4.0)


def _arrow(arrow: Arrow, boxes: Sequence[Box], lanes: _Lanes, report: Report) -> Iterator[str]:
    """Data down in grey; beside it what comes back up of either gradient."""
    if arrow.start >= arrow.end or arrow.end >= len(boxes):
        return
    start, end = boxes[arrow.start], boxes[arrow.end]
    flows = _flows(start.part, end.part)
    if end.row - start.row == 1:
        x1, x2 = _meet(start, end)
        yield _stroke([(x1, start.bottom), (x2, end.y)], "data", tip=True)
        for name, shift in (("recon", -7.0), ("kl", 7.0)):
            if name in flows:
                up = [(x2 + shift, end.y - 3), (x1 + shift, start.bottom + 2)]
                yield _stroke(up, name, tip=True, wide=flows[name])
        if _cut(start.part, end.part):
            yield from _cross((x1 + x2) / 2, (start.bottom + end.y) / 2)
    else:
        name = "leak" if _leaks(arrow, boxes, report) else "data"
        yield from _detour(start, end, lanes, [name, *(n for n in ("recon", "kl") if n in flows)])


def _meet(start: Box, end: Box) -> tuple[float, float]:
    """Where an arrow between neighbouring rows leaves and arrives."""
    low, high = max(start.x, end.x) + 24, min(start.x + start.wide, end.x + end.wide) - 24
    if low <= high:
        x = min(
            max(min(start.middle, end.middle, key=lambda m: abs(m - (low + high) / 2)), low), high
        )
        return x, x
    return (
        (start.x + start.wide - 24, end.x + 24)
        if start.x < end.x
        else (start.x + 24, end.x + end.wide - 24)
    )


def _detour(start: Box, end: Box, lanes: _Lanes, names: Sequence[str]) -> Iterator[str]:
    """Around the stations between: out at the side, along the margin, in at the side."""
    side = "left" if start.middle <= WIDTH / 2 and end.middle <= WIDTH / 2 else "right"
    y1, y2 = start.y + _HIGH / 2, end.y + 12
    lane = lanes.take(y1, y2, side)
    out = start.x if side == "left" else start.x + start.wide
    into = end.x if side == "left" else end.x + end.wide
    yield _stroke([(out, y1), (lane, y1), (lane, y2), (into, y2)], names[0], tip=True)
    for i, name in enumerate(names[1:]):
        shift = (5 + 4 * i) * (1 if side == "left" else -1)
        way = [(into, y2 + 5), (lane + shift, y2 + 5), (lane + shift, y1 + 5), (out, y1 + 5)]
        yield _stroke(way, name, tip=True)


def _flows(start: Part, end: Part) -> dict[str, float]:
    """The gradients that pass back over an arrow, with the widths of their strokes."""
    pairs = {
        "recon": (start.recon_gradient, end.recon_gradient),
        "kl": (start.kl_gradient, end.kl_gradient),
    }
    return {name: _width(a) for name, (a, b) in pairs.items() if a and b}


def _width(size: float) -> float:
    """Wider for a larger gradient, by its order of magnitude."""
    if not 0 < size < math.inf:
        return 2.0
    return min(max(2.0 + 0.5 * math.log10(size), 1.2), 4.0)


def _cut(start: Part, end: Part) -> bool:
    """Whether the reconstruction's gradient arrives behind an arrow and not before it."""
    source = start.role in ("x", "condition")
    return bool(end.recon_gradient) and not start.recon_gradient and not source


def _leaks(arrow: Arrow, boxes: Sequence[Box], report: Report) -> bool:
    """Whether an arrow is the way around the latent that a finding names."""
    if not any(f.code == _LEAK for f in report.findings):
        return False
    samples = [i for i, b in enumerate(boxes) if b.part.role == "sample"]
    around = bool(samples) and arrow.start < samples[0] and arrow.end > samples[-1]
    return around and boxes[arrow.start].part.role != "condition"


def _cross(x: float, y: float) -> Iterator[str]:
    title = element("title", "the gradient of the reconstruction stops here")
    yield element(
        "g",
        title,
        element("line", x1=x - 8, y1=y - 6, x2=x + 8, y2=y + 6),
        element("line", x1=x - 8, y1=y + 6, x2=x + 8, y2=y - 6),
        class_="cut",
    )


def _stroke(
    points: Sequence[tuple[float, float]], name: str, *, tip: bool, wide: float = 2.0
) -> str:
    """A line of straight pieces, with an arrow's head at its end."""
    way = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    line = element("polyline", points=way, class_=f"way {name}", stroke_width=wide)
    if not tip:
        return line
    (x0, y0), (x, y) = points[-2:]
    length = math.hypot(x - x0, y - y0) or 1.0
    dx, dy = (x - x0) / length * 6, (y - y0) / length * 6
    back, half = (x - dx, y - dy), (dy / 2, dx / 2)
    corners = [
        (x, y),
        (back[0] - half[0], back[1] + half[1]),
        (back[0] + half[0], back[1] - half[1]),
    ]
    head = " ".join(f"{a:.1f},{b:.1f}" for a, b in corners)
    return line + element("polygon", points=head, class_=f"tip {name}")


def _station(box: Box, findings: Sequence[Finding], prefix: str) -> Iterator[str]:
    """A box with the role and name, the kind and shape, and the gradients that arrive."""
    part = box.part
    worst = min((findings[m - 1].severity for m in box.marks), key=lambda s: -s.rank, default=None)
    status = f" {worst}" if worst else " idle" if part.role in _ALONE else ""
    yield element(
        "rect", x=box.x, y=box.y, width=box.wide, height=_HIGH, rx=7, class_=f"station{status}"
    )
    name = part.name if part.name != part.role else ""
    left, room = box.x + 10, box.wide - 20 - 20 * len(box.marks)
    known = room * 0.5 if name else room
    yield label(part.role, left, box.y + 17, room=known, class_="role")
    if name:
        after = left + min(len(part.role) * 7.0, known) + 8
        yield label(name, after, box.y + 17, room=left + room - after, class_="mono")
    facts = [part.kind, "×".join(map(str, part.shape)) if part.shape else ""]
    facts += [f":{part.at.line}" if part.at else ""]
    told = " · ".join(f for f in facts if f)
    yield label(told, left, box.y + 32, room=box.wide - 20, class_="fact")
    yield from _norms(part, left, box.y + 46, box.wide)
    for k, mark in enumerate(box.marks):
        x = box.x + box.wide - 16 - 20 * k
        drawn = _badge(mark, x, box.y + 14, findings[mark - 1].severity)
        yield element("a", drawn, href=f"#{prefix}-finding-{mark}") if prefix else drawn


def _norms(part: Part, x: float, y: float, wide: float) -> Iterator[str]:
    """The norms of the two gradients at this place."""
    found = (("recon", part.recon_gradient), ("kl", part.kl_gradient))
    told = [(name, norm) for name, norm in found if norm is not None]
    for i, (name, norm) in enumerate(told):
        said = f"{'recon' if name == 'recon' else 'KL'} {number(norm)}"
        room = (wide - 20) / len(told)
        yield label(said, x + i * room, y, room=room, class_=f"norm {name}")


def _badge(mark: int, x: float, y: float, severity: Severity) -> str:
    circle = element("circle", cx=x, cy=y, r=9, class_=f"badge {severity}")
    said = element("text", str(mark), x=x, y=y + 4, text_anchor="middle", class_="mark")
    return element("g", circle, said)


def _terms(
    terms: Sequence[Term], boxes: Sequence[Box], lanes: _Lanes, y: float
) -> tuple[list[str], float]:
    """The summands of the loss in a row below, fed by x_hat or by the posterior."""
    if not terms:
        return [], y - _GAP + 8
    shown = terms[:4]
    wide = (WIDTH - 2 * 12 - 12 * (len(shown) - 1)) / len(shown)
    drawn: list[str] = []
    for i, term in enumerate(shown):
        x = 12 + i * (wide + 12)
        kind = {"reconstruction": "recon", "kl": "kl"}.get(term.role, "other")
        drawn += _feeding(kind, boxes, lanes, x + wide / 2, y)
        drawn.append(
            element("rect", x=x, y=y, width=wide, height=40, rx=7, class_=f"station term {kind}")
        )
        drawn.append(label(term.role, x + 10, y + 17, room=wide - 20, class_="role"))
        value = "" if term.value is None else number(term.value)
        facts = " · ".join(f for f in (term.name, value) if f)
        drawn.append(label(facts, x + 10, y + 32, room=wide - 20, class_="fact"))
    return drawn, y + 40 + 8


def _feeding(kind: str, boxes: Sequence[Box], lanes: _Lanes, x: float, y: float) -> Iterable[str]:
    """From x_hat to the reconstruction, from each posterior's parameters to the KL."""
    if kind == "recon":
        for box in (b for b in boxes if b.part.role == "x_hat"):
            turn = y - 28
            way = [(box.middle, box.bottom), (box.middle, turn), (x, turn), (x, y)]
            yield _stroke(way if abs(x - box.middle) > 1 else [way[0], way[3]], "recon", tip=True)
    if kind == "kl":
        heads = [b for b in boxes if b.part.role in ("location", "scale")]
        for i, box in enumerate(heads[-2:]):
            side = "left" if box.middle < WIDTH / 2 and len(heads) > 1 and not i else "right"
            out = box.x if side == "left" else box.x + box.wide
            from_y = box.y + _HIGH - 12
            lane = 8.0 if side == "left" else WIDTH - 8.0
            turn = y - (12 if side == "left" else 18)
            yield _stroke(
                [
                    (out, from_y),
                    (lane, from_y),
                    (lane, turn),
                    (x + 8 * (1 - i), turn),
                    (x + 8 * (1 - i), y),
                ],
                "kl",
                tip=True,
            )
