"""The report as one page: offline, for light and dark screens, telephones and paper.

Everything but our own drawings is escaped by the template.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from jinja2 import Environment, StrictUndefined, Template
from markupsafe import Markup

from .. import __version__
from ..finding import Finding, Number, Outcome, Report, several
from .diagram import diagram, rest
from .frame import Line, listing
from .plain import number, place, place_of_target, plain
from .svg import plot
from .verdict import STOPPED, cost, families, total, verdict


@dataclass(frozen=True, slots=True)
class Shown:
    """A finding as the page shows it."""

    number: int
    finding: Finding
    where: str
    lines: tuple[Line, ...]
    plots: tuple[tuple[str, Markup], ...]


def as_html(reports: Report | Sequence[Report]) -> str:
    """One report or several as a whole page."""
    found = several(reports)
    title = place_of_target(found[0].target) if len(found) == 1 else f"{len(found)} targets"
    return _template().render(
        title=title,
        version=__version__,
        total=None if isinstance(reports, Report) else total(found),
        sections=[_section(report, i) for i, report in enumerate(found, start=1)],
    )


@cache
def _template() -> Template:
    source = files(__package__).joinpath("page.html").read_text(encoding="utf-8")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    environment.lstrip_blocks = True
    environment.filters |= {"number": number, "words": _words, "plain": plain, "block": _block}
    environment.filters["breakable"] = _breakable
    return environment.from_string(source)


def _section(report: Report, index: int) -> dict[str, object]:
    """What the template shows of one report."""
    drawn = diagram(report, prefix=f"target-{index}")
    return {
        "id": f"target-{index}",
        "report": report,
        "target": place_of_target(report.target),
        "status": status(report),
        "verdict": verdict(report),
        "cost": "" if report.stop else cost(report),
        "stopped": STOPPED,
        "coloured": any(p.recon_gradient is not None for p in report.picture.parts),
        "kl": any(p.kl_gradient is not None for p in report.picture.parts),
        "rest": "the KL" if rest(report) == "KL" else "the rest of the loss",
        "composed": report.environment.get("objective") == "composed",
        "diagram": Markup(drawn),
        "red": 'class="cut"' in drawn or "way leak" in drawn,
        "shown": [_shown(f, i) for i, f in enumerate(report.findings, start=1)],
        "families": list(families(report.outcomes)),
        "verified": [v for o in report.outcomes for v in o.verified],
        "skipped": list(_reasons(report.outcomes, "skipped")),
        "crashed": list(_reasons(report.outcomes, "crashed")),
        "environment": _environment(report.environment),
        "command": str(report.environment.get("command", "")),
    }


def status(report: Report) -> str:
    """The class of the verdict: `error` or `warning` or `note`, `stopped`, or `healthy`."""
    if report.stop is not None:
        return "stopped"
    return str(report.findings[0].severity) if report.findings else "healthy"


def _shown(finding: Finding, index: int) -> Shown:
    at = finding.at
    return Shown(
        index,
        finding,
        f"{place(at.file)}:{at.line}:{at.col}" if at else "",
        tuple(listing(at)) if at else (),
        tuple((p.name, Markup(plot(p))) for p in finding.plots),
    )


def _reasons(outcomes: Sequence[Outcome], status: str) -> Iterator[tuple[str, list[Outcome]]]:
    """The rules that ended so, by reason."""
    reasons: dict[str, list[Outcome]] = {}
    for outcome in (o for o in outcomes if o.status == status):
        reasons.setdefault(outcome.reason, []).append(outcome)
    yield from reasons.items()


def _environment(known: Mapping[str, Number]) -> list[tuple[str, str]]:
    rows = {k: number(v) for k, v in known.items() if k != "command"}
    return [("vaedoctor", __version__), *((plain(k), v) for k, v in rows.items())]


def _words(text: str) -> Markup:
    """Text in which what stands between backticks is code."""
    parts = re.split(r"`([^`]*)`", plain(text))
    code = Markup("<code>{}</code>")
    return Markup("").join(code.format(p) if i % 2 else p for i, p in enumerate(parts))


def _breakable(text: str) -> Markup:
    """A path that may go on in the next line after a `/`, a `_` or a `:`."""
    parts = re.split(r"(?<=[/_:.])", plain(text))
    return Markup("<wbr>").join(parts)


def _block(text: str) -> str:
    return plain(text.rstrip(), lines=True)
