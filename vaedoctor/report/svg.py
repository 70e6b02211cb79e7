"""Small plots as inline SVG, made by hand: numbers in, a string out.

Colours come from the page by class (`c0`, `c1`, … for what was measured, `expected` for what would
be right), so that one drawing serves light, dark and paper.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from html import escape

from ..finding import Curve, Plot
from .plain import number, plain

WIDTH = 380.0
MOST_BARS = 24
_LEFT, _RIGHT, _BOTTOM, _LEGEND, _ROW = 52.0, 14.0, 38.0, 16.0, 18.0
_NAMES = 132.0  # room for the names of bars
_CHARACTER = 5.9  # width of a character at 11 px, about
_WIDER = {"mono": 6.7, "role": 7.0}  # in these classes


def element(tag: str, *children: str, **attributes: float | str) -> str:
    """An element; its children are SVG already, its attributes are not trusted."""
    told = "".join(
        f' {k.rstrip("_").replace("_", "-")}="{_value(v)}"' for k, v in attributes.items()
    )
    return f"<{tag}{told}>{''.join(children)}</{tag}>"


def label(said: str, x: float, y: float, *, room: float = math.inf, **attributes: str) -> str:
    """Text at a place, cut to its room in pixels; the whole of it shows when pointed at."""
    said = plain(said).replace("`", "")
    shown = shorten(said, room, _WIDER.get(attributes.get("class_", ""), _CHARACTER))
    whole = element("title", safe(said)) if shown != said else ""
    return element("text", safe(shown), whole, x=x, y=y, **attributes)


def drawing(name: str, says: str, width: float, height: float, parts: Iterable[str]) -> str:
    """A whole image with its name and description for those who cannot see it."""
    head = (element("title", safe(name)), element("desc", safe(says)))
    box = f"0 0 {_value(width)} {_value(height)}"
    return element("svg", *head, *parts, viewBox=box, role="img", width=width, height=height)


def safe(text: str) -> str:
    """Text of the user's as it may stand in SVG."""
    return escape(plain(text), quote=True)


def shorten(text: str, room: float, character: float = _CHARACTER) -> str:
    """The text, or its start and end with an ellipsis where it is too long for its room."""
    most = max(3, int(room / character)) if room < math.inf else len(text)
    if len(text) <= most:
        return text
    end = (most - 1) // 2
    return f"{text[: most - 1 - end]}…{text[len(text) - end :]}"


def plot(data: Plot) -> str:
    """Curves where the positions are numbers, bars where they are names."""
    named = any(isinstance(x, str) for x in data.x)
    return _bars(data) if named else _lines(data)


def describe(data: Plot) -> str:
    """The plot in words: every curve with its first and last value."""
    said = []
    for curve in data.curves:
        places: tuple[float | str, ...] = data.x
        known = [(x, v) for x, v in zip(places, curve.values, strict=True) if v is not None]
        ends = [known[0], known[-1]] if len(known) > 1 else known
        told = ", ".join(f"{number(v)} at {number(x)}" for x, v in ends)
        said.append(f"{curve.name}: {told or 'nothing'}")
    return f"{data.y_label} over {data.x_label}. {'; '.join(said)}"


