"""The report as SARIF 2.1.0, with all that GitHub code scanning requires.

Only failures become results: GitHub does not know the result kinds `pass` and `notApplicable`, so
what was skipped or crashed is told as a notification of the invocation.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any
from urllib.parse import quote

from .. import __version__
from ..finding import Finding, Number, Report, Severity, several
from ..fingerprint import fingerprints
from ..rule import FAMILIES, Rule, all_rules
from ..serial import plain_numbers
from .location import located, shown_in
from .plain import place, place_of_target, plain
from .verdict import STOPPED

SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"
LONGEST = 1024  # characters that GitHub takes of a description
_PRECISION = {Severity.ERROR: "very-high", Severity.WARNING: "high", Severity.NOTE: "medium"}
_PROBLEM = {Severity.ERROR: "error", Severity.WARNING: "warning", Severity.NOTE: "recommendation"}


def as_sarif(reports: Report | Sequence[Report]) -> str:
    """One report or several as one run of the tool."""
    found = several(reports)
    names = {f.code: f.name for report in found for f in report.findings}
    names |= {o.code: o.name for report in found for o in report.outcomes}
    codes = sorted(names)
    run = {
        "tool": {
            "driver": {
                "name": "vaedoctor",
                "version": __version__,
                "semanticVersion": __version__,
                "rules": list(_rules(codes, names)),
            }
        },
        "automationDetails": {"id": "vaedoctor/"},
        "columnKind": "unicodeCodePoints",
        "invocations": [
            {
                "executionSuccessful": all(r.stop is None for r in found),
                "toolExecutionNotifications": [n for r in found for n in _notifications(r)],
            }
        ],
        "results": list(_results(found, codes)),
    }
    log = {"$schema": SCHEMA, "version": "2.1.0", "runs": [run]}
    return json.dumps(log, indent=2, ensure_ascii=True, allow_nan=False) + "\n"


def _rules(codes: Iterable[str], names: dict[str, str]) -> Iterator[dict[str, Any]]:
    known = {rule.code: rule for rule in all_rules()}
    for code in codes:
        rule = known.get(code)
        yield _rule(rule) if rule is not None else _unknown(code, names[code])


def _rule(rule: Rule) -> dict[str, Any]:
    _, _, checks = rule.page.partition("## What it checks\n")
    full = " ".join(re.split(r"^## ", checks, flags=re.MULTILINE)[0].split()) or rule.summary
    return {
        "id": rule.code,
        "name": rule.name,
        "shortDescription": {"text": _short(rule.summary)},
        "fullDescription": {"text": _short(full)},
        "help": {"text": rule.page, "markdown": rule.page},
        "defaultConfiguration": {"level": str(rule.severity)},
        "properties": _properties(rule.family, rule.severity),
    }


def _unknown(code: str, name: str) -> dict[str, Any]:
    """A rule whose page is not installed here, as of a report that was read from a file."""
    said = {"text": _short(plain(name) or code)}
    return {
        "id": code,
        "name": plain(name)[:255] or code,
        "shortDescription": said,
        "fullDescription": said,
        "help": {"text": f"vaedoctor explain {code}"},
        "properties": _properties(FAMILIES.get(code[:-2], "other"), Severity.WARNING),
    }


def _properties(family: str, severity: Severity) -> dict[str, Any]:
    return {
        "tags": ["vae", family],
        "precision": _PRECISION[severity],
        "problem": {"severity": _PROBLEM[severity]},
    }


def _results(reports: Iterable[Report], codes: list[str]) -> Iterator[dict[str, Any]]:
    seen: Counter[str] = Counter()
    for report in reports:
        found = report.findings
        for finding, mark in zip(found, fingerprints(found), strict=True):
            seen[mark] += 1  # two targets may share the class that is wrong
            once = mark if seen[mark] == 1 else f"{mark}-{seen[mark]}"
            yield _result(finding, report, codes, once)


def _result(finding: Finding, report: Report, codes: list[str], fingerprint: str) -> dict[str, Any]:
    at = located(finding, report)
    shown = shown_in(at, report)
    message = finding.message + (f"\nhelp: {finding.help}" if finding.help else "")
    return {
        "ruleId": finding.code,
        "ruleIndex": codes.index(finding.code),
        "level": str(finding.severity),
        "message": {"text": _message(message) or finding.code},
        "locations": [
            {
                "physicalLocation": {
                    "artifactLocation": {
                        "uri": quote(shown.file, errors="replace"),
                        "uriBaseId": "%SRCROOT%",
                    },
                    "region": {
                        "startLine": shown.line,
                        "startColumn": shown.col,
                        "endLine": shown.end_line,
                        "endColumn": shown.end_col,
                    },
                }
            }
        ],
        "partialFingerprints": {"primaryLocationLineHash": fingerprint},
        "properties": {
            "target": place_of_target(report.target),
            "place": f"{place(at.file)}:{at.line}:{at.col}",
            "measured": {plain(k): _value(v) for k, v in plain_numbers(finding.measured).items()},
            "notes": [plain(n) for n in finding.notes],
        },
    }


def _value(value: Number) -> Number:
    if isinstance(value, list):
        return [_value(v) for v in value]
    return plain(value) if isinstance(value, str) else value


def _notifications(report: Report) -> Iterator[dict[str, Any]]:
    """What was not judged, and why."""
    about = place_of_target(report.target)
    if report.stop is not None:
        yield _notification("error", f"{about} {STOPPED}: {report.stop.message}")
    for outcome in report.outcomes:
        if outcome.status in ("skipped", "crashed"):
            level = "error" if outcome.status == "crashed" else "note"
            said = f"{about}: {outcome.code} {outcome.status}: {outcome.reason}"
            yield _notification(level, said)


def _notification(level: str, said: str) -> dict[str, Any]:
    return {"level": level, "message": {"text": _message(said)}}


def _message(text: str) -> str:
    """A message in which nothing is a link (`[text](target)`)."""
    return plain(text, lines=True).replace("](", "] (")


def _short(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"
