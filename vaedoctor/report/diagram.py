"""The picture of the anatomy as inline SVG: data flows down in grey, gradients flow up in colour.

Where a finding belongs to a station, the station carries its number; where the reconstruction's
gradient stops, the arrow is crossed out; a way around the latent is a lane in the colour of
errors; an idle layer is a dashed box without arrows.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from ..finding import Arrow, Finding, Part, Report, Term
from .layout import HIGH, IDLE, LEAK, SOURCES, WIDTH, Box, Layout, arrange
from .svg import drawing, element, label

_CUTS = ("VAE3", "VAE6", "VQ1")  # families that tell of lost gradients
_PAIR = (("recon", -7.0), ("kl", 7.0))
_TERMS = {"reconstruction": "recon", "kl": "kl"}

Way = list[tuple[float, float]]


def diagram(report: Report, *, prefix: str = "") -> str:
    """The anatomy of one report; empty where none was found.

    The numbers on it are links to `#<prefix>-finding-<number>`.
    """
    layout = arrange(report.picture, report.findings)
    if layout is None:
        return ""
    page = _Page(layout, report.findings, prefix, rest(report))
    drawn = [piece for arrow in layout.arrows for piece in page.arrow(arrow)]
    drawn += [piece for term in layout.terms for piece in page.feeding(term)]
    drawn += [piece for box in (*layout.stations, *layout.terms) for piece in page.box(box)]
    says = " → ".join(f"{b.role} {b.item.name}".strip() for b in layout.stations)
    return drawing("anatomy of the model", says, WIDTH, layout.height, drawn)


def rest(report: Report) -> str:
    """How the gradient that does not come from the reconstruction is called."""
    roles = [term.role for term in report.picture.terms]
    return "KL" if "kl" in roles or not roles else "rest"


class _Page:
    """One drawing: the layout, the findings it refers to, and which margins are taken."""

    def __init__(
        self, layout: Layout, findings: Sequence[Finding], prefix: str, other: str
    ) -> None:
        self.layout, self.findings, self.prefix, self.other = layout, findings, prefix, other
        self._lanes: dict[str, list[tuple[float, float]]] = {}

    def arrow(self, arrow: Arrow) -> Iterator[str]:
        """Data down in grey; beside it what comes back up of either gradient."""
        start, end = self.layout.stations[arrow.start], self.layout.stations[arrow.end]
        flows = _flows(start.item, end.item)
        if end.row - start.row != 1:
            yield from self._detour(arrow, start, end, flows)
            return
        x1, x2 = _meet(start, end)
        yield _stroke([(x1, start.bottom), (x2, end.y)], "data")
        for name, shift in _PAIR:
            if name in flows:
                way = [(x2 + shift, end.y - 3), (x1 + shift, start.bottom + 2)]
                yield _stroke(way, name, wide=flows[name])
        if self._cut(arrow):
            yield _cross((x1 + x2) / 2, (start.bottom + end.y) / 2)

    def _cut(self, arrow: Arrow) -> bool:
        """Whether the reconstruction's gradient arrives behind an arrow and before none beside it.

        Only where a finding says so: zeros at first, frozen layers and look-ups are no faults.
        """
        if not any(f.code.startswith(_CUTS) for f in self.findings):
            return False
        behind = self.layout.stations[arrow.end].item
        before = [self.layout.stations[a.start] for a in self.layout.arrows if a.end == arrow.end]
        if self.layout.stations[arrow.start].role in SOURCES or not _recon(behind):
            return False
        return not any(_recon(box.item) for box in before)

    def _detour(self, arrow: Arrow, start: Box, end: Box, flows: dict[str, float]) -> Iterator[str]:
        """Around the stations between: out at the side, along the margin, in at the side."""
        left = start.middle <= WIDTH / 2 and end.middle <= WIDTH / 2
        sign = 1 if left else -1
        out = start.x if left else start.x + start.wide
        into = end.x if left else end.x + end.wide
        y1, y2 = start.y + HIGH / 2, end.y + 12
        lane = self._lane(y1, y2, left=left)
        leak = self._leak(arrow)
        way = [(out, y1), (lane, y1), (lane, y2), (into, y2)]
        yield _stroke(way, "leak" if leak else "data")
        for i, name in enumerate(flows):
            near = lane + (5 + 4 * i) * sign
            yield _stroke([(into, y2 + 5), (near, y2 + 5), (near, y1 + 5), (out, y1 + 5)], name)
        if leak and leak not in self.layout.marked:
            yield self._badge(leak, lane, (y1 + y2) / 2)

    def _lane(self, start: float, end: float, *, left: bool) -> float:
        """The x of a free lane in a margin, as near to the boxes as can be."""
        for k in range(4):
            taken = self._lanes.setdefault(f"{left}{k}", [])
            if all(end < a or b < start for a, b in taken):
                break
        taken.append((start, end))
        beside = [b for b in self.layout.stations if b.y <= end and b.bottom >= start]
        edge = min(min(b.x, WIDTH - b.x - b.wide) for b in beside)
        near = max(edge - 10 - 10 * k, 13.0)
        return near if left else WIDTH - near

    def _leak(self, arrow: Arrow) -> int:
        """The number of the finding that an arrow around the latent proves; 0 if none."""
        numbers = [i for i, f in enumerate(self.findings, start=1) if f.code == LEAK]
        roles = [b.role for b in self.layout.stations]
        samples = [i for i, role in enumerate(roles) if role == "sample"]
        if not numbers or not samples or roles[arrow.start] == "condition":
            return 0
        return numbers[0] if arrow.start < samples[0] and arrow.end > samples[-1] else 0

    def feeding(self, term: Box) -> Iterator[str]:
        """From x_hat to the reconstruction, from each posterior's parameters to the KL."""
        x, y = term.middle, term.y
        kind = _TERMS.get(term.role)
        if kind == "recon":
            for box in (b for b in self.layout.stations if b.role == "x_hat"):
                turn = y - 28
                bent = [(box.middle, box.bottom), (box.middle, turn), (x, turn), (x, y)]
                yield _stroke(bent if abs(x - box.middle) > 1 else [bent[0], bent[3]], kind)
        if kind == "kl":
            for box in (b for b in self.layout.stations if b.role in ("location", "scale")):
                left = box.middle < WIDTH / 2 - 1
                out, lane = (box.x, 6.0) if left else (box.x + box.wide, WIDTH - 6.0)
                start, turn = box.bottom - 12, y - (12 if left else 18)
                end = x - 5 if left else x + 5
                way = [(out, start), (lane, start), (lane, turn), (end, turn), (end, y)]
                yield _stroke(way, kind)

    def box(self, box: Box) -> Iterator[str]:
        """A box with role and name, the facts, the gradients that arrive, and its findings."""
        yield element(
            "rect", x=box.x, y=box.y, width=box.wide, height=HIGH, rx=7, class_=self._class(box)
        )
        name = box.item.name if box.item.name != box.role else ""
        left, room = box.x + 10, box.wide - 20 - 20 * len(box.marks)
        role = "recon" if box.role == "reconstruction" and room < 100 else box.role
        after = left + len(role) * 7.0 + 8
        beside = bool(name) and after + 24 < left + room  # room for a few letters of it
        yield label(role, left, box.y + 17, room=room, class_="role")
        if beside:
            yield label(name, after, box.y + 17, room=left + room - after, class_="mono")
        facts = box.facts if beside or not name else f"{name} · {box.facts}"
        yield label(facts, left, box.y + 32, room=box.wide - 16, class_="fact")
        if isinstance(box.item, Part):
            yield from _norms(box.item, self.other, left, box.y + 46, box.wide - 20)
        for k, mark in enumerate(box.marks):
            yield self._badge(mark, box.x + box.wide - 16 - 20 * k, box.y + 14)

    def _class(self, box: Box) -> str:
        """The class of a box: what is found there, idle, or the term of the loss it is."""
        found = [self.findings[m - 1].severity for m in box.marks]
        worst = str(max(found, key=lambda s: s.rank)) if found else ""
        kind = "idle" if box.role == IDLE else ""
        if isinstance(box.item, Term):
            kind = f"term {_TERMS.get(box.role, '')}"
        return " ".join(f"station {kind} {worst}".split())

    def _badge(self, mark: int, x: float, y: float) -> str:
        severity = self.findings[mark - 1].severity
        circle = element("circle", cx=x, cy=y, r=9, class_=f"badge {severity}")
        said = element("text", str(mark), x=x, y=y + 4, text_anchor="middle", class_="mark")
        if not self.prefix:
            return element("g", circle, said)
        return element("a", circle, said, href=f"#{self.prefix}-finding-{mark}")


