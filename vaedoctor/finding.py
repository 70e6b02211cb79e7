"""What a check-up says: frozen records without torch, which every output format reads."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from typing import Any

from .picture import Arrow, Part, Picture, Result, Term
from .span import Span, span_from_dict, span_to_dict, where

__all__ = [
    "Arrow",
    "Finding",
    "Hunt",
    "Number",
    "Outcome",
    "Part",
    "Picture",
    "Report",
    "Result",
    "Severity",
    "Span",
    "Term",
    "Verified",
    "fold",
    "where",
]

JSON_VERSION = 1

Number = float | int | str | bool | None | list["Number"]


class Severity(StrEnum):
    """How strong the evidence is: a proof, a measurement with a wide margin, worth knowing."""

    NOTE = "note"
    WARNING = "warning"
    ERROR = "error"

    @property
    def rank(self) -> int:
        """Position on the scale note < warning < error."""
        return list(Severity).index(self)


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong: what (`message`), the numbers (`measured`), the cure (`help`).

    A rule fills in message, help, measured, at, notes and `causes` (tokens that say which latent,
    parameter or operation it is about, used to fold findings with one cause together); the
    runner adds code, name and the rule's severity unless the rule gave its own.
    """

    message: str
    help: str = ""
    measured: Mapping[str, Number] = field(default_factory=dict)
    at: Span | None = None
    notes: tuple[str, ...] = ()
    severity: Severity = None  # type: ignore[assignment]  # the runner fills in the rule's own
    code: str = ""
    name: str = ""
    causes: frozenset[str] = frozenset()
    traceback: str = ""


@dataclass(frozen=True, slots=True)
class Verified:
    """Something people often suspect, checked and found right, with its number."""

    text: str
    measured: Mapping[str, Number] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one rule ended: status is passed, failed, skipped or crashed; `reason` says why."""

    code: str
    name: str
    status: str
    findings: tuple[Finding, ...] = ()
    suppressed: tuple[Finding, ...] = ()
    verified: tuple[Verified, ...] = ()
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Hunt:
    """A search for failing inputs: how many were tried, and the smallest that fails, as code."""

    tried: int
    code: str
    says: str
    reproducer: str


@dataclass(frozen=True, slots=True)
class Report:
    """Everything one check-up found out. Text, JSON and every other format are functions of it."""

    target: str
    outcomes: tuple[Outcome, ...] = ()
    picture: Picture = field(default_factory=Picture)
    notes: tuple[str, ...] = ()
    environment: Mapping[str, Number] = field(default_factory=dict)
    fail_on: Severity = Severity.ERROR
    seconds: float = 0.0
    hunt: Hunt | None = None

    @property
    def findings(self) -> tuple[Finding, ...]:
        """All findings, the worst first, then by code and place."""
        found = (f for outcome in self.outcomes for f in outcome.findings)
        return tuple(sorted(found, key=_order))

    @property
    def suppressed(self) -> tuple[Finding, ...]:
        """Findings silenced by a comment: counted, never lost."""
        return tuple(f for outcome in self.outcomes for f in outcome.suppressed)

    @property
    def ok(self) -> bool:
        """Whether nothing was found at or above `fail_on`."""
        return all(f.severity.rank < self.fail_on.rank for f in self.findings)

    @property
    def ran(self) -> bool:
        """Whether the model could be run at all (VAE002 says that it could not)."""
        return all(f.code != "VAE002" for f in self.findings)

    @property
    def exit_code(self) -> int:
        """0 healthy, 1 findings at or above `fail_on`, 2 the model could not be run."""
        return 2 if not self.ran else 0 if self.ok else 1

    def to_json(self, *, indent: int | None = 2) -> str:
        """The report as JSON, versioned; the same seed gives the same bytes, `seconds` aside."""
        return json.dumps(self.to_dict(), indent=indent, ensure_ascii=False, allow_nan=False)

    def to_dict(self) -> dict[str, Any]:
        """The report as plain data: the JSON format's content."""
        counts = {str(s): sum(f.severity is s for f in self.findings) for s in Severity}
        return {
            "version": JSON_VERSION,
            "target": self.target,
            "ok": self.ok,
            "exit_code": self.exit_code,
            "fail_on": str(self.fail_on),
            "counts": {**counts, "suppressed": len(self.suppressed)},
            "findings": [_finding_to_dict(f) for f in self.findings],
            "suppressed": [_finding_to_dict(f) for f in self.suppressed],
            "outcomes": [
                {
                    "code": o.code,
                    "name": o.name,
                    "status": o.status,
                    "reason": o.reason,
                    "findings": len(o.findings),
                    "suppressed": len(o.suppressed),
                    "verified": [
                        {"text": v.text, "measured": _plain(v.measured)} for v in o.verified
                    ],
                }
                for o in self.outcomes
            ],
            "anatomy": self.picture.to_dict(),
            "notes": list(self.notes),
            "environment": _plain(self.environment),
            "hunt": None if self.hunt is None else asdict(self.hunt),
            "seconds": round(self.seconds, 3),
        }

    @classmethod
    def from_json(cls, text: str) -> Report:
        """Read back what `to_json` wrote."""
        data = json.loads(text)
        findings = [_finding_from_dict(d) for d in data["findings"]]
        suppressed = [_finding_from_dict(d) for d in data["suppressed"]]
        return cls(
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
                )
                for o in data["outcomes"]
            ),
            picture=Picture.from_dict(data["anatomy"]),
            notes=tuple(data["notes"]),
            environment=data["environment"],
            fail_on=Severity(data["fail_on"]),
            seconds=data["seconds"],
            hunt=None if data["hunt"] is None else Hunt(**data["hunt"]),
        )

    def __str__(self) -> str:
        from .report.as_text import as_text

        return as_text(self)


