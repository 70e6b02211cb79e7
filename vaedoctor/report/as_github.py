"""The report as workflow commands: GitHub Actions shows each as an annotation at its line."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ..finding import Finding, Report, Severity, several
from .location import located, shown_in
from .plain import plain
from .verdict import STOPPED

_LEVELS = {Severity.ERROR: "error", Severity.WARNING: "warning", Severity.NOTE: "notice"}


def as_github(reports: Report | Sequence[Report]) -> str:
    """One command a finding, the worst of each report first: GitHub shows ten of each level."""
    return "".join(f"{line}\n" for report in several(reports) for line in _commands(report))


def _commands(report: Report) -> Iterator[str]:
    if report.stop is not None:
        said = f"{report.target} {STOPPED}: {report.stop.message}"
        yield f"::error title=vaedoctor::{_data(said)}"
    for finding in report.findings:
        yield _command(finding, report)


def _command(finding: Finding, report: Report) -> str:
    at = shown_in(located(finding, report), report)
    place = {"file": at.file, "line": str(at.line)}
    # The two say nothing where a span crosses lines, and GitHub then drops the annotation.
    if at.line == at.end_line:
        place |= {"col": str(at.col)}
    place |= {"endLine": str(at.end_line)}
    if at.line == at.end_line:
        place |= {"endColumn": str(at.end_col)}
    properties = {"title": f"vaedoctor ({finding.code})", **place}
    told = ",".join(f"{name}={_property(value)}" for name, value in properties.items())
    said = finding.message + (f"\nhelp: {finding.help}" if finding.help else "")
    return f"::{_LEVELS[finding.severity]} {told}::{_data(said)}"


def _data(text: str) -> str:
    return plain(text, lines=True).replace("%", "%25").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