def _meet(start: Box, end: Box) -> tuple[float, float]:
    """Where an arrow between neighbouring rows leaves and arrives: upright if the boxes overlap."""
    low = max(start.x, end.x) + 24
    high = min(start.x + start.wide, end.x + end.wide) - 24
    if low <= high:
        nearest = min(start.middle, end.middle, key=lambda m: abs(m - (low + high) / 2))
        x = min(max(nearest, low), high)
        return x, x
    if start.x < end.x:
        return start.x + start.wide - 24, end.x + 24
    return start.x + 24, end.x + end.wide - 24


def _flows(start: Part | Term, end: Part | Term) -> dict[str, float]:
    """The gradients that pass back over an arrow, with the widths of their strokes."""
    if not isinstance(start, Part) or not isinstance(end, Part):
        return {}
    pairs = {
        "recon": (start.recon_gradient, end.recon_gradient),
        "kl": (start.kl_gradient, end.kl_gradient),
    }
    return {name: _wide(size) for name, (size, behind) in pairs.items() if size and behind}


def _wide(size: float) -> float:
    """Wider for a larger gradient, by its order of magnitude."""
    if not 0 < size < math.inf:
        return 2.0
    return min(max(2.0 + 0.5 * math.log10(size), 1.2), 4.0)


def _recon(item: Part | Term) -> bool:
    """Whether the reconstruction's gradient arrives at a station."""
    return isinstance(item, Part) and bool(item.recon_gradient)


