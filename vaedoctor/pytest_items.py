"""The tests of `pytest --vaedoctor`: a file holds targets, a target has one item a rule."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from .finding import Outcome, Report
from .project import FILE, split_target
from .report.as_text import as_text
from .report.plain import plain
from .report.verdict import STOPPED
from .rule import Rule

PROPERTY = "vaedoctor"  # the user property that carries an outcome
RUNS = "VAE002"  # the rule that says whether the model runs at all


@dataclass(frozen=True, slots=True)
class Listed:
    """A configured target as pytest shows it: `file::name`, and its position in the list."""

    index: int
    target: str
    file: Path
    name: str


@dataclass(frozen=True, slots=True)
class Examined:
    """What the items of a target need: the rules, and the report once it is there."""

    rules: tuple[Rule, ...]
    report: Callable[[int], Report]


def listed(targets: Iterable[str], folder: Path) -> Iterator[Listed]:
    """Where each target is shown; a module whose file is not known goes to the configuration."""
    seen: dict[tuple[Path, str], int] = {}
    for index, target in enumerate(targets):
        where, name = split_target(target, folder)
        file = Path(where)
        if not file.is_absolute():
            file = folder.joinpath(*where.split("."))
            found = [f for f in (file.with_suffix(".py"), file / "__init__.py") if f.is_file()]
            file, name = (found[0], name) if found else (folder / FILE, target)
        name = plain(name or "model")
        number = seen[file, name] = seen.get((file, name), 0) + 1
        yield Listed(index, target, file, name if number == 1 else f"{name}#{number}")


class TargetFile(pytest.File):
    """A file that holds targets. It is not imported."""

    def __init__(self, *, found: list[Listed], examined: Examined, **node: Any) -> None:
        super().__init__(**node)
        self._found, self._examined = found, examined

    def collect(self) -> Iterator[TargetModel]:
        """The targets."""
        for one in self._found:
            yield TargetModel.from_parent(self, name=one.name, listed=one, examined=self._examined)


class TargetModel(pytest.Collector):
    """One target."""

    def __init__(self, *, listed: Listed, examined: Examined, **node: Any) -> None:
        super().__init__(**node)
        self._listed, self._examined = listed, examined

    def collect(self) -> Iterator[RuleItem]:
        """One item for each rule."""
        grouped = self.config.pluginmanager.hasplugin("xdist")
        for rule in self._examined.rules:
            item = RuleItem.from_parent(
                self,
                name=f"{rule.code} {rule.name}",
                code=rule.code,
                listed=self._listed,
                examined=self._examined,
            )
            if grouped:
                item.add_marker(pytest.mark.xdist_group(f"vaedoctor-{self._listed.index}"))
            yield item


class RuleItem(pytest.Item):
    """One rule on one target: it passes, fails, is skipped with its reason, or is an error."""

    def __init__(self, *, code: str, listed: Listed, examined: Examined, **node: Any) -> None:
        super().__init__(**node)
        self.code, self.listed = code, listed
        self.speaks = False  # for the whole target, when it cannot be examined
        self._examined = examined

    def prepare(self) -> None:
        """Examine the target, unless that was done: what goes wrong here is an error."""
        report = self._examined.report(self.listed.index)
        outcome = next((o for o in report.outcomes if o.code == self.code), None)
        self.user_properties.append((PROPERTY, told(report, outcome, self.listed.target)))
        if report.stop is not None or outcome is None:
            if self.speaks:
                pytest.fail(as_text(report), pytrace=False)
            self._skip(f"{plain(self.listed.target)} {STOPPED}: its first item says why")
        elif outcome.status == "crashed":
            pytest.fail(f"{self.code} crashed: {plain(outcome.reason)}", pytrace=False)
        elif outcome.status == "skipped":
            self._skip(plain(outcome.reason))
        elif not report.ran and outcome.findings and self.code == RUNS:
            pytest.fail(_shown(report, outcome), pytrace=False)

    def runtest(self) -> None:
        """Judge by the rule's own outcome."""
        report = self._examined.report(self.listed.index)
        outcome = next(o for o in report.outcomes if o.code == self.code)
        if any(f.severity.rank >= report.fail_on.rank for f in outcome.findings):
            pytest.fail(_shown(report, outcome), pytrace=False)

    def _skip(self, reason: str) -> None:
        # As a mark, because then pytest names the target and not this line.
        self.add_marker(pytest.mark.skip(reason=reason))

    def reportinfo(self) -> tuple[Path, int, str]:
        """The headline of a failure."""
        return self.path, 0, f"{plain(self.listed.target)}: {self.name}"


def told(report: Report, outcome: Outcome | None, target: str) -> str:
    """An outcome as the JSON that travels from a worker to the terminal and to JUnit."""
    said: dict[str, Any] = {"target": target}
    if report.stop is not None:
        said |= {"status": "stopped", "reason": report.stop.message}
    elif outcome is not None:
        said |= {
            "code": outcome.code,
            "name": outcome.name,
            "status": outcome.status,
            "reason": outcome.reason,
            "findings": [
                {
                    "severity": str(f.severity),
                    "message": f.message,
                    "file": f.at.file if f.at else "",
                    "line": f.at.line if f.at else 0,
                }
                for f in outcome.findings
            ],
            "suppressed": len(outcome.suppressed),
            "known": len(outcome.known),
        }
    return json.dumps(said, ensure_ascii=True)


def _shown(report: Report, outcome: Outcome) -> str:
    """The findings of one rule."""
    text = as_text(replace(report, outcomes=(outcome,)), quiet=True)
    return f"{text}next: vaedoctor explain {outcome.code}"
