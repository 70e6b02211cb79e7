"""The report as JSON: for machines, versioned, with a published schema."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

from ..finding import Report
from ..serial import to_json
from .plain import UNSAFE


def as_json(reports: Report | Sequence[Report]) -> str:
    """One report or several as JSON, and a line break.

    What no terminal should see raw (control characters, what hides or reorders) is escaped.
    """
    return UNSAFE.sub(_escaped, to_json(reports)) + "\n"


def _escaped(match: re.Match[str]) -> str:
    return json.dumps(match[0])[1:-1].replace("\x7f", "\\u007f")