def fold(findings: Iterable[Finding], precedence: Mapping[str, tuple[str, ...]]) -> list[Finding]:
    """One cause, one finding: drop a finding that a more specific rule explains.

    `precedence` maps a code to the codes it speaks before. A finding is folded into the notes of
    a more specific one when the two share a cause token or the line.
    """
    kept = list(findings)
    for specific in sorted(kept, key=lambda f: -len(precedence.get(f.code, ()))):
        if specific not in kept:
            continue
        for general in [
            f
            for f in kept
            if f.code in precedence.get(specific.code, ()) and _one_cause(f, specific)
        ]:
            elsewhere = general.at is not None and general.at != specific.at
            at = f" ({where(general.at, specific.at)})" if elsewhere else ""
            note = f"also {general.code}: {general.message}{at}"
            widened = replace(specific, notes=(*specific.notes, note))
            kept[kept.index(specific)] = widened
            kept.remove(general)
            specific = widened
    return kept


def _one_cause(a: Finding, b: Finding) -> bool:
    lines = {(f.at.file, f.at.line) if f.at else None for f in (a, b)}
    return bool(a.causes & b.causes) or (len(lines) == 1 and None not in lines)


def _order(f: Finding) -> tuple[int, str, str, int, int, str]:
    at = f.at or Span("", 0)
    return (-f.severity.rank, f.code, at.file, at.line, at.col, f.message)


def _plain(values: Mapping[str, Number]) -> dict[str, Number]:
    """Numbers as JSON can hold them: what is not finite becomes its name."""

    def one(v: Number) -> Number:
        if isinstance(v, list):
            return [one(i) for i in v]
        if isinstance(v, float) and (v != v or v in (float("inf"), float("-inf"))):
            return str(v)
        return float(f"{v:.6g}") if isinstance(v, float) else v

    return {k: one(v) for k, v in values.items()}


def _finding_to_dict(f: Finding) -> dict[str, Any]:
    return {
        "code": f.code,
        "name": f.name,
        "severity": str(f.severity),
        "message": f.message,
        "measured": _plain(f.measured),
        "help": f.help,
        "notes": list(f.notes),
        "at": span_to_dict(f.at),
        "traceback": f.traceback,
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
    )
