"""The anatomy alone: family and evidence, the way of the data, outputs, loss, what overrides it."""

from __future__ import annotations

import json
import textwrap
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import PurePath

from rich.cells import cell_len, set_cell_size

from ..finding import Number, Part, Picture, Report, Span
from .plain import ascii_only, number, plain

GAP = "  "
CLEAR = {"high": "sure", "medium": "fairly sure", "low": "not sure"}
FLAGS = (
    ("--objective NAME", "the loss: a function or method of the file"),
    ("--input SPEC", "the batch: `data.py:one_batch`, 16x784, a file"),
    ("--condition NAME", "a batch item that is a condition or a mask, not data"),
    ("--call NAME=VALUE", "an argument for every call of forward"),
    ("--arg NAME=VALUE", "an argument of the constructor"),
    ("--batch-axis N", "the axis of the samples; `none` if rows are not samples"),
    ("--batch-size N", "the rows of a made-up batch"),
)


def as_anatomy(report: Report, *, width: int = 80, ascii: bool = False) -> str:
    """The picture of one examined model as lines of text, readable at 80 columns."""
    lines = list(_lines(report, max(width, 40)))
    text = "\n".join(line.rstrip() for line in lines) + "\n"
    return ascii_only(text) if ascii else text


def anatomy_json(report: Report) -> str:
    """The picture as JSON, with how the model was loaded."""
    content = {"target": report.target, "anatomy": report.picture.to_dict(), "notes": report.notes}
    return json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False)


def _lines(report: Report, width: int) -> Iterator[str]:
    picture = report.picture
    yield from _wrapped(f"{plain(report.target)}: {plain(picture.family)}", width)
    sure = CLEAR.get(picture.confidence, plain(picture.confidence))
    for i, shown in enumerate(picture.evidence or ("nothing speaks for a family",)):
        first = f"  {sure}: " if i == 0 else "  and "
        yield from _wrapped(plain(shown), width, first=first)
    yield ""
    for note in report.notes:
        yield from _wrapped(plain(note), width, rest="  ")
    file = _main_file(picture)
    sections = (
        (f"the way of the data (lines of {PurePath(file).name})" if file else
         "the way of the data", _way(picture, file)),
        ("outputs", _outputs(picture, file)),
        ("terms of the loss, at these weights", _terms(picture, file)),
        ("norm of the gradient that arrives", _gradients(picture)),
    )  # fmt: skip
    for title, rows in sections:
        if rows:
            yield ""
            yield from _wrapped(plain(title), width)
            yield from _table(rows, width)
    yield ""
    yield "what overrides it"
    yield from _table([list(flag) for flag in FLAGS], width)


def _wrapped(text: str, width: int, *, first: str = "", rest: str = "    ") -> Iterator[str]:
    yield from textwrap.wrap(
        text,
        width,
        initial_indent=first,
        subsequent_indent=rest,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _main_file(picture: Picture) -> str:
    """The file that most of the stations are in."""
    places = [p.at.file for p in picture.parts if p.at is not None]
    return Counter(places).most_common(1)[0][0] if places else ""


def _at(place: Span | None, file: str) -> str:
    if place is None:
        return ""
    where = "" if place.file == file else f"{plain(PurePath(place.file).name)}:"
    return f"{where}{place.line}" if where else f"line {place.line}"


def _way(picture: Picture, file: str) -> list[list[str]]:
    """A row a station: its number, role, name, kind, shape, line, and what feeds it."""
    feeding: dict[int, list[int]] = {}
    for arrow in picture.arrows:
        feeding.setdefault(arrow.end, []).append(arrow.start + 1)
    rows = []
    for i, part in enumerate(picture.parts):
        before = sorted(feeding.get(i, []))
        plainly = before == [i]
        fed = "" if plainly or not before else f"from {_numbers(before)}"
        rows.append([f"{i + 1}", plain(part.role), _name(part), _shape(part.shape),
                     _at(part.at, file), fed])  # fmt: skip
    return rows


def _numbers(indices: Sequence[int]) -> str:
    shown = [str(i) for i in indices]
    return ", ".join(shown[:-1]) + f" and {shown[-1]}" if len(shown) > 1 else shown[0]


def _name(part: Part) -> str:
    named = f"`{plain(part.name)}`" if part.name else ""
    kind = plain(part.kind) if part.kind != part.name else ""
    return f"{named} {kind}".strip()


def _shape(shape: tuple[int, ...] | None) -> str:
    return "×".join(map(str, shape)) if shape else ""


def _outputs(picture: Picture, file: str) -> list[list[str]]:
    return [
        [
            plain(r.path if r.path != "output" else ""),
            f"`{plain(r.name)}`" if r.name and r.name != r.path else "",
            plain(r.role) or "not known",
            _shape(r.shape) or "number",
            _at(r.at, file),
        ]
        for r in picture.outputs
    ]


def _terms(picture: Picture, file: str) -> list[list[str]]:
    return [
        [
            plain(t.role) or "other",
            f"`{plain(t.name)}`" if t.name else "",
            _measured(t.value),
            _at(t.at, file),
        ]
        for t in picture.terms
    ]


def _gradients(picture: Picture) -> list[list[str]]:
    measured = [p for p in picture.parts if p.recon_gradient is not None]
    rows = [
        [
            plain(p.role),
            f"`{plain(p.name)}`" if p.name else "",
            _measured(p.recon_gradient),
            _measured(p.kl_gradient),
        ]
        for p in measured
    ]
    return [["", "", "reconstruction", _rest(picture)], *rows] if rows else []


def _rest(picture: Picture) -> str:
    """What the gradient that does not come through x_hat is called."""
    roles = {t.role for t in picture.terms}
    return next((r for r in ("kl", "codebook", "penalty") if r in roles), "the rest")


def _measured(value: Number) -> str:
    return "" if value is None else number(value)


def _table(rows: list[list[str]], width: int) -> Iterator[str]:
    """Rows in columns; a line that is too wide gives up the alignment of its long cells."""
    widths = [max(cell_len(cell) for cell in column) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = [set_cell_size(c, w) for c, w in zip(row, widths, strict=True) if w]
        line = f"{GAP}{GAP.join(cells)}".rstrip()
        if cell_len(line) > width:
            line = GAP.join(c for c in row if c)
            yield from _wrapped(line, width, first=GAP, rest=GAP * 3)
        else:
            yield line