def _cross(x: float, y: float) -> str:
    return element(
        "g",
        element("title", "the gradient of the reconstruction stops here"),
        element("line", x1=x - 8, y1=y - 6, x2=x + 8, y2=y + 6),
        element("line", x1=x - 8, y1=y + 6, x2=x + 8, y2=y - 6),
        class_="cut",
    )


def _stroke(points: Way, name: str, *, wide: float = 2.0) -> str:
    """A line of straight pieces, with an arrow's head at its end."""
    way = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    line = element("polyline", points=way, class_=f"way {name}", stroke_width=wide)
    (x0, y0), (x, y) = points[-2:]
    length = math.hypot(x - x0, y - y0) or 1.0
    dx, dy = (x - x0) / length * 6, (y - y0) / length * 6
    corners = [(x, y), (x - dx - dy / 2, y - dy + dx / 2), (x - dx + dy / 2, y - dy - dx / 2)]
    head = " ".join(f"{a:.1f},{b:.1f}" for a, b in corners)
    return line + element("polygon", points=head, class_=f"tip {name}")


def _norms(part: Part, other: str, x: float, y: float, room: float) -> Iterator[str]:
    """The norms of the two gradients at this place."""
    beside = 0.0
    if part.recon_gradient is not None:
        said = f"recon {part.recon_gradient:.2g}"
        yield label(said, x, y, class_="norm recon")
        beside = max(room / 2, len(said) * 5.5 + 8)
    if part.kl_gradient is not None:
        yield label(f"{other} {part.kl_gradient:.2g}", x + beside, y, class_="norm kl")
