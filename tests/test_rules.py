"""Every rule on its own fixture: the broken twin is found, the healthy one is silent."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import specimens

import vaedoctor
from vaedoctor import Report
from vaedoctor.rule import all_rules


def examine(path: Path, name: str, *, fresh: bool = False, own_loss: bool = True) -> Report:
    """Check one class of a fixture with what the fixture declares."""
    module = specimens.load(path)
    kind = getattr(module, name)
    model = kind if fresh else kind()
    options: dict[str, Any] = {
        key.lower(): getattr(module, key)
        for key in ("BATCH_AXIS", "CONDITIONS", "BETA")
        if hasattr(module, key)
    }
    if own_loss and hasattr(module, "objective"):
        options["objective"] = module.objective
    if hasattr(module, "optimizer"):
        options["optimizer"] = module.optimizer(model)
    return vaedoctor.check(model, module.batch(), **options)


def found(report: Report) -> list[tuple[int, str]]:
    return sorted((f.at.line if f.at else 0, f.code) for f in report.findings)


def crashes(report: Report) -> list[str]:
    return [f"{o.code}: {o.reason}" for o in report.outcomes if o.status == "crashed"]


PAIRS = [
    pytest.param(path, name, id=f"{path.stem}-{name}")
    for path in specimens.rule_fixtures()
    for name in specimens.broken(specimens.load(path))
]


def _needs_class(path: Path) -> bool:
    return path.stem == "state_lost_on_reload"  # a fresh instance is built from the class


@pytest.mark.parametrize(("path", "name"), PAIRS)
def test_broken_is_found_at_its_line_and_nothing_else(path: Path, name: str) -> None:
    report = examine(path, name, fresh=_needs_class(path))
    module = specimens.load(path)
    assert found(report) == sorted(specimens.expected(path, module, name)), f"\n{report}"
    assert not crashes(report)


@pytest.mark.parametrize("path", specimens.rule_fixtures(), ids=lambda p: p.stem)
def test_healthy_twin_is_clean(path: Path) -> None:
    report = examine(path, "Healthy", fresh=_needs_class(path))
    assert not report.findings, f"\n{report}"
    assert not crashes(report)


@pytest.mark.parametrize("rule", all_rules(), ids=lambda r: r.code)
def test_every_rule_has_a_fixture_that_it_finds(rule: Any) -> None:
    marked = {code for path in specimens.rule_fixtures() for _, code in specimens.markers(path)}
    assert rule.code in marked


@pytest.mark.parametrize(("path", "name"), PAIRS)
def test_a_finding_says_what_where_how_much_and_the_cure(path: Path, name: str) -> None:
    for f in examine(path, name, fresh=_needs_class(path)).findings:
        assert f.message, f.code
        assert f.help, f.code
        assert f.at is not None, f.code
        assert f.at.line > 0, f.code
        assert len(f.message) <= 120, f.message
        assert not f.message.endswith("."), f.message
        if f.code not in ("VAE001", "VAE002"):
            assert f.measured or f.code in ("VAE606",), f.code
