"""The code frame: the guilty line with carets under the guilty expression."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from rich.cells import cell_len, set_cell_size

from ..finding import Span
from .location import line_at
from .plain import place, plain


@dataclass(frozen=True, slots=True)
class Frame:
    """The lines of a code frame: `gutter` is the width that line numbers take."""

    gutter: int
    where: str
    number: str = ""
    source: str = ""
    carets: str = ""

    def lines(self) -> Iterator[tuple[str, str]]:
        """Each line as what stands in the gutter and what follows it."""
        pad = " " * self.gutter
        yield f"{pad}--> ", self.where
        if self.number:
            yield f"{pad} |", ""
            yield f"{self.number:>{self.gutter}} | ", self.source
            yield f"{pad} | ", self.carets


def frame(at: Span, *, width: int = 80) -> Frame:
    """The frame for a place; without source lines when the file cannot be read."""
    where = f"{place(at.file)}:{at.line}:{at.col}"
    raw = line_at(at)
    number = str(at.line)
    if not raw.strip():
        return Frame(len(number), where)
    start, end = _columns(at, raw)
    before, guilty, after = (plain(part) for part in _cut(raw, start, end))
    source, lead, length = _window(before, guilty, after, room=width - len(number) - 3)
    return Frame(len(number), where, number, source, " " * lead + "^" * max(1, length))


@dataclass(frozen=True, slots=True)
class Line:
    """A source line in three parts; the middle one is at fault, or empty."""

    number: str
    before: str
    guilty: str
    after: str


def listing(at: Span, *, around: int = 2, most: int = 12) -> Iterator[Line]:
    """The lines around a place, made safe to show; none where the file cannot be read."""
    last = at.end_line if at.line < at.end_line < at.line + most else at.line
    if not line_at(at).strip():
        return
    shown = {
        n: line_at(Span(at.file, n)) for n in range(max(1, at.line - around), last + around + 1)
    }
    gutter, indent = len(str(last + around)), _indent(shown.values())
    for n, raw in shown.items():
        if n < at.line and not any(shown[k].strip() for k in range(min(shown), n + 1)):
            continue  # blank lines in front
        start, end = _guilty(at, n, last, raw)
        before, guilty, after = (plain(part) for part in _cut(raw, start, end))
        if raw or n <= last:
            yield Line(f"{n:>{gutter}}", before.removeprefix(indent), guilty, after)


def _indent(lines: Iterable[str]) -> str:
    """The blanks that all lines begin with, so that a narrow screen shows more of them."""
    begins = [plain(raw) for raw in lines if raw.strip()]
    return " " * min(len(text) - len(text.lstrip(" ")) for text in begins)


def _guilty(at: Span, n: int, last: int, raw: str) -> tuple[int, int]:
    """The columns of a line that belong to the place."""
    if not at.line <= n <= last:
        return len(raw), len(raw)
    if last == at.line:
        return _columns(at, raw)
    indent = len(raw) - len(raw.lstrip())
    start = _columns(at, raw)[0] if n == at.line else indent
    end = min(max(at.end_col - 1, start), len(raw)) if n == at.end_line else len(raw)
    return min(start, end), end


def _columns(at: Span, raw: str) -> tuple[int, int]:
    """The guilty part of the line, as offsets; a span of several lines goes to the line's end."""
    start = min(max(at.col - 1, 0), len(raw))
    if start < len(raw) and raw[start].isspace():
        start += len(raw[start:]) - len(raw[start:].lstrip())
    one_line = at.end_line in (0, at.line)
    end = at.end_col - 1 if one_line and at.end_col > at.col else len(raw)
    if one_line and not at.end_col:
        end = start + len(raw[start:].partition("#")[0].rstrip())
    return start, min(max(end, start), len(raw))


def _cut(raw: str, start: int, end: int) -> tuple[str, str, str]:
    return raw[:start], raw[start:end], raw[end:]


def _window(before: str, guilty: str, after: str, *, room: int) -> tuple[str, int, int]:
    """The part of a line that fits, where its guilty part starts and how long it is, in cells."""
    lead, length = cell_len(before), cell_len(guilty)
    whole = before + guilty + after
    if cell_len(whole) <= room:
        return whole, lead, length
    if lead + length > room - 1:
        indent = len(before) - len(before.lstrip())
        keep = max(12, room - length - 2)
        before = "…" + before[max(indent, len(before) - keep) :]
        lead = cell_len(before)
        whole = before + guilty + after
    if cell_len(whole) > room:
        whole = set_cell_size(whole, room - 1).rstrip() + "…"
    return whole, lead, min(length, max(1, cell_len(whole) - lead))
