"""What is said when there is nobody to examine: the reason, the user's traceback, a next step."""

from __future__ import annotations

import ast
import contextlib
import functools
import importlib.util
import os
import traceback
from pathlib import Path

import click

from ..notebook import is_notebook, place_in, source_line

LONGEST = 10  # lines of an exception's message: one that prints tensors has hundreds

OURS = Path(__file__).resolve().parents[1]


class TargetError(click.ClickException):
    """The target cannot be examined; the CLI ends with exit code 2.

    `traceback` is the user's own, without our frames, or empty; `next_step` is a command or an
    edit.
    """

    exit_code = 2

    def __init__(self, message: str, *, traceback: str = "", next_step: str = "") -> None:
        super().__init__(message)
        self.traceback = traceback
        self.next_step = next_step

    def format_message(self) -> str:
        """The message, the traceback and the next step, one after the other."""
        return "\n\n".join(t for t in (self.message, self.traceback, self.next_step) if t)

    def __str__(self) -> str:
        return self.format_message()


def user_traceback(error: BaseException) -> str:
    """The traceback without the frames of vaedoctor, torch and the import machinery.

    Of a message that prints whole tensors the first `LONGEST` lines.
    """
    told = traceback.TracebackException.from_exception(error)
    seen: set[int] = set()
    pending: list[traceback.TracebackException | None] = [told]
    while pending:
        one = pending.pop()
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        shown = (in_its_cell(f) for f in one.stack if not is_own_frame(f.filename))
        one.stack = traceback.StackSummary.from_list(shown)
        pending += [one.__cause__, one.__context__]
    parts = [part for part in told.format() if "Traceback" not in part or told.stack]
    return "".join(map(_shortened, parts)).rstrip()


def _shortened(part: str) -> str:
    """A frame, or an exception's message with its end left out."""
    lines = part.splitlines(keepends=True)
    left = len(lines) - LONGEST
    return part if left <= 1 else "".join(lines[:LONGEST]) + f"  … ({left} more lines)\n"


def summary(error: BaseException) -> str:
    """The exception's type and first line, short enough for a message."""
    text = str(error).strip().partition("\n")[0]
    name = type(error).__name__
    if len(text) > 160:
        text = text[:157] + "..."
    return f"{name}: {text}" if text else name


def a_kind(value: object) -> str:
    """`an int`, `None`: a value by its type."""
    name = type(value).__name__
    return "None" if value is None else f"{'an' if name[0] in 'aeiouAEIOU' else 'a'} `{name}`"


def in_its_cell(frame: traceback.FrameSummary) -> traceback.FrameSummary:
    """A frame of a notebook as a frame of its cell."""
    if not is_notebook(frame.filename) or frame.lineno is None:
        return frame
    file, line = place_in(frame.filename, frame.lineno)
    one_line = frame.end_lineno == frame.lineno
    return traceback.FrameSummary(
        file,
        line,
        frame.name,
        line=source_line(file, line),
        end_lineno=line if one_line else None,
        colno=frame.colno if one_line else None,
        end_colno=frame.end_colno if one_line else None,
    )


def is_own_frame(filename: str) -> bool:
    """Whether a frame is ours, torch's or the import machinery's rather than the user's."""
    return filename.startswith(_machinery()) or Path(filename).is_relative_to(OURS)


@functools.cache
def _machinery() -> tuple[str, ...]:
    specs = [importlib.util.find_spec(name) for name in ("click", "torch")]
    folders = [f"{Path(s.origin).parent}{os.sep}" for s in specs if s is not None and s.origin]
    files = [m.__file__ or "<" for m in (ast, importlib, importlib.util, contextlib)]
    return ("<frozen ", "<string>", *files, *folders)
