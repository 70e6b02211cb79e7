"""A place in the user's file, without torch."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import PurePath
from typing import Any

from .notebook import is_notebook, place_in


@dataclass(frozen=True, slots=True)
class Span:
    """A place in the user's file: lines and columns count from 1, the end column is exclusive."""

    file: str
    line: int
    col: int = 1
    end_line: int = 0
    end_col: int = 0

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.col}"


def where(place: Span | None, at: Span | None) -> str:
    """How a note of a finding at `at` names a place: `line 12`, with the file if it is another."""
    if place is None:
        return "a place that is not known"
    place = in_its_cell(place)
    if at is not None and in_its_cell(at).file == place.file:
        return f"line {place.line}"
    return f"line {place.line} of {PurePath(place.file).name}"


def in_its_cell(at: Span) -> Span:
    """A place in a notebook's joined text as the place in its cell; any other as it is."""
    if not is_notebook(at.file):
        return at
    file, line = place_in(at.file, at.line)
    return replace(at, file=file, line=line, end_line=at.end_line and at.end_line - at.line + line)


def span_to_dict(at: Span | None) -> dict[str, Any] | None:
    """A place as plain data."""
    return None if at is None else asdict(at)


def span_from_dict(data: dict[str, Any] | None) -> Span | None:
    """Read back what `span_to_dict` wrote."""
    return None if data is None else Span(**data)
