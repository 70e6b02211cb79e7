"""Many check-ups, a few at a time, each in a process of its own: none stops the others."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Lock
from typing import Any

from .finding import Report, Severity
from .isolate import CouldNotRun, Isolated, listening
from .nursery import Nursery, processors

MOST = 4  # children at once unless asked: each holds torch, about 0.4 GB


def default_jobs() -> int:
    """As many children as there are processors for this process, at most `MOST`."""
    return min(processors(), MOST)


def examine_all(
    requests: Sequence[Mapping[str, Any]], *, jobs: int, timeout: float, debug: bool = False
) -> Iterator[Report]:
    """The reports in the order of the requests, each as soon as it and those before it are there.

    A target that cannot be examined becomes a report that says so (`stop`). Closing the iterator
    ends the children that still run.
    """
    with listening(), Nursery(jobs) as nursery, ThreadPoolExecutor(max(1, jobs)) as pool:
        team = _Team(timeout, debug, nursery)
        waiting = [pool.submit(team.examine, request) for request in requests]
        try:
            for one in waiting:
                yield one.result()
        finally:
            team.end()


class _Team:
    """The children that run now."""

    def __init__(self, timeout: float, debug: bool, nursery: Nursery) -> None:
        self._options: dict[str, Any] = {"timeout": timeout, "debug": debug, "start": nursery.start}
        self._lock = Lock()
        self._running: list[Isolated] = []
        self._ended = False

    def examine(self, request: Mapping[str, Any]) -> Report:
        try:
            with self._start(request) as child:
                return child.report()
        except CouldNotRun as why:
            fail_on = Severity(request.get("fail_on", Severity.ERROR))
            return Report(request["target"], fail_on=fail_on, stop=why.stop)

    def end(self) -> None:
        with self._lock:
            self._ended = True
            for child in self._running:
                child.end()

    def _start(self, request: Mapping[str, Any]) -> Isolated:
        with self._lock:
            if self._ended:
                raise CouldNotRun("interrupted")
            child = Isolated(request, **self._options)
            self._running = [c for c in self._running if not c.ended] + [child]
            return child
