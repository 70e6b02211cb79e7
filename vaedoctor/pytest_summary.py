"""The section `vaedoctor` at the end of a test run: one line a target, one line a finding."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from .finding import Severity
from .report.plain import place, plain
from .report.verdict import STOPPED, count


def summary(told: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """The lines for what the items carried; the same outcome twice counts once."""
    targets: dict[str, dict[str, Mapping[str, Any]]] = {}
    for one in told:
        targets.setdefault(one["target"], {})[one.get("code", "")] = one
    for target, outcomes in targets.items():
        stopped = [o for o in outcomes.values() if o["status"] == "stopped"]
        if stopped:
            yield plain(f"{target}: {STOPPED}: {stopped[0]['reason']}")
            continue
        found = [(o, f) for o in outcomes.values() for f in o["findings"]]
        yield f"{plain(target)}: {_counts(outcomes.values(), [f for _, f in found])}"
        for severity in reversed(Severity):
            for outcome, finding in found:
                if finding["severity"] == severity:
                    yield f"  {severity}[{outcome['code']}] {_finding(finding)}"
        for outcome in outcomes.values():
            if outcome["status"] == "crashed":
                yield plain(f"  crashed {outcome['code']}: {outcome['reason']}")


def _counts(outcomes: Iterable[Mapping[str, Any]], found: list[Mapping[str, Any]]) -> str:
    outcomes = list(outcomes)
    said = [count(sum(f["severity"] == s for f in found), str(s)) for s in reversed(Severity)]
    for end in ("passed", "skipped", "crashed"):
        n = sum(o["status"] == end for o in outcomes)
        said.append(f"{n} {end}" if n else "")
    for end in ("known", "suppressed"):
        n = sum(o[end] for o in outcomes)
        said.append(f"{n} {end}" if n else "")
    return ", ".join(s for s in said if s)


def _finding(finding: Mapping[str, Any]) -> str:
    where = f"{place(finding['file'])}:{finding['line']}: " if finding["file"] else ""
    return f"{where}{plain(finding['message'])}"
