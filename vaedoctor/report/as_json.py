"""The report as JSON: for machines, versioned, with a published schema."""

from __future__ import annotations

from collections.abc import Sequence

from ..finding import Report
from ..serial import to_json


def as_json(reports: Report | Sequence[Report]) -> str:
    """One report or several as JSON, and a line break.

    Control characters cannot reach a terminal raw.
    """
    safe = {code: f"\\u{code:04x}" for code in range(0x7F, 0xA0)}
    return to_json(reports).translate(safe) + "\n"
