"""A finding's fingerprint: the same for the same mistake, whatever else changes in the file."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path, PurePath

from .finding import Finding
from .notebook import raw_line
from .report.location import inside, line_at, repository

_PACKAGES = ("site-packages", "dist-packages")


def fingerprints(findings: Sequence[Finding]) -> tuple[str, ...]:
    """One for each of a report's findings: of its rule, its file and the text of its line.

    Neither line numbers nor measured values count; equal lines are told apart by their order.
    """
    root = repository()
    keys = [_key(f, root) for f in findings]
    seen: Counter[str] = Counter()
    numbered = [""] * len(findings)
    for i in sorted(range(len(findings)), key=lambda i: _position(findings[i])):
        seen[keys[i]] += 1
        numbered[i] = f"{keys[i]}:{seen[keys[i]]}"
    return tuple(numbered)


def _key(finding: Finding, root: Path) -> str:
    at = finding.at
    file = _relative(raw_line(at.file, at.line)[0], root) if at else ""
    line = line_at(at).strip() if at else ""
    text = "\0".join((finding.code, file, line))
    return hashlib.sha256(text.encode(errors="replace")).hexdigest()[:16]


def _position(finding: Finding) -> tuple[str, int, int]:
    return (finding.at.file, finding.at.line, finding.at.col) if finding.at else ("", 0, 0)


def _relative(file: str, root: Path) -> str:
    """A path that is the same on every machine."""
    own = inside(file, root)
    if own is not None:
        return own
    parts = PurePath(file).parts
    for i in range(len(parts) - 1, 0, -1):
        if parts[i - 1] in _PACKAGES:
            return "/".join(parts[i:])
    return PurePath(file).name
