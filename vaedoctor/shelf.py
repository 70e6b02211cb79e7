"""Reports that several processes of one run share: each target is examined by whoever comes first.

A folder holds them: a claim says that a target is being examined, the report that it was.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .finding import Report, Severity
from .isolate import GRACE, CouldNotRun, run_isolated
from .nursery import Nursery
from .output import replace_file

_PATIENCE = 30.0  # seconds beyond the time limit after which a claim was left behind
_PAUSE = 0.05


class Shelf:
    """The reports on some requests, in a folder that all processes of the run see."""

    def __init__(self, folder: Path, requests: Sequence[Mapping[str, Any]], limit: float) -> None:
        self._folder, self._requests, self._limit = folder, requests, limit
        self._nursery = Nursery(int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", 1)))

    def report(self, index: int) -> Report:
        """The report on a request: examined now, elsewhere in this moment, or before."""
        file = self._folder / f"{index:05}.json"
        patience = time.monotonic() + self._limit + GRACE + _PATIENCE
        while not file.exists():
            if self._claimed(index) or time.monotonic() > patience:
                replace_file(file, self._examined(index).to_json())
            else:
                time.sleep(_PAUSE)
        return Report.from_json(file.read_text(encoding="utf-8"))

    def keep(self, report: Report) -> None:
        """Put a report that was made otherwise beside them."""
        number = len(list(self._folder.glob("*.json")))
        replace_file(self._folder / f"test-{os.getpid()}-{number:05}.json", report.to_json())

    def reports(self) -> list[Report]:
        """All that lie here: those on the requests first."""
        files = sorted(self._folder.glob("*.json"))
        return [Report.from_json(f.read_text(encoding="utf-8")) for f in files]

    def close(self) -> None:
        """End the process that examinations are forked of."""
        self._nursery.close()

    def _claimed(self, index: int) -> bool:
        """Whether it falls to this process to examine a request."""
        try:
            claim = os.open(self._folder / f"{index:05}.claim", os.O_CREAT | os.O_EXCL)
        except FileExistsError:
            return False
        os.close(claim)
        return True

    def _examined(self, index: int) -> Report:
        request = self._requests[index]
        try:
            return run_isolated(request, timeout=self._limit, start=self._nursery.start)
        except CouldNotRun as why:
            fail_on = Severity(request.get("fail_on", Severity.ERROR))
            return Report(request["target"], fail_on=fail_on, stop=why.stop)
