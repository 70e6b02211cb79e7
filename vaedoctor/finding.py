"""What a check-up says: frozen records without torch, which every output format reads."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum

from .picture import Arrow, Part, Picture, Result, Term
from .plot import Curve, Plot
from .span import Span, where

__all__ = [
    "Arrow",
    "Curve",
    "Finding",
    "Hunt",
    "Number",
    "Outcome",
    "Part",
    "Picture",
    "Plot",
    "Report",
    "Result",
    "Severity",
    "Span",
    "Stop",
    "Term",
    "Verified",
    "exit_code",
    "fold",
    "several",
    "where",
]

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

    A rule fills in message, help, measured, at, notes, plots and `causes` (tokens that say which
    latent, parameter or operation it is about, used to fold findings with one cause together);
    the runner adds code, name and the rule's severity unless the rule gave its own.
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
    plots: tuple[Plot, ...] = ()


@dataclass(frozen=True, slots=True)
class Verified:
    """Something people often suspect, checked and found right, with its number."""

    text: str
    measured: Mapping[str, Number] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one rule ended: status is passed, failed, skipped or crashed; `reason` says why.

    A comment silenced what is `suppressed`; a baseline holds what is `known`.
    """

    code: str
    name: str
    status: str
    findings: tuple[Finding, ...] = ()
    suppressed: tuple[Finding, ...] = ()
    verified: tuple[Verified, ...] = ()
    reason: str = ""
    known: tuple[Finding, ...] = ()


@dataclass(frozen=True, slots=True)
class Hunt:
    """A search for failing inputs: how many were tried, and the smallest that fails, as code."""

    tried: int
    code: str
    says: str
    reproducer: str


@dataclass(frozen=True, slots=True)
class Stop:
    """Why a target could not be examined: what happened, the user's traceback, the next step."""

    message: str
    traceback: str = ""
    next_step: str = ""


@dataclass(frozen=True, slots=True)
class Report:
    """Everything one check-up found out. Text, JSON and every other format are functions of it.

    `stop` says why there is nothing to report where the target could not be loaded or died.
    """

    target: str
    outcomes: tuple[Outcome, ...] = ()
    picture: Picture = field(default_factory=Picture)
    notes: tuple[str, ...] = ()
    environment: Mapping[str, Number] = field(default_factory=dict)
    fail_on: Severity = Severity.ERROR
    seconds: float = 0.0
    hunt: Hunt | None = None
    stop: Stop | None = None

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
    def known(self) -> tuple[Finding, ...]:
        """Findings that the baseline holds: counted, never lost."""
        return tuple(sorted((f for o in self.outcomes for f in o.known), key=_order))

    @property
    def ok(self) -> bool:
        """Whether the target was examined and nothing was found at or above `fail_on`."""
        calm = all(f.severity.rank < self.fail_on.rank for f in self.findings)
        return calm and self.stop is None

    @property
    def ran(self) -> bool:
        """Whether the model could be run at all (VAE002 says that it could not)."""
        return self.stop is None and all(f.code != "VAE002" for f in self.findings)

    @property
    def exit_code(self) -> int:
        """0 healthy, 1 findings at or above `fail_on`, 2 the model could not be run."""
        return 2 if not self.ran else 0 if self.ok else 1

    @property
    def counts(self) -> dict[Severity, int]:
        """How many findings there are of each severity, the worst first."""
        return {s: sum(f.severity is s for f in self.findings) for s in reversed(Severity)}

    def to_json(self, *, indent: int | None = 2) -> str:
        """The report as JSON, versioned; the same seed gives the same bytes, `seconds` aside."""
        from .serial import to_json

        return to_json(self, indent=indent)

    @classmethod
    def from_json(cls, text: str) -> Report:
        """Read back what `to_json` wrote."""
        from .serial import from_json

        (report,) = from_json(text)
        return report

    def __str__(self) -> str:
        from .report.as_text import as_text

        return as_text(self)


def several(reports: Report | Sequence[Report]) -> tuple[Report, ...]:
    """One report or many, as many: every format takes either."""
    return (reports,) if isinstance(reports, Report) else tuple(reports)


def exit_code(reports: Report | Sequence[Report]) -> int:
    """The worst of the reports' exit codes; 0 for none."""
    return max((r.exit_code for r in several(reports)), default=0)


def fold(findings: Iterable[Finding], precedence: Mapping[str, tuple[str, ...]]) -> list[Finding]:
    """One cause, one finding: drop a finding that a more specific rule explains.

    `precedence` maps a code to the codes it speaks before. A finding is folded into the notes of
    a more specific one when the two share a cause token or the line, with its severity: what is
    proved stays an error. What one line does several times, in a loop, is told once.
    """
    kept = _once(findings)
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
            worst = max(specific.severity, general.severity, key=lambda s: s.rank)
            widened = replace(specific, notes=(*specific.notes, note), severity=worst)
            kept[kept.index(specific)] = widened
            kept.remove(general)
            specific = widened
    return kept


def _once(findings: Iterable[Finding]) -> list[Finding]:
    """Of findings of one rule with one place and one cure the first, with a note on the others."""
    alike: dict[tuple[object, ...], list[Finding]] = {}
    for f in findings:
        key: tuple[object, ...] = (f.code, f.severity, f.at, f.help) if f.at else (id(f),)
        alike.setdefault(key, []).append(f)
    told = []
    for first, *others in alike.values():
        more = len(others)
        said = f"{more} more of this kind at this place" if more > 1 else ""
        note = f"also here: {others[0].message}" if more == 1 else said
        told.append(replace(first, notes=(*first.notes, note)) if more else first)
    return told


def _one_cause(a: Finding, b: Finding) -> bool:
    lines = {(f.at.file, f.at.line) if f.at else None for f in (a, b)}
    return bool(a.causes & b.causes) or (len(lines) == 1 and None not in lines)


def _order(f: Finding) -> tuple[int, str, str, int, int, str]:
    at = f.at or Span("", 0)
    return (-f.severity.rank, f.code, at.file, at.line, at.col, f.message)
