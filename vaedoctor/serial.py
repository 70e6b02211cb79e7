"""Reports as plain data and back: what the JSON format holds, versioned."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from .finding import (
    Curve,
    Finding,
    Hunt,
    Number,
    Outcome,
    Picture,
    Plot,
    Report,
    Severity,
    Stop,
    Verified,
    exit_code,
)
from .fingerprint import fingerprints
from .span import span_from_dict, span_to_dict

JSON_VERSION = 1


def to_json(reports: Report | Sequence[Report], *, indent: int | None = 2) -> str:
    """One report as an object; several as one object with the list `reports`."""
    if isinstance(reports, Report):
        data = report_to_dict(reports)
    else:
        data = {
            "version": JSON_VERSION,
            "ok": all(r.ok for r in reports),
            "exit_code": exit_code(reports),
            "reports": [report_to_dict(r) for r in reports],
        }
    return json.dumps(data, indent=indent, ensure_ascii=False, allow_nan=False)


def from_json(text: str) -> tuple[Report, ...]:
    """Read back what `to_json` wrote, one report or several."""
    data = json.loads(text)
    return tuple(report_from_dict(d) for d in data.get("reports", [data]))


def report_to_dict(report: Report) -> dict[str, Any]:
    """The report as plain data."""
    marked = _findings_to_dicts((*report.findings, *report.known))
    return {
        "version": JSON_VERSION,
        "target": report.target,
        "ok": report.ok,
        "exit_code": report.exit_code,
        "fail_on": str(report.fail_on),
        "counts": {
            **report.counts,
            "suppressed": len(report.suppressed),
            "known": len(report.known),
        },
        "stop": None if report.stop is None else asdict(report.stop),
        "findings": marked[: len(report.findings)],
        "known": marked[len(report.findings) :],
        "suppressed": _findings_to_dicts(report.suppressed),
        "outcomes": [_outcome_to_dict(o) for o in report.outcomes],
        "anatomy": report.picture.to_dict(),
        "notes": list(report.notes),
        "environment": plain_numbers(report.environment),
        "hunt": None if report.hunt is None else asdict(report.hunt),
        "seconds": round(report.seconds, 3),
    }


def report_from_dict(data: Mapping[str, Any]) -> Report:
    """Read back what `report_to_dict` made."""
    findings = [_finding_from_dict(d) for d in data["findings"]]
    suppressed = [_finding_from_dict(d) for d in data["suppressed"]]
    known = [_finding_from_dict(d) for d in data["known"]]
    return Report(
        target=data["target"],
        outcomes=tuple(
            Outcome(
                code=o["code"],
                name=o["name"],
                status=o["status"],
                reason=o["reason"],
                findings=tuple(f for f in findings if f.code == o["code"]),
                suppressed=tuple(f for f in suppressed if f.code == o["code"]),
                verified=tuple(Verified(v["text"], v["measured"]) for v in o["verified"]),
                known=tuple(f for f in known if f.code == o["code"]),
            )
            for o in data["outcomes"]
        ),
        picture=Picture.from_dict(data["anatomy"]),
        notes=tuple(data["notes"]),
        environment=data["environment"],
        fail_on=Severity(data["fail_on"]),
        seconds=data["seconds"],
        hunt=None if data["hunt"] is None else Hunt(**data["hunt"]),
        stop=None if data["stop"] is None else Stop(**data["stop"]),
    )


def plain_numbers(values: Mapping[str, Number]) -> dict[str, Number]:
    """Numbers as JSON can hold them: what is not finite becomes its name."""

    def one(v: Number) -> Number:
        if isinstance(v, list):
            return [one(i) for i in v]
        if isinstance(v, float) and (v != v or v in (float("inf"), float("-inf"))):
            return str(v)
        return float(f"{v:.6g}") if isinstance(v, float) else v

    return {k: one(v) for k, v in values.items()}


def _outcome_to_dict(o: Outcome) -> dict[str, Any]:
    return {
        "code": o.code,
        "name": o.name,
        "status": o.status,
        "reason": o.reason,
        "findings": len(o.findings),
        "suppressed": len(o.suppressed),
        "known": len(o.known),
        "verified": [{"text": v.text, "measured": plain_numbers(v.measured)} for v in o.verified],
    }


def _findings_to_dicts(findings: tuple[Finding, ...]) -> list[dict[str, Any]]:
    marks = fingerprints(findings)
    return [_finding_to_dict(f, mark) for f, mark in zip(findings, marks, strict=True)]


def _finding_to_dict(f: Finding, mark: str) -> dict[str, Any]:
    return {
        "code": f.code,
        "name": f.name,
        "severity": str(f.severity),
        "message": f.message,
        "measured": plain_numbers(f.measured),
        "help": f.help,
        "notes": list(f.notes),
        "at": span_to_dict(f.at),
        "fingerprint": mark,
        "traceback": f.traceback,
        "plots": [asdict(p) for p in f.plots],
    }


def _finding_from_dict(data: dict[str, Any]) -> Finding:
    return Finding(
        message=data["message"],
        help=data["help"],
        measured=data["measured"],
        at=span_from_dict(data["at"]),
        notes=tuple(data["notes"]),
        severity=Severity(data["severity"]),
        code=data["code"],
        name=data["name"],
        traceback=data["traceback"],
        plots=tuple(_plot_from_dict(p) for p in data["plots"]),
    )


def _plot_from_dict(data: dict[str, Any]) -> Plot:
    curves = tuple(Curve(c["name"], tuple(c["values"]), c["expected"]) for c in data["curves"])
    return Plot(**{**data, "x": tuple(data["x"]), "curves": curves})
