"""The report as Markdown for a pull request or a step summary, below the size GitHub takes."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator, Sequence

from ..finding import Finding, Outcome, Report, Severity, several
from .as_text import finding_text
from .location import located
from .plain import place, place_of_target, plain
from .verdict import STOPPED, cost, families, total, verdict

LARGEST = 900_000  # bytes; GitHub drops a step summary of more than 1 MiB
_MARKS = {Severity.ERROR: "❌", Severity.WARNING: "⚠️", Severity.NOTE: "\N{INFORMATION SOURCE}️"}


def as_markdown(reports: Report | Sequence[Report]) -> str:
    """A table of the findings and the details of each, as far as there is room."""
    found = several(reports)
    parts: list[str] = []
    if not isinstance(reports, Report):
        parts.append(f"# vaedoctor\n\n{_text(total(found))}\n")
    essential = [_essence(report) for report in found]
    room = LARGEST - sum(_size(part) for part in (*parts, *essential)) - 200 * len(found)
    for report, essence in zip(found, essential, strict=True):
        details, room = _fitting(_details(report), room)
        parts += [essence, *details]
    return _cut("\n".join(parts))


def _essence(report: Report) -> str:
    """The verdict and the table."""
    mark = "❌" if report.stop or not report.ok else "⚠️" if report.findings else "✅"
    lines = [f"## {mark} {_text(place_of_target(report.target))}", ""]
    if report.stop is not None:
        lines += [f"**{STOPPED}**: {_text(report.stop.message)}", ""]
        lines += _block(report.stop.traceback) if report.stop.traceback else []
        lines += [f"next: {_text(report.stop.next_step)}", ""] if report.stop.next_step else []
        return "\n".join(lines)
    lines += [f"**{_text(verdict(report))}** · {_text(cost(report))}", ""]
    if report.findings:
        lines += ["| | code | what is wrong | where |", "|---|---|---|---|"]
        lines += [_row(f, report) for f in report.findings]
        lines += [""]
    return "\n".join(lines)


def _row(finding: Finding, report: Report) -> str:
    at = located(finding, report)
    cells = (
        _MARKS[finding.severity],
        finding.code,
        _text(finding.message),
        f"<code>{_raw(place(at.file))}:{at.line}</code>",
    )
    return f"| {' | '.join(cells)} |"


def _details(report: Report) -> Iterator[str]:
    """A fold a finding, then what was judged and what was not."""
    for f in report.findings:
        head = f"{_MARKS[f.severity]} {f.code} {_text(f.name)}"
        yield "\n".join([*_fold(head, _block(finding_text(f)))])
    if report.outcomes:
        rows = ["| | family | rules |", "|---|---|---|"]
        rows += [
            f"| {f.mark} | {_text(f.name)} | {_text(f.said)} |" for f in families(report.outcomes)
        ]
        verified = [v for o in report.outcomes for v in o.verified]
        rows += ["", *(f"- verified: {_text(v.text)}" for v in verified), ""]
        rows += [f"- {_skip(o)}" for o in report.outcomes if o.status in ("skipped", "crashed")]
        yield "\n".join(_fold("what was judged", rows))


def _skip(outcome: Outcome) -> str:
    return f"{outcome.status}: {_text(outcome.code)} {_text(outcome.name)}: {_text(outcome.reason)}"


def _fitting(details: Iterator[str], room: int) -> tuple[list[str], int]:
    """As many details as there is room for, and what room is left."""
    kept: list[str] = []
    left_out = 0
    for detail in details:
        size = _size(detail)
        if left_out or size > room:
            left_out += 1
            continue
        kept.append(detail)
        room -= size
    if left_out:
        kept.append(f"{left_out} more details do not fit in here; the HTML report holds all.\n")
    return kept, room


def _cut(text: str) -> str:
    """Even a table can be too long: whole lines only."""
    if _size(text) <= LARGEST:
        return text
    kept = text.encode()[: LARGEST - 100].decode(errors="ignore").rpartition("\n")[0]
    return f"{kept}\n\nThe rest does not fit in here.\n"


def _fold(head: str, lines: Sequence[str]) -> list[str]:
    return [f"<details><summary>{head}</summary>", "", *lines, "", "</details>", ""]


def _block(text: str) -> list[str]:
    """Text as it is, in an HTML block: no Markdown is read before its end."""
    return [f"<pre>{html.escape(plain(text.rstrip(), lines=True), quote=False)}</pre>", ""]


def _text(text: str) -> str:
    """Text in which nothing but code between backticks is Markdown, on one line."""
    parts = re.split(r"`([^`]*)`", plain(text))
    return "".join(f"<code>{_raw(p)}</code>" if i % 2 else _raw(p) for i, p in enumerate(parts))


def _raw(text: str) -> str:
    """Every character that HTML or Markdown might read, as an entity."""
    safe = html.escape(plain(text), quote=False)
    safe = re.sub(r"[`*_\[\]\\|~@#$]|:(?=//)", lambda m: f"&#{ord(m[0])};", safe)
    return re.sub(r"(?<=www)\.", "&#46;", safe)


def _size(text: str) -> int:
    return len(text.encode()) + 1
