"""Properties over generated files: healthy ones stay silent, one bug gives its code at its line."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from architecture_bugs import BUGS
from architectures import Case, broken_cases, build, healthy_cases, objective
from hypothesis import given, note, settings

import vaedoctor
from vaedoctor.finding import Finding, Report, Severity
from vaedoctor.subject.target import from_instance
from vaedoctor.subject.total import total


def examined(case: Case, directory: Path) -> Report:
    note(str(case))
    model, x = build(case, directory)
    report: Report = vaedoctor.check(model, x, objective=objective(case))
    for finding in report.findings:
        note(f"{finding.severity} {finding.code} {finding.at}: {finding.message}")
    crashed = [f"{o.code}: {o.reason}" for o in report.outcomes if o.status == "crashed"]
    assert not crashed, crashed
    return report


def said(findings: list[Finding]) -> list[str]:
    return [f"{f.severity} {f.code} {f.at}: {f.message}" for f in findings]


def check_healthy(case: Case, directory: Path) -> None:
    report = examined(case, directory)
    loud = [f for f in report.findings if f.severity is not Severity.NOTE]
    unexpected = said([f for f in loud if f.code not in case.also])
    assert not unexpected, unexpected


def check_broken(case: Case, directory: Path) -> None:
    report = examined(case, directory)
    answers = {case.code, *case.instead}
    right = [f for f in report.findings if f.code in answers]
    assert right, f"{case.code} is not among {said(list(report.findings))}"
    places = {f.at.line for f in right if f.at}
    assert places & case.lines, f"{case.code} at {places}, guilty are {sorted(case.lines)}"
    assert all(Path(f.at.file).stem.startswith("generated_") for f in right if f.at)
    errors = [f for f in report.findings if f.severity is Severity.ERROR]
    unexpected = said([f for f in errors if f.code not in answers | case.also])
    assert not unexpected, unexpected


class TestHealthy:
    @given(case=healthy_cases())
    @settings(max_examples=25)
    def test_silent(self, case: Case, tmp_path: Path) -> None:
        check_healthy(case, tmp_path)

    @pytest.mark.slow
    @given(case=healthy_cases())
    @settings(max_examples=60)
    def test_silent_in_every_style(self, case: Case, tmp_path: Path) -> None:
        check_healthy(case, tmp_path)


class TestBroken:
    @given(case=broken_cases())
    @settings(max_examples=25)
    def test_right_code_at_the_right_line(self, case: Case, tmp_path: Path) -> None:
        check_broken(case, tmp_path)

    @pytest.mark.parametrize("bug", sorted(BUGS))
    def test_each_bug_once(self, bug: str, tmp_path: Path) -> None:
        @settings(max_examples=1)
        @given(case=broken_cases(bug))
        def check(case: Case) -> None:
            check_broken(case, tmp_path)

        check()

    @pytest.mark.slow
    @pytest.mark.parametrize("bug", sorted(BUGS))
    def test_each_bug_in_every_style(self, bug: str, tmp_path: Path) -> None:
        @settings(max_examples=8)
        @given(case=broken_cases(bug))
        def check(case: Case) -> None:
            check_broken(case, tmp_path)

        check()


class TestTheLossFoundInTheFile:
    """Without an objective given, the file's loss is used as the file means it, or not at all."""

    @given(case=healthy_cases())
    @settings(max_examples=25)
    def test_is_the_files_loss(self, case: Case, tmp_path: Path) -> None:
        check_found_loss(case, tmp_path)

    @pytest.mark.slow
    @given(case=healthy_cases())
    @settings(max_examples=60)
    def test_is_the_files_loss_in_every_style(self, case: Case, tmp_path: Path) -> None:
        check_found_loss(case, tmp_path)


def check_found_loss(case: Case, directory: Path) -> None:
    note(str(case))
    model, x = build(case, directory)
    subject = from_instance(model, x)
    user = objective(case)
    if subject.objective is None:
        return
    assert user is not None, f"{subject.objective.name} was found where there is no loss"
    model.eval()
    torch.manual_seed(1)
    found = total(subject.objective.run(model, subject.batch))
    torch.manual_seed(1)
    assert found.item() == pytest.approx(user(model, x).item())


@given(case=healthy_cases() | broken_cases())
@settings(max_examples=6)
def test_the_same_seed_gives_the_same_report(case: Case, tmp_path: Path) -> None:
    model, x = build(case, tmp_path)
    first, second = (vaedoctor.check(model, x, objective=objective(case)) for _ in range(2))
    assert first.findings == second.findings
    assert [o.status for o in first.outcomes] == [o.status for o in second.outcomes]
