"""The false-alarm matrix: every rule on every healthy model, with its loss and without one."""

from __future__ import annotations

from pathlib import Path

import pytest
import specimens
from test_rules import crashes, examine

from vaedoctor import Report, Severity

HEALTHY = [*specimens.healthy_fixtures(), *specimens.rule_fixtures()]


@pytest.fixture(scope="module")
def examined() -> dict[tuple[Path, bool], Report]:
    return {}


@pytest.fixture
def report(path: Path, own_loss: bool, examined: dict[tuple[Path, bool], Report]) -> Report:
    if (path, own_loss) not in examined:
        examined[path, own_loss] = examine(path, "Healthy", own_loss=own_loss)
    return examined[path, own_loss]


@pytest.mark.parametrize("own_loss", [True, False], ids=["own loss", "no loss"])
@pytest.mark.parametrize("path", HEALTHY, ids=lambda p: f"{p.parent.name}/{p.stem}")
class TestHealthy:
    def test_nothing_is_found_that_is_not_declared(self, path: Path, report: Report) -> None:
        allowed = set(specimens.expected(path, specimens.load(path)))
        surprises = [
            f"{f.severity} {f.code} {f.at}: {f.message}"
            for f in report.findings
            if f.severity is not Severity.NOTE and (f.at and f.at.line, f.code) not in allowed
        ]
        assert not surprises, f"\n{report}"

    def test_nothing_is_an_error(self, report: Report) -> None:
        assert report.ok, f"\n{report}"

    def test_no_rule_crashes(self, report: Report) -> None:
        assert not crashes(report)

    def test_what_is_not_judged_says_why(self, report: Report) -> None:
        for outcome in report.outcomes:
            assert outcome.status in ("passed", "failed", "skipped")
            assert outcome.status != "skipped" or outcome.reason
