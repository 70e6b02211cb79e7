"""The check-up in a process of its own, so that whatever the user's code does can be reported.

A segmentation fault, `os._exit`, `sys.exit` or a hang ends the child, not the report: the parent
tells in which phase it happened and where the user's code was. The two meet in a temporary
folder: `request.json` in, and `report.json` or `error.json`, `phase` and `fault` (what
faulthandler wrote) out. What the user's code prints goes to stderr.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn, Protocol

import click

from .finding import Report, Stop
from .report.plain import plain
from .subject.errors import in_its_cell

GRACE = 3.0  # seconds that faulthandler gets to say where a hang is, before the group is killed

PACKAGE = os.path.dirname(os.path.abspath(__file__))
# The child runs the parent's own vaedoctor, even when another one is installed; nothing else is
# taken from that folder, which need not be on the path.
_CHILD = (
    "import sys; sys.path.insert(0, sys.argv.pop(1)); import vaedoctor; del sys.path[0]; "
    "from vaedoctor.child import child; child(sys.argv.pop(1))"
)


class CouldNotRun(click.ClickException):
    """The model could not be examined: exit code 2, the user's own traceback and a next step."""

    exit_code = 2

    def __init__(self, message: str, *, traceback: str = "", next_step: str = "") -> None:
        super().__init__(message)
        self.traceback = traceback
        self.next_step = next_step

    @property
    def stop(self) -> Stop:
        """The same for the report: why there is nothing else in it."""
        return Stop(self.message, self.traceback, self.next_step)

    def show(self, file: Any = None) -> None:
        """Print the message, the traceback and the next step, to stderr."""
        click.echo(self.format_message(), file=file, err=file is None)

    def format_message(self) -> str:
        """Everything that is known, as one text without control characters."""
        parts = [f"error: {plain(self.message)}"]
        if self.traceback:
            parts.append(plain(self.traceback, lines=True).rstrip())
        if self.next_step:
            # What is to be pasted into a file, after the first empty line, stands at the margin.
            step, blank, to_paste = plain(self.next_step, lines=True).partition("\n\n")
            parts.append("next: " + step.replace("\n", "\n      ") + blank + to_paste)
        return "\n\n".join(parts)