class Axis:
    """A scale from values to pixels, linear or logarithmic, with round ticks."""

    def __init__(
        self, values: Iterable[float], start: float, end: float, *, log: bool = False, zero: bool
    ) -> None:
        self.log, self.start, self.end = log, start, end
        known = [self._place(v) for v in values if not log or v > 0]
        low, high = (min(known), max(known)) if known else (0.0, 1.0)
        if log:
            low, high = float(math.floor(low)), float(math.ceil(high))
            high = max(high, low + 1)
        elif zero and low > 0 and low < 0.5 * high:
            low = 0.0
        if high - low <= 1e-9 * max(abs(low), abs(high), 1e-280):
            pad = abs(low) / 2 if abs(low) > 1e-280 else 1.0
            low, high = low - pad, high + pad
        self.low, self.high = low, high

    def at(self, value: float) -> float | None:
        """The pixel of a value; None for one that a logarithm does not have."""
        if self.log and value <= 0:
            return None
        share = (self._place(value) - self.low) / (self.high - self.low)
        return self.start + (self.end - self.start) * share

    def _place(self, value: float) -> float:
        """The value or its logarithm, kept where differences of two can be represented."""
        if self.log:
            return math.log10(max(value, 1e-300))
        return min(max(value, -1e300), 1e300)

    def ticks(self, most: int = 5) -> list[float]:
        """Round values on the scale."""
        if self.log:
            stride = max(1, math.ceil((self.high - self.low) / most))
            return [10.0**k for k in range(math.ceil(self.low), math.floor(self.high) + 1, stride)]
        rough = (self.high - self.low) / most
        unit = 10.0 ** math.floor(math.log10(rough))
        step = next(m * unit for m in (1, 2, 2.5, 5, 10) if m * unit >= rough * 0.999)
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return [k * step for k in range(first, last + 1)]


def _lines(data: Plot) -> str:
    top = 8.0 + _LEGEND * len(data.curves)
    height = top + 150 + _BOTTOM
    xs = [float(x) for x in data.x]
    ys = [v for c in data.curves for v in c.values if v is not None]
    across = Axis(xs, _LEFT, WIDTH - _RIGHT, zero=False)
    up = Axis(ys, height - _BOTTOM, top + 6, log=data.log, zero=True)
    parts = [*_legend(data.curves), *_frame(data, across, up, top, height)]
    for name, curve in _coloured(data.curves):
        points = [_point(across, up, x, v) for x, v in zip(xs, curve.values, strict=True)]
        parts += _curve(points, name, marks=not curve.expected and len(points) < 20)
    return drawing(data.name, describe(data), WIDTH, height, parts)


def _point(across: Axis, up: Axis, x: float, v: float | None) -> tuple[float, float] | None:
    at, height = across.at(x), None if v is None else up.at(v)
    return None if at is None or height is None else (at, height)


def _curve(
    points: Sequence[tuple[float, float] | None], name: str, *, marks: bool
) -> Iterable[str]:
    """The line through neighbours that are known, and a dot at each that was measured."""
    runs: list[list[tuple[float, float]]] = [[]]
    for point in points:
        if point is None:
            runs.append([])
        else:
            runs[-1].append(point)
    for run in runs:
        if len(run) > 1:
            path = " ".join(f"{_value(x)},{_value(y)}" for x, y in run)
            yield element("polyline", points=path, class_=f"line {name}")
    for run in runs:
        if marks or len(run) == 1:
            yield from (element("circle", cx=x, cy=y, r=3.2, class_=f"dot {name}") for x, y in run)


def _frame(data: Plot, across: Axis, up: Axis, top: float, height: float) -> Iterable[str]:
    """Grid, ticks and labels."""
    bottom = height - _BOTTOM
    for tick in up.ticks():
        y = up.at(tick)
        if y is not None:
            yield element("line", x1=_LEFT, x2=WIDTH - _RIGHT, y1=y, y2=y, class_="grid")
            yield label(number(tick), _LEFT - 6, y + 4, text_anchor="end", class_="tick")
    for tick in across.ticks():
        x = across.at(tick)
        if x is not None:
            yield element("line", x1=x, x2=x, y1=bottom, y2=bottom + 4, class_="axis")
            yield label(number(tick), x, bottom + 16, text_anchor="middle", class_="tick")
    yield element("line", x1=_LEFT, x2=WIDTH - _RIGHT, y1=bottom, y2=bottom, class_="axis")
    middle = (_LEFT + WIDTH - _RIGHT) / 2
    room = WIDTH - _LEFT - _RIGHT
    yield label(data.x_label, middle, height - 5, room=room, text_anchor="middle", class_="name")
    where = f"translate(11 {_value((top + bottom) / 2)}) rotate(-90)"
    said = safe(shorten(plain(data.y_label), bottom - top))
    yield element("text", said, transform=where, text_anchor="middle", class_="name")


