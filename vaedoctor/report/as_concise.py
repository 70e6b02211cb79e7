"""The report in one line a finding: `file:line:col: CODE message`, as editors understand it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ..finding import Report, Span, several
from .location import located
from .plain import place, place_of_target, plain
from .verdict import STOPPED
from .verdict import statistics as counted


def as_concise(reports: Report | Sequence[Report], *, statistics: bool = False) -> str:
    """A line for each finding of one report or several; nothing for healthy ones."""
    found = several(reports)
    lines = [line for report in found for line in _lines(report)]
    if statistics:
        lines += [f"{n:>5}  {f.code:<6}  {plain(f.name)}" for n, f in counted(found)]
    # GitHub Actions takes `::` at the start of a line for a command.
    return "".join(
        f"{line}\n".replace("::", "\\::", line.lstrip().startswith("::")) for line in lines
    )


def _lines(report: Report) -> Iterator[str]:
    if report.stop is not None:
        yield f"{place_of_target(report.target)}: {STOPPED}: {plain(report.stop.message)}"
    for finding in report.findings:
        at = located(finding, report)
        yield f"{_place(at)}: {plain(finding.code)} {plain(finding.message)}"


def _place(at: Span) -> str:
    return f"{place(at.file)}:{at.line}:{at.col}"