class Process(Protocol):
    """A child and its group, as `subprocess.Popen` shows one."""

    @property
    def returncode(self) -> int | None:
        """Its exit code, a negative signal, or None before its end was seen."""

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end. Raises `subprocess.TimeoutExpired`."""

    def kill(self) -> None:
        """End it and all that it started."""


class _Spawned(subprocess.Popen[bytes]):
    def kill(self) -> None:
        if hasattr(os, "killpg"):
            # The group outlives its leader: kill it even when the child itself has ended.
            os.killpg(self.pid, signal.SIGKILL)
        else:
            super().kill()


def spawn(folder: Path, where: str | None) -> Process:
    """Start a process for the request that lies in a folder, working in the folder `where`."""
    # -P: a `random.py` beside the user's model must not replace the library's. File descriptor 2
    # as stdout: the report alone goes to stdout.
    # What torch would keep of a compilation in the system's temporary folder goes with the request.
    kept = {"TORCHINDUCTOR_CACHE_DIR": str(folder / "inductor"), **os.environ}
    return _Spawned(
        [sys.executable, "-P", "-c", _CHILD, os.path.dirname(PACKAGE), str(folder)],
        stdin=subprocess.DEVNULL,
        stdout=2,
        cwd=where,
        env=kept,
        start_new_session=True,
    )


def run_isolated(request: Mapping[str, Any], *, timeout: float, **options: Any) -> Report:
    """Load and examine `request["target"]` in a child process, and wait for its report.

    Options as for `Isolated`.
    """
    with Isolated(request, timeout=timeout, **options) as examination:
        return examination.report()


class Isolated:
    """A check-up that has been started. Leaving the context ends it and removes its files."""

    def __init__(
        self,
        request: Mapping[str, Any],
        *,
        timeout: float,
        debug: bool = False,
        start: Callable[[Path, str | None], Process] | None = None,
    ) -> None:
        start = start or spawn
        self._timeout = timeout
        self._debug = debug
        self.ended = False
        self._folder = Path(tempfile.mkdtemp(prefix="vaedoctor-"))
        self._stack = contextlib.ExitStack()
        self._stack.callback(shutil.rmtree, self._folder, ignore_errors=True)
        try:
            content = {**request, "timeout": timeout}
            (self._folder / "request.json").write_text(json.dumps(content), encoding="utf-8")
            self._stack.enter_context(listening())
            self._process = start(self._folder, request.get("folder"))
        except BaseException:
            self._stack.close()
            raise

    def __enter__(self) -> Isolated:
        return self

    def __exit__(self, *_: object) -> None:
        with self._stack:
            self.end()

    def report(self) -> Report:
        """Wait for the report, or raise `CouldNotRun` with the reason why there is none."""
        hangs = False
        try:
            self._process.wait(self._timeout + GRACE)
        except subprocess.TimeoutExpired:
            hangs = True
        text = self._read("report.json")
        if text:
            return Report.from_json(text)
        error = self._read("error.json")
        if error:
            self._raise_error(json.loads(error))
        self._raise_death(hangs)

    def _raise_error(self, error: Mapping[str, str]) -> NoReturn:
        shown = error["full_traceback"] if self._debug else error["traceback"]
        raise CouldNotRun(error["message"], traceback=shown, next_step=error["next_step"])

    def _raise_death(self, hangs: bool) -> NoReturn:
        """The child left neither a report nor an error: say how it ended, and where."""
        phase = self._read("phase").strip() or "starting"
        fault = self._read("fault")
        shown = fault if self._debug else user_frames(fault)
        code = self._process.returncode
        if hangs or "Timeout (" in fault:
            smaller = "make the model smaller with `--arg` or the batch with `--batch-size 2`, "
            raise CouldNotRun(
                f"no result after {self._timeout:g} s: stopped while {phase}",
                traceback=shown,
                next_step=(smaller if phase.startswith("examining") else "")
                + "look for a loop or a wait at the last line above, "
                "or allow more time with `--timeout`",
            )
        if code is not None and code < 0:
            raise CouldNotRun(
                f"the process ended with signal {_signal_name(-code)} while {phase}",
                traceback=shown,
                next_step=_after_signal(-code),
            )
        raise CouldNotRun(
            f"the process ended with exit code {code} while {phase}",
            traceback=shown,
            next_step="look for `os._exit` or a library that ends the process in the code "
            "that runs on import, in the constructor or in `forward`",
        )

    def _read(self, name: str) -> str:
        try:
            return (self._folder / name).read_text(encoding="utf-8", errors="replace")
        except OSError:
            return ""

    def end(self) -> None:
        """End the child and all that it started; at once, and only once."""
        if self.ended:
            return
        self.ended = True
        with contextlib.suppress(OSError):
            self._process.kill()
        self._process.wait()


@contextlib.contextmanager
def listening() -> Iterator[None]:
    """Turn the signals that end this process into an exception, so that it cleans up."""
    before: dict[int, Any] = {}
    for name in ("SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)
        with contextlib.suppress(ValueError):  # only the main thread may
            if number is not None:
                before[number] = signal.signal(number, _leave)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def user_frames(dump: str) -> str:
    """What faulthandler wrote, as an ordinary traceback of the user's frames, innermost last."""
    threads: list[tuple[str, list[traceback.FrameSummary]]] = []
    for line in dump.splitlines():
        if line.endswith("(most recent call first):"):
            threads.append((line, []))
        elif threads and (m := re.fullmatch(r'  File "(.*)", line (\d+) in (.*)', line)):
            frame = traceback.FrameSummary(m[1], int(m[2]), m[3], lookup_line=False)
            threads[-1][1].insert(0, in_its_cell(frame))
    # The thread at fault is marked; for a hang it is the main thread, which is listed last.
    marked = [t for t in threads if t[0].startswith("Current")]
    for _, frames in [*marked, *reversed(threads)]:
        if text := _format(frames):
            return text
    return ""


def _format(frames: Iterable[traceback.FrameSummary]) -> str:
    own = [f for f in frames if not _is_machinery(f)]
    if not own:
        return ""
    return "Traceback (most recent call last):\n" + "".join(traceback.format_list(own))


def _is_machinery(frame: traceback.FrameSummary) -> bool:
    """Ours, the interpreter's own, or the calls of `nn.Module` between two of the user's lines."""
    path = frame.filename.replace("\\", "/")
    machinery = ("runpy.py", "importlib/__init__.py", "torch/overrides.py", "nn/modules/module.py")
    return frame.filename.startswith((PACKAGE + os.sep, "<frozen ", "<string>")) or path.endswith(
        tuple(f"/{end}" for end in machinery)
    )


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return str(number)


def _after_signal(number: int) -> str:
    if number == signal.SIGKILL:
        return "the memory may have run out: use a smaller batch (`--batch-size 2`) or model"
    return (
        "a compiled library crashed: run the last line above alone, "
        "and check that its versions fit together"
    )


def _leave(number: int, frame: FrameType | None) -> NoReturn:
    raise SystemExit(128 + number)
