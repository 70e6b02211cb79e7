"""What is known already: only findings that an earlier report does not hold make a check fail."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from .config import ConfigError
from .finding import Finding, Outcome, Report
from .fingerprint import fingerprints
from .report.plain import place

ALWAYS_NEW = "VAE002"  # a model that cannot be run has not been judged


def read_baseline(path: Path) -> frozenset[str]:
    """The fingerprints in a report that was written as JSON.

    Raises `ConfigError` when the file is none.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        return frozenset(_fingerprints(data))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        what = error.strerror if isinstance(error, OSError) else "it is no report as JSON"
        raise ConfigError(
            f"the baseline `{place(str(path))}` cannot be read: {what}; "
            f"`vaedoctor check --output json={path.name} --exit-zero` writes one"
        ) from None


def without_known(report: Report, known: Collection[str]) -> Report:
    """The report with the findings of the baseline moved to `known`."""
    found = report.findings
    old = [
        f
        for f, mark in zip(found, fingerprints(found), strict=True)
        if mark in known and f.code != ALWAYS_NEW
    ]
    return (
        replace(report, outcomes=tuple(_split(o, old) for o in report.outcomes)) if old else report
    )


def _split(outcome: Outcome, old: list[Finding]) -> Outcome:
    known = tuple(f for f in outcome.findings if f in old)
    new = tuple(f for f in outcome.findings if f not in old)
    status = "passed" if known and not new else outcome.status
    return replace(outcome, status=status, findings=new, known=(*outcome.known, *known))


def _fingerprints(data: Any) -> Iterator[str]:
    for report in data.get("reports", [data]):
        for finding in (*report["findings"], *report["known"]):
            yield str(finding["fingerprint"])
