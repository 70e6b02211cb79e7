"""A process that has torch loaded already, of which the processes of many check-ups are forked.

Loading torch takes longer than most examinations. The nursery itself runs nothing of the user's;
each child is a process group of its own, as one that was started alone, and ends with the nursery.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import select
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path
from typing import NoReturn

from .child import child
from .isolate import PACKAGE, Process, spawn

PAUSE = 0.02  # seconds between two looks
_THREADS = "OMP_NUM_THREADS"
_BORN, _ENDED = "born", "ended"  # files beside the request: the process id, the exit code
_NURSERY = (
    "import sys; sys.path.insert(0, sys.argv.pop(1)); import vaedoctor; del sys.path[0]; "
    "from vaedoctor.nursery import nurse; nurse()"
)


class Nursery:
    """Starts check-ups; where processes cannot be forked safely, each from the beginning.

    `beside` says how many run at the same time: they share the processors, unless the user says
    how many threads each may have.
    """

    def __init__(self, beside: int = 1) -> None:
        self._beside = beside
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Nursery:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self, folder: Path, where: str | None) -> Process:
        """Examine the request that lies in a folder, working in the folder `where`."""
        if sys.platform != "linux":
            return spawn(folder, where)
        if self._process is not None and self._process.poll() is not None:
            self.close()
        if self._process is None:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-c", _NURSERY, os.path.dirname(PACKAGE)],
                stdin=subprocess.PIPE,
                stdout=2,
                env=self._environment(),
                start_new_session=True,
            )
        line = json.dumps([str(folder), where or os.getcwd()]) + "\n"
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(line.encode())
            self._process.stdin.flush()
        except OSError:  # it died in this moment
            return spawn(folder, where)
        return _Forked(folder, self._process)

    def _environment(self) -> dict[str, str]:
        threads = max(1, processors() // self._beside)
        own = {} if self._beside == 1 else {_THREADS: str(threads)}
        return {**own, **os.environ}

    def close(self) -> None:
        """End the nursery and all children that still run."""
        if self._process is None:
            return
        with contextlib.suppress(OSError):
            self._process.stdin.close()  # type: ignore[union-attr]
        try:
            self._process.wait(1)
        except subprocess.TimeoutExpired:  # it is still loading, and has no children
            self._process.kill()
            self._process.wait()
        self._process = None


class _Forked:
    """A child of the nursery, as the parent sees it: by the files that tell of it."""

    def __init__(self, folder: Path, nursery: subprocess.Popen[bytes]) -> None:
        self._folder, self._nursery = folder, nursery
        self.returncode: int | None = None

    @property
    def pid(self) -> int | None:
        """The process id, which is that of its group; None before it was born."""
        with contextlib.suppress(OSError, ValueError):
            return int((self._folder / _BORN).read_text())
        return None

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end, or that of the nursery, which takes it along."""
        end = None if timeout is None else time.monotonic() + timeout
        while self.returncode is None:
            gone = self._nursery.poll()
            with contextlib.suppress(OSError, ValueError):
                self.returncode = int((self._folder / _ENDED).read_text())
                break
            if gone is not None:
                self.returncode = gone
            elif end is not None and time.monotonic() > end:
                raise subprocess.TimeoutExpired("vaedoctor", timeout or 0)
            else:
                time.sleep(PAUSE)
        return self.returncode

    def kill(self) -> None:
        """End it and all that it started; at once where it is not born yet."""
        if self.pid is None:
            self.returncode = -signal.SIGKILL  # closing the nursery ends what may still be born
        else:
            os.killpg(self.pid, signal.SIGKILL)


def processors() -> int:
    """How many this process may use."""
    mine = getattr(os, "sched_getaffinity", None)
    return len(mine(0)) if mine else os.cpu_count() or 1


def nurse() -> NoReturn:
    """The nursery's life: load what every check-up needs, then fork a child for each request."""
    with contextlib.suppress(Exception):  # a child will meet it again, and tell it
        for module in ("vaedoctor.subject.target", "vaedoctor.checkup"):
            importlib.import_module(module)
    gc.collect()
    gc.freeze()  # what is shared stays shared: no collection writes into its pages
    children: dict[int, Path] = {}
    pending = b""
    while True:
        ready, _, _ = select.select([0], [], [], PAUSE)
        if ready:
            data = os.read(0, 1 << 16)
            if not data:
                break
            *lines, pending = (pending + data).split(b"\n")
            for line in lines:
                folder, where = json.loads(line)
                children[_fork(Path(folder), where)] = Path(folder)
        _bury(children)
    for pid in children:
        with contextlib.suppress(OSError):
            os.killpg(pid, signal.SIGKILL)
    os._exit(0)


def _fork(folder: Path, where: str) -> int:
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    with warnings.catch_warnings():
        # Libraries that torch loads keep threads; none of them holds a lock of ours here.
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if pid:
        return pid
    try:
        os.setsid()
        _write(folder / _BORN, os.getpid())
        with open(os.devnull) as nothing:
            os.dup2(nothing.fileno(), 0)
        os.chdir(where)
        child(str(folder))
    finally:
        os._exit(1)


def _bury(children: dict[int, Path]) -> None:
    """Tell of the children that have ended."""
    for pid, folder in list(children.items()):
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            del children[pid]
            with contextlib.suppress(OSError):  # the parent did not wait for it
                _write(folder / _ENDED, os.waitstatus_to_exitcode(status))


def _write(file: Path, number: int) -> None:
    unfinished = file.with_suffix(".part")
    unfinished.write_text(str(number))
    unfinished.replace(file)
