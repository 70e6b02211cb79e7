"""The user's places: which frames are theirs, and the expression that was running in each."""

from __future__ import annotations

import functools
import linecache
import os
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import CodeType, FrameType

import torch

from ...finding import Span

_HOME = Path(__file__).parents[2]
_OURS = f"{_HOME}{os.sep}"
_FIXTURES = f"{_HOME / '_fixtures'}{os.sep}"
_TORCH = f"{Path(torch.__file__).parent}{os.sep}"
_DISTRIBUTIONS = f"{_TORCH}distributions{os.sep}"
_STDLIB = f"{Path(os.__file__).parent}{os.sep}"

RUN = "run_recorded"
"""The name of the function under which user code runs: frames above it are ours."""


@dataclass(frozen=True)
class Frame:
    """One of the user's own stack frames."""

    file: str
    line: int
    function: str
    code: CodeType = field(repr=False)
    instruction: int = field(repr=False)

    @cached_property
    def span(self) -> Span | None:
        """The expression that was running."""
        return span_of(self.code, self.instruction)


def span_of(code: CodeType, instruction: int) -> Span | None:
    """The source span of an instruction: exact columns from `co_positions` (PEP 657)."""
    return _span_of(code.co_filename, code, instruction)


@functools.lru_cache(maxsize=1 << 14)
def _span_of(file: str, code: CodeType, instruction: int) -> Span | None:
    # The file too is the key: code objects of two files are equal when their text is.
    line, end_line, col, end_col = _positions(file, code)[instruction // 2]
    if line is None:
        return None
    end_line = end_line or line
    start = 1 if col is None else _column(file, line, col)
    end = 0 if end_col is None else _column(file, end_line, end_col)
    return Span(file, line, start, end_line, end)


@functools.cache
def _positions(
    file: str, code: CodeType
) -> list[tuple[int | None, int | None, int | None, int | None]]:
    return list(code.co_positions())


def _column(file: str, line: int, offset: int) -> int:
    """A byte offset, as PEP 657 counts, as a column in characters from 1."""
    text = linecache.getline(file, line)
    if text.isascii():
        return offset + 1
    return len(text.encode()[:offset].decode(errors="ignore")) + 1


def user_frames(frame: FrameType | None) -> tuple[Frame, ...]:
    """The frames of the user's code above one of ours, innermost first."""
    found: list[Frame] = []
    while frame is not None:
        code = frame.f_code
        if is_user_file(code.co_filename):
            if not _registered(frame):
                found.append(_frame(frame, code))
        elif code.co_name == RUN and code.co_filename.startswith(_OURS):
            break
        frame = frame.f_back
    return tuple(found)


_FRAMES: dict[tuple[int, int], Frame] = {}
_MOST_FRAMES = 1 << 14


def _frame(frame: FrameType, code: CodeType) -> Frame:
    """One object for every instruction met: it holds its code, so that the key stays its own."""
    key = (id(code), frame.f_lasti)
    known = _FRAMES.get(key)
    if known is None:
        if len(_FRAMES) >= _MOST_FRAMES:
            _FRAMES.clear()
        at = (code.co_filename, frame.f_lineno, code.co_qualname)
        known = _FRAMES[key] = Frame(*at, code, frame.f_lasti)
    return known


def _registered(frame: FrameType) -> bool:
    """Whether a library's function runs because it is registered with `torch.distributions`.

    Pyro's KL of `Independent` replaces torch's: it is no more the user's than that.
    """
    caller = frame.f_back
    return (
        caller is not None
        and "site-packages" in frame.f_code.co_filename
        and caller.f_code.co_filename.startswith(_DISTRIBUTIONS)
    )


@functools.cache
def is_user_file(file: str) -> bool:
    """Whether a source file is the user's (or a library's) rather than torch's or ours."""
    if file.startswith(_OURS):
        return file.startswith(_FIXTURES)
    if file.startswith((_TORCH, "<frozen")):
        return False
    return not file.startswith(_STDLIB) or "site-packages" in file