def _bars(data: Plot) -> str:
    """Horizontal bars, a row a name; with several curves a group a name."""
    shown = list(zip(*(data.x, *(c.values for c in data.curves)), strict=True))[:MOST_BARS]
    several = data.curves if len(data.curves) > 1 else ()
    top, group = 8.0 + _LEGEND * len(several), _ROW * max(len(data.curves), 1)
    bottom = top + group * len(shown) + 4
    height = bottom + _BOTTOM + (_LEGEND if len(data.x) > MOST_BARS else 0)
    values = [v for _, *row in shown for v in row if v is not None]
    across = Axis(
        values if data.log else [0.0, *values], _NAMES, WIDTH - 60, log=data.log, zero=True
    )
    parts = [*_legend(several, bars=True)]
    for tick in across.ticks(4):
        x = across.at(tick)
        if x is not None:
            parts.append(element("line", x1=x, x2=x, y1=top, y2=bottom, class_="grid"))
            parts.append(label(number(tick), x, bottom + 14, text_anchor="middle", class_="tick"))
    for i, (name, *row) in enumerate(shown):
        y = top + group * i
        middle = y + group / 2 + 4
        parts.append(
            label(str(name), _NAMES - 8, middle, room=_NAMES - 10, text_anchor="end", class_="mono")
        )
        for k, ((colour, _), value) in enumerate(zip(_coloured(data.curves), row, strict=True)):
            parts += _bar(across, value, y + _ROW * k, colour)
    middle = WIDTH / 2
    said = f"{data.y_label}, by {data.x_label}"
    room = WIDTH - 16
    parts.append(label(said, middle, bottom + 30, room=room, text_anchor="middle", class_="name"))
    if len(data.x) > MOST_BARS:
        more = f"and {len(data.x) - MOST_BARS} more"
        parts.append(label(more, middle, height - 4, text_anchor="middle", class_="name"))
    return drawing(data.name, describe(data), WIDTH, height, parts)


def _bar(across: Axis, value: float | None, y: float, colour: str) -> Iterable[str]:
    end = None if value is None else across.at(value)
    start = across.start if across.log else across.at(0.0)
    if value is None or end is None or start is None:
        yield label("none" if value is None else number(value), _NAMES + 4, y + 13, class_="tick")
        return
    left, wide = min(start, end), max(abs(end - start), 1.0)
    yield element(
        "rect", x=left, y=y + 3, width=wide, height=_ROW - 6, rx=2, class_=f"bar {colour}"
    )
    yield label(number(value), max(start, end) + 5, y + 13, class_="tick")


def _legend(curves: Sequence[Curve], *, bars: bool = False) -> Iterable[str]:
    for i, (name, curve) in enumerate(_coloured(curves)):
        y = 8 + _LEGEND * i
        yield label(curve.name, 38, y + 4, room=WIDTH - 50, class_="name")
        if bars:
            yield element("rect", x=10, y=y - 5, width=18, height=10, rx=2, class_=f"bar {name}")
            continue
        yield element("line", x1=8, x2=30, y1=y, y2=y, class_=f"line {name}")
        if not curve.expected:
            yield element("circle", cx=19, cy=y, r=3.2, class_=f"dot {name}")


def _coloured(curves: Iterable[Curve]) -> Iterable[tuple[str, Curve]]:
    """Each curve with the class that colours it."""
    measured = 0
    for curve in curves:
        if curve.expected:
            yield "expected", curve
        else:
            yield f"c{measured % 3}", curve
            measured += 1


def _value(value: float | str) -> str:
    """An attribute: numbers to a tenth of a pixel, so that the same drawing is the same text."""
    return safe(value) if isinstance(value, str) else f"{value:.1f}".removesuffix(".0")
