"""The false-alarm matrix: every rule on every healthy model."""

from __future__ import annotations

from pathlib import Path

import pytest
import specimens
from test_rules import crashes, examine

from vaedoctor import Report, Severity


@pytest.fixture(scope="module")
def examined() -> dict[Path, Report]:
    return {}


def report_of(path: Path, examined: dict[Path, Report]) -> Report:
    if path not in examined:
        examined[path] = examine(path, "Healthy")
    return examined[path]


@pytest.mark.parametrize("path", specimens.healthy_fixtures(), ids=lambda p: p.stem)
class TestHealthy:
    def test_nothing_is_found_that_is_not_declared(
        self, path: Path, examined: dict[Path, Report]
    ) -> None:
        report = report_of(path, examined)
        allowed = set(specimens.expected(path, specimens.load(path)))
        surprises = [
            f"{f.severity} {f.code} {f.at}: {f.message}"
            for f in report.findings
            if f.severity is not Severity.NOTE and (f.at and f.at.line, f.code) not in allowed
        ]
        assert not surprises, f"\n{report}"

    def test_nothing_is_an_error(self, path: Path, examined: dict[Path, Report]) -> None:
        report = report_of(path, examined)
        assert report.ok, f"\n{report}"

    def test_no_rule_crashes(self, path: Path, examined: dict[Path, Report]) -> None:
        assert not crashes(report_of(path, examined))

    def test_what_is_not_judged_says_why(self, path: Path, examined: dict[Path, Report]) -> None:
        for outcome in report_of(path, examined).outcomes:
            assert outcome.status in ("passed", "failed", "skipped")
            assert outcome.status != "skipped" or outcome.reason
