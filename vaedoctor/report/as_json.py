"""The report as JSON: for machines, versioned."""

from __future__ import annotations

from ..finding import Report


def as_json(report: Report) -> str:
    """The report as JSON, and a line break. Control characters cannot reach a terminal raw."""
    safe = {code: f"\\u{code:04x}" for code in range(0x7F, 0xA0)}
    return report.to_json().translate(safe) + "\n"
