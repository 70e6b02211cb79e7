"""Third-party models, how each is called, and what `docs/wild.md` says is to be found in it."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from torch import Tensor, nn
from traces import differences, photograph

import vaedoctor
from vaedoctor.finding import Finding, Report, Severity

PAGE = Path(__file__).parents[2] / "docs" / "wild.md"


@dataclass(frozen=True, slots=True)
class Specimen:
    """A published model at a small size, its batch (None: made up), and options of `check`."""

    make: Callable[[], nn.Module]
    batch: Callable[[], Any] | None = None
    options: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))

    def examined(self) -> Report:
        """The report; the model and the process are as before, and no rule crashed."""
        model, batch = self.make(), self.batch() if self.batch else None
        before = photograph(model, *tensors_of(batch))
        report = vaedoctor.check(model, batch, **self.options)
        assert differences(before, photograph(model, *tensors_of(batch))) == []
        assert not crashed(report)
        return report


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table: the family, and the codes of errors and warnings."""

    family: str
    found: frozenset[str]
    why: str


def tensors_of(batch: Any) -> list[Tensor]:
    if isinstance(batch, Tensor):
        return [batch]
    items = batch.values() if isinstance(batch, Mapping) else batch or ()
    return [item for item in items if isinstance(item, Tensor)]


def rows(package: str) -> dict[str, Row]:
    """The table's lines of one package, by the model's name."""
    section = PAGE.read_text().partition(f"\n### {package} ")[2].partition("\n### ")[0]
    found = {}
    for line in section.partition("\n## ")[0].splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("| `") and len(cells) == 5:
            codes = frozenset(re.findall(r"(?:VAE|VQ)\d{3}", cells[3]))
            found[cells[0].strip("`")] = Row(cells[2], codes, cells[4])
    return found


def crashed(report: Report) -> list[tuple[str, str]]:
    return [(o.code, o.reason) for o in report.outcomes if o.status == "crashed"]


def errors(report: Report) -> list[Finding]:
    return [f for f in report.findings if f.severity is Severity.ERROR]


def alarms(report: Report) -> frozenset[str]:
    """The codes of errors and warnings."""
    return frozenset(f.code for f in report.findings if f.severity is not Severity.NOTE)


def assert_as_described(report: Report, row: Row) -> None:
    """Exactly the errors and warnings that the table names and explains, and its family.

    `fsq (found: lfq)` is a family that is told wrongly.
    """
    assert alarms(report) == row.found, f"{report}"
    told = re.search(r"\(found: (.*)\)", row.family)
    assert (told[1] if told else row.family) in report.picture.family, f"{report}"


def marked(function: Callable[..., Any]) -> tuple[str, int]:
    """The code and the line that a breaking function marks with `# expect:`."""
    lines, first = inspect.getsourcelines(function)
    for number, line in enumerate(lines, start=first):
        if found := re.search(r"# expect: (\w+)", line):
            return found.group(1), number
    raise AssertionError(f"{function.__name__} marks no line")


def assert_found(report: Report, function: Callable[..., Any]) -> None:
    """The marked code at the marked line, and no other error."""
    code, line = marked(function)
    file = inspect.getsourcefile(function)
    accused = [(f.code, f.at.file, f.at.line) for f in report.findings if f.at]
    assert (code, file, line) in accused, f"{report}"
    assert {f.code for f in errors(report)} <= {code}, f"{report}"
    assert not crashed(report)
