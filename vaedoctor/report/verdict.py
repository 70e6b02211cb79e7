"""What all formats say about a whole report: the verdict, the families, the counts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from ..finding import Finding, Outcome, Report, Severity
from ..rule import FAMILIES

STOPPED = "could not be examined"


@dataclass(frozen=True, slots=True)
class Family:
    """How one family of rules ended: a mark, the word for it, and the counts."""

    name: str
    mark: str
    status: str
    said: str


def count(n: int, noun: str) -> str:
    """`1 rule`, `2 rules`; nothing for 0."""
    return f"{n} {noun}{'' if n == 1 else 's'}" if n else ""


def severities(findings: Iterable[Finding]) -> str:
    """`2 errors, 1 warning`, the worst first; nothing for none."""
    found = list(findings)
    counts = [(sum(f.severity is s for f in found), s) for s in reversed(Severity)]
    return ", ".join(count(n, str(s)) for n, s in counts if n)


def verdict(report: Report) -> str:
    """`2 errors, 1 warning (1 suppressed)`, `no problems found`, or that it could not be run."""
    if report.stop is not None:
        return STOPPED
    others = [(len(report.known), "known"), (len(report.suppressed), "suppressed")]
    counted = ", ".join(f"{n} {word}" for n, word in others if n)
    nothing = "no new problems" if report.known else "no problems found"
    return (severities(report.findings) or nothing) + (f" ({counted})" if counted else "")


def cost(report: Report) -> str:
    """`42 rules in 0.5 s, 32 not judged`."""
    rules = sum(o.status in ("passed", "failed") for o in report.outcomes)
    skipped = len(report.outcomes) - rules
    said = f"{count(rules, 'rule')} in {report.seconds:.1f} s"
    return said + (f", {skipped} not judged" if skipped else "")


def total(reports: Sequence[Report]) -> str:
    """One line for several targets: how many are healthy, what was found, how long it took."""
    stopped = sum(r.stop is not None for r in reports)
    healthy = sum(r.stop is None and not r.findings and not r.known for r in reports)
    found = len(reports) - stopped - healthy
    kinds = [(healthy, "healthy"), (found, "with findings"), (stopped, "not examined")]
    ended = ", ".join(f"{n} {word}" for n, word in kinds if n)
    said = severities(f for r in reports for f in r.findings)
    seconds = sum(r.seconds for r in reports)
    parts = [f"{count(len(reports), 'target') or '0 targets'}: {ended}" if ended else "0 targets"]
    return " · ".join([*parts, *([said] if said else []), f"{seconds:.1f} s"])


def statistics(reports: Iterable[Report]) -> list[tuple[int, Finding]]:
    """How often each rule spoke, the most frequent first, with one of its findings."""
    found: dict[str, list[Finding]] = {}
    for report in reports:
        for finding in report.findings:
            found.setdefault(finding.code, []).append(finding)
    ordered = sorted(found.items(), key=lambda item: (-len(item[1]), item[0]))
    return [(len(members), members[0]) for _, members in ordered]


def families(outcomes: Iterable[Outcome]) -> Iterator[Family]:
    """How each family ended, by code."""
    found: dict[str, list[Outcome]] = {}
    for outcome in sorted(outcomes, key=lambda o: o.code):
        found.setdefault(FAMILIES.get(outcome.code[:-2], "other"), []).append(outcome)
    for name, members in found.items():
        yield Family(name, *_judge(members))


def _judge(members: list[Outcome]) -> tuple[str, str, str]:
    """A family's mark, what it stands for, and its counts."""
    findings = [f for o in members for f in o.findings]
    by_status = {s: [o for o in members if o.status == s] for s in ("passed", "skipped", "crashed")}
    passed, skipped, crashed = (len(by_status[s]) for s in ("passed", "skipped", "crashed"))
    known = sum(len(o.known) for o in members)
    silenced = sum(len(o.suppressed) for o in members)
    counts = [severities(findings)]
    counts += [f"{known} known" if known else "", f"{silenced} suppressed" if silenced else ""]
    counts += [count(passed, "rule") + " passed" if passed else ""]
    counts += [f"{skipped} skipped" if skipped else ""]
    ours = " (our bug: please report)" if members[0].code[:-2] in FAMILIES else ""
    counts += [f"{count(crashed, 'rule')} crashed{ours}" if crashed else ""]
    said = ", ".join(c for c in counts if c)
    if crashed:
        return "☠", "crashed", said
    if any(f.severity is Severity.ERROR for f in findings):
        return "✗", "error", said
    if findings:
        return "!", "warning", said
    if passed:
        return "✓", "passed", said
    return "-", "skipped", said
