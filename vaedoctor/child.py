"""Inside the process of a check-up: read the request, examine, write down how it ended."""

from __future__ import annotations

import contextlib
import faulthandler
import importlib
import json
import os
import sys
import tempfile
import traceback
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import click

from .prints import spared
from .reproduce import command
from .subject.errors import user_traceback

_SUBJECT_OPTIONS = (
    "args",
    "input",
    "objective",
    "conditions",
    "beta",
    "batch_axis",
    "call",
    "batch_size",
    "checkpoint",
    "seed",
    "exec",
)
_EXAMINE_OPTIONS = ("select", "ignore", "severity", "fail_on", "seed", "hunt")


def child(folder: str) -> NoReturn:
    """The child's life: read the request, examine, write the report or the error, end."""
    place = Path(folder)
    request = json.loads((place / "request.json").read_text(encoding="utf-8"))
    fault = (place / "fault").open("w", encoding="utf-8")
    faulthandler.enable(file=fault)
    faulthandler.dump_traceback_later(request["timeout"], exit=True, file=fault)
    tempfile.tempdir = folder  # the parent removes it, however this process ends
    told = spared()
    try:
        _write(place / "report.json", _examine(request, place))
    except BaseException as stop:
        _write(place / "error.json", json.dumps(_explain(stop, place)))
    with contextlib.suppress(Exception):
        told()
    # Ending here skips what a thread or an exit handler of the user's code could still do.
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()
    os._exit(0)


def _examine(request: Mapping[str, Any], place: Path) -> str:
    _enter(place, "loading vaedoctor")
    loaded = importlib.import_module("vaedoctor.subject.target").loaded
    examine_subject = importlib.import_module("vaedoctor.checkup").examine_subject
    _enter(place, f"loading {request['target']}")
    options = {k: request[k] for k in _SUBJECT_OPTIONS if k in request}
    with loaded(request["target"], **options) as subject:
        _enter(place, f"examining {request['target']}{_size(subject)}")
        judging = {k: request[k] for k in _EXAMINE_OPTIONS if k in request}
        report = examine_subject(subject, **judging)
    known = {**report.environment, "command": command(request)}
    text: str = replace(report, environment=known).to_json()
    return text


def _size(subject: Any) -> str:
    """How large the work is: it is what a check that takes too long has to be told about."""
    try:
        count = sum(p.numel() for p in subject.model.parameters())
        values = (*subject.batch.args, *subject.batch.kwargs.values())
    except (AttributeError, ValueError):  # parameters that have no size before the first pass
        return ""
    shapes = ["×".join(map(str, v.shape)) for v in values if hasattr(v, "shape")]
    return f" ({count:,} parameters, batch {', '.join(shapes)})"


def _enter(place: Path, phase: str) -> None:
    (place / "phase").write_text(phase, encoding="utf-8", errors="replace")


def _write(path: Path, text: str) -> None:
    """All or nothing: the parent never reads half a report."""
    faulthandler.cancel_dump_traceback_later()
    unfinished = path.with_suffix(".part")
    unfinished.write_text(text, encoding="utf-8", errors="backslashreplace")
    unfinished.replace(path)


def _explain(stop: BaseException, place: Path) -> dict[str, str]:
    """What ended the examination, as the parent will say it."""
    phase = (place / "phase").read_text(encoding="utf-8")
    full = "".join(traceback.format_exception(stop))
    said = {"full_traceback": full, "traceback": user_traceback(stop), "next_step": ""}
    if isinstance(stop, click.ClickException):
        said["message"] = stop.message
        said["traceback"] = getattr(stop, "traceback", "")
        said["next_step"] = getattr(stop, "next_step", "")
    elif isinstance(stop, SystemExit):
        code = "" if stop.code is None else repr(stop.code)
        said["message"] = f"the model called `sys.exit({code})` while {phase}"
        said["next_step"] = 'move the code that ends the program below `if __name__ == "__main__":`'
    elif isinstance(stop, MemoryError):
        said["message"] = f"out of memory while {phase}"
        said["next_step"] = "use a smaller batch: `--batch-size 2`"
    elif isinstance(stop, Exception):
        said["message"] = f"vaedoctor itself failed: {type(stop).__name__}: {stop}"
        said["traceback"] = ""
        said["next_step"] = "please report this; `--debug` shows the traceback"
    else:
        said["message"] = f"the model raised `{type(stop).__name__}` while {phase}"
    return said
