"""The report for people: anatomy, how each family ended, what was verified, then the findings.

The findings stand last, where the eye is when the command has ended. What people suspect most and
is fine is named with its number; the rest of what passed, and why a few rules were not judged, is
for `verbose`.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Sequence

from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.text import Text

from .. import __version__
from ..finding import (
    Finding,
    Outcome,
    Part,
    Report,
    Severity,
    Stop,
    several,
)
from ..rule import FAMILIES
from .frame import frame
from .plain import ascii_only, measured, number, place, place_of_target, plain
from .verdict import cost, count, families, total, verdict
from .verdict import statistics as counted
from .wrap import hang, wrap

MOST_CODES = 8  # named under one reason; `-v` names them all
FEW = 4  # rules that a reason must keep from being judged, to be told without `-v`
# "Why does it not train?": is the layer registered, on the device, in the way; does it get the
# sample; does the gradient arrive; is the KL that of what is sampled. Then what people most often
# suspect wrongly: the KL's sign and ½, the noise, the reductions, a codebook without a loss.
SUSPECTED = frozenset(
    "VAE101 VAE104 VAE202 VAE302 VAE303 VAE304 VAE401 VAE501 VAE601 VAE602 VAE701 VAE703 VAE705"
    " VAE710 VQ101 VQ102".split()
)
_COLOURS = {Severity.ERROR: "bold red", Severity.WARNING: "bold yellow", Severity.NOTE: "bold cyan"}
_DIM, _GUTTER = "dim", "bold blue"
_MARKS = {
    "passed": "green",
    "warning": "bold yellow",
    "error": "bold red",
    "skipped": _DIM,
    "crashed": "bold magenta",
}
_NBSP = "\N{NO-BREAK SPACE}"


def as_text(
    reports: Report | Sequence[Report],
    *,
    width: int | None = None,
    color: bool = False,
    verbose: bool = False,
    quiet: bool = False,
    ascii: bool = False,
    statistics: bool = False,
) -> str:
    """The report as lines of text; several one after another, with a last line for all.

    `quiet` leaves only findings and the footer, `verbose` adds every rule that passed or was
    skipped, `statistics` how often each rule spoke; `ascii` is for terminals that can show
    nothing else. No text of the user's is ever interpreted, neither as markup nor as escape
    sequences.
    """
    width = 80 if width is None else max(width, 40)
    out = io.StringIO()
    console = Console(
        file=out,
        width=width,
        force_terminal=color,
        color_system="standard" if color else None,
        no_color=not color,
        highlight=False,
        markup=False,
        emoji=False,
        legacy_windows=False,
        _environ={},
    )
    lines = _all(reports, width, verbose=verbose, quiet=quiet, statistics=statistics)
    for line in lines:
        line.rstrip()
        if line.plain.lstrip().startswith("::"):  # GitHub Actions would take it for a command
            line = Text("\\").append_text(line)
        shown = Text(ascii_only(line.plain)) if ascii and not line.plain.isascii() else line
        console.print(shown, soft_wrap=True)
    return out.getvalue()


def finding_text(finding: Finding, *, width: int = 100) -> str:
    """One finding with its code frame, without colours."""
    return "\n".join(line.plain.rstrip() for line in _finding_lines(finding, width))


def _all(
    reports: Report | Sequence[Report], width: int, *, verbose: bool, quiet: bool, statistics: bool
) -> Iterator[Text]:
    """The lines of one report; of several, with a last line for all of them."""
    alone = isinstance(reports, Report)
    for report in several(reports):
        if quiet and not alone:
            yield Text(place_of_target(report.target), style="bold")
        yield from _lines(report, width=width, verbose=verbose, quiet=quiet)
        if not alone:
            yield Text()
    if statistics:
        yield from _statistics(several(reports))
    if not alone:
        yield from wrap(total(several(reports)), width, rest="  ", style="bold")


def _lines(report: Report, *, width: int, verbose: bool, quiet: bool) -> Iterator[Text]:
    if not quiet:
        yield from _header(report, width)
        yield from _loading(report, width)
        yield from _anatomy(report, width)
    if report.stop is not None:
        yield from _stop(report.stop, width)
        return
    if not quiet:
        yield from _summary(report.outcomes, width)
        yield from _verified(report, width, verbose=verbose)
        yield from _not_judged(report.outcomes, width, verbose=verbose)
        if verbose:
            yield from _passed(report.outcomes, width)
    for finding in report.findings:
        yield from _finding_lines(finding, width)
        yield Text()
    if not quiet:
        yield from _hunt(report, width)
    yield from _footer(report, width, quiet=quiet)


def _stop(stop: Stop, width: int) -> Iterator[Text]:
    """Why the target could not be examined, and what to do."""
    text = Text.assemble(("error:", _COLOURS[Severity.ERROR]), f" {plain(stop.message)}")
    yield from hang(text, width, indent=2)
    for line in plain(stop.traceback.rstrip(), lines=True).splitlines():
        yield Text(f"  {line}", style=_DIM)
    step, blank, to_paste = plain(stop.next_step, lines=True).partition("\n\n")
    for i, line in enumerate(step.splitlines()):
        yield from wrap(line, width, first="      " if i else "next: ", rest="      ")
    # What is to be pasted into a file stands at the margin and keeps its lines.
    yield from map(Text, (blank + to_paste).splitlines()[1:])


def _hunt(report: Report, width: int) -> Iterator[Text]:
    if report.hunt is None:
        return
    said = f"hunt: {plain(report.hunt.says)} ({report.hunt.tried} inputs tried)"
    yield from wrap(said, width)
    for line in report.hunt.reproducer.splitlines():
        yield Text(f"    {plain(line)}")
    yield Text()


def _header(report: Report, width: int) -> Iterator[Text]:
    env = report.environment
    said = [f"vaedoctor {__version__}", place_of_target(report.target)]
    said += [
        f"{before}{number(env[key])}"
        for key, before in (
            ("torch", "torch "),
            ("device", ""),
            ("seed", "seed "),
            ("batch", "batch "),
        )
        if key in env
    ]
    # Break between the facts, not inside one: textwrap leaves no-break spaces alone.
    facts = " · ".join(fact.replace(" ", _NBSP) for fact in said)
    for line in wrap(facts, width, style="bold"):
        yield Text(line.plain.replace(_NBSP, " "), style="bold")
    yield Text()


def _summary(outcomes: Iterable[Outcome], width: int) -> Iterator[Text]:
    ended = list(families(outcomes))
    for family in ended:
        mark = (f"[{family.mark}]", _MARKS[family.status])
        text = Text.assemble(mark, f" {family.name:<16} {family.said}")
        yield from hang(text, width, indent=21)
    if ended:
        yield Text()


def _loading(report: Report, width: int) -> Iterator[Text]:
    for i, note in enumerate(report.notes):
        yield from wrap(
            plain(note), width, first="     " if i else "how: ", rest="     ", style=_DIM
        )
    if report.notes:
        yield Text()


def _anatomy(report: Report, width: int) -> Iterator[Text]:
    picture = report.picture
    if not picture.parts:
        return
    sure = f" ({plain(picture.confidence)})" if picture.confidence else ""
    yield from wrap(f"anatomy: {plain(picture.family)}{sure}", width)
    rows = [_cells(part) for part in picture.parts]
    widths = [max(cell_len(cell) for cell in column) for column in zip(*rows, strict=True)]
    for i, (part, row) in enumerate(zip(picture.parts, rows, strict=True)):
        cells = [set_cell_size(cell, w) for cell, w in zip(row, widths, strict=True) if w]
        mark = "- " if part.role == "idle" else "→ " if i else "  "
        line = f"  {mark}{'  '.join(cells)}".rstrip()
        yield from hang(Text(line), width, indent=widths[0] + 6)
    yield Text()


def _cells(part: Part) -> tuple[str, str, str, str]:
    shape = "×".join(map(str, part.shape)) if part.shape else ""
    at = f"{place(part.at.file)}:{part.at.line}" if part.at else ""
    return plain(part.role), f"`{plain(part.name)}`" if part.name else "", shape, at


def _finding_lines(finding: Finding, width: int) -> Iterator[Text]:
    colour = _COLOURS[finding.severity]
    head = f"{finding.severity}[{plain(finding.code)}] {plain(finding.name)}:"
    message = Text.assemble((head, colour), (f" {plain(finding.message)}", "bold"))
    yield from hang(message, width, indent=2)
    gutter = 1
    if finding.at:
        shown = frame(finding.at, width=width)
        gutter = shown.gutter
        for left, right in shown.lines():
            caret = colour if right.strip("^ ") == "" else ""
            yield Text.assemble((left, _GUTTER), (right, caret))
    if finding.measured:
        yield from _slot("measured", measured(finding.measured), gutter, width)
    for note in finding.notes:
        yield from _slot("note", plain(note), gutter, width)
    if finding.help:
        yield from _slot("help", plain(finding.help), gutter, width)
    if finding.traceback:
        yield Text()
        for line in plain(finding.traceback.rstrip(), lines=True).splitlines():
            yield Text(f"  {line}", style=_DIM)


def _slot(name: str, said: str, gutter: int, width: int) -> Iterator[Text]:
    first = f"{' ' * gutter}= {name}: "
    text = Text.assemble((f"{' ' * gutter}= ", _GUTTER), (f"{name}: ", "bold"), said)
    yield from hang(text, width, indent=len(first))


def _verified(report: Report, width: int, *, verbose: bool) -> Iterator[Text]:
    """What was measured and is fine: all, or what is suspected most and what custom rules say."""
    said = [(o.code, v) for o in report.outcomes for v in o.verified]
    shown = [v for code, v in said if verbose or code in SUSPECTED or code[:-2] not in FAMILIES]
    if shown:
        yield Text("verified:")
    for one in shown:
        numbers = f" ({measured(one.measured)})" if one.measured else ""
        yield from wrap(f"{plain(one.text)}{numbers}", width, first="  ✓ ", rest="    ")
    if left := len(said) - len(shown):
        alone = f"verified: {count(left, 'fact')}, told with `-v`"
        yield Text(f"  {left} more with `-v`" if shown else alone, style=_DIM)
    if said:
        yield Text()


def _not_judged(outcomes: Iterable[Outcome], width: int, *, verbose: bool) -> Iterator[Text]:
    """Skipped and crashed rules with their reasons: one line a reason, or one a rule.

    Not `verbose`, a reason that keeps only a few rules from being judged is counted.
    """
    for status in ("skipped", "crashed"):
        reasons: dict[str, list[Outcome]] = {}
        for outcome in (o for o in outcomes if o.status == status):
            key = outcome.code if verbose else outcome.reason
            reasons.setdefault(key, []).append(outcome)
        brief = status == "skipped" and not verbose
        told = [rules for rules in reasons.values() if not brief or len(rules) >= FEW]
        left = sum(map(len, reasons.values())) - sum(map(len, told))
        if told:
            yield Text(f"{status}:")
        for rules in told:
            names = ", ".join(o.code for o in rules)
            if verbose:
                names = f"{plain(rules[0].code)} {plain(rules[0].name)}"
            elif len(rules) > MOST_CODES:
                names = f"{len(rules)} rules"
            yield from wrap(f"{names}: {plain(rules[0].reason)}", width, first="  ", rest="    ")
        if left:
            alone = f"skipped: {count(left, 'rule')}, told why with `-v`"
            yield Text(f"  {left} more with `-v`" if told else alone, style=_DIM)
        if reasons:
            yield Text()


def _passed(outcomes: Iterable[Outcome], width: int) -> Iterator[Text]:
    passed = [o for o in outcomes if o.status == "passed"]
    if passed:
        yield Text("passed:")
        for o in passed:
            yield Text(f"  {plain(o.code)} {plain(o.name)}")
        yield Text()


def _footer(report: Report, width: int, *, quiet: bool) -> Iterator[Text]:
    seed = [f"seed {number(report.environment['seed'])}"] if "seed" in report.environment else []
    said = Text(verdict(report))
    said.stylize(_COLOURS[report.findings[0].severity] if report.findings else "bold green")
    text = Text.assemble(said, f" · {' · '.join([cost(report), *seed])}")
    yield from hang(text, width, indent=2)
    if report.findings and not quiet:
        yield Text(f"next: vaedoctor explain {report.findings[0].code}")


def _statistics(reports: Sequence[Report]) -> Iterator[Text]:
    """How often each rule spoke."""
    said = counted(reports)
    for n, finding in said:
        code = (f"{finding.code:<6}", _COLOURS[finding.severity])
        yield Text.assemble(f"{n:>5}  ", code, f"  {plain(finding.name)}")
    if said:
        yield Text()
