"""The report for people: anatomy, findings with their code, a summary, what was verified."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Iterable, Iterator, Mapping

from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.text import Text

from .. import __version__
from ..finding import Finding, Number, Outcome, Part, Report, Severity, Verified
from ..rule import FAMILIES
from .frame import frame
from .plain import ascii_only, number, place, plain

MOST_CODES = 8  # named under one reason; `-v` names them all
_COLOURS = {Severity.ERROR: "bold red", Severity.WARNING: "bold yellow", Severity.NOTE: "bold cyan"}
_DIM, _GUTTER = "dim", "bold blue"
_NBSP = "\N{NO-BREAK SPACE}"


def as_text(
    report: Report,
    *,
    width: int | None = None,
    color: bool = False,
    verbose: bool = False,
    quiet: bool = False,
    ascii: bool = False,
) -> str:
    """The report as lines of text.

    `quiet` leaves only findings and the footer, `verbose` adds every rule that passed or was
    skipped; `ascii` is for terminals that can show nothing else. No text of the user's is ever
    interpreted, neither as markup nor as escape sequences.
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
    for line in _lines(report, width=width, verbose=verbose, quiet=quiet):
        line.rstrip()
        shown = Text(ascii_only(line.plain)) if ascii and not line.plain.isascii() else line
        console.print(shown, soft_wrap=True)
    return out.getvalue()


def _lines(report: Report, *, width: int, verbose: bool, quiet: bool) -> Iterator[Text]:
    if not quiet:
        yield from _header(report, width)
        yield from _loading(report, width)
        yield from _anatomy(report, width)
    for finding in report.findings:
        yield from _finding(finding, width)
        yield Text()
    if not quiet:
        yield from _hunt(report, width)
        yield from _summary(report.outcomes, width)
        yield from _verified(report, width)
        yield from _not_judged(report.outcomes, width, verbose=verbose)
        if verbose:
            yield from _passed(report.outcomes, width)
    yield from _footer(report, width, quiet=quiet)


def _hunt(report: Report, width: int) -> Iterator[Text]:
    if report.hunt is None:
        return
    said = f"hunt: {plain(report.hunt.says)} ({report.hunt.tried} inputs tried)"
    yield from _wrap(said, width)
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
    for line in _wrap(facts, width, style="bold"):
        yield Text(line.plain.replace(_NBSP, " "), style="bold")
    yield Text()


def place_of_target(target: str) -> str:
    """`folder/mymodel.py:VAE` with the path made short."""
    file, colon, name = target.rpartition(":")
    return f"{place(file)}:{plain(name)}" if colon and file.endswith(".py") else plain(target)


def _summary(outcomes: Iterable[Outcome], width: int) -> Iterator[Text]:
    families: dict[str, list[Outcome]] = {}
    for outcome in sorted(outcomes, key=lambda o: o.code):
        families.setdefault(FAMILIES.get(outcome.code[:-2], "other"), []).append(outcome)
    for family, members in families.items():
        mark, style, said = _judge(members)
        text = Text.assemble((f"[{mark}]", style), f" {family:<16} {said}")
        yield from _hang(text, width, indent=21)
    if families:
        yield Text()


def _judge(members: list[Outcome]) -> tuple[str, str, str]:
    """A family's mark, its colour and its counts."""
    findings = [f for o in members for f in o.findings]
    counts = [_count(sum(f.severity is s for f in findings), str(s)) for s in reversed(Severity)]
    by_status = {s: [o for o in members if o.status == s] for s in ("passed", "skipped", "crashed")}
    passed, skipped, crashed = (len(by_status[s]) for s in ("passed", "skipped", "crashed"))
    silenced = sum(len(o.suppressed) for o in members)
    counts += [f"{silenced} suppressed" if silenced else ""]
    counts += [_count(passed, "rule") + " passed" if passed else ""]
    counts += [f"{skipped} skipped" if skipped else ""]
    counts += [f"{_count(crashed, 'rule')} crashed (our bug: please report)" if crashed else ""]
    said = ", ".join(c for c in counts if c)
    if crashed:
        return "☠", "bold magenta", said
    if any(f.severity is Severity.ERROR for f in findings):
        return "✗", "bold red", said
    if findings:
        return "!", "bold yellow", said
    if passed:
        return "✓", "green", said
    return "-", _DIM, said


def _loading(report: Report, width: int) -> Iterator[Text]:
    for i, note in enumerate(report.notes):
        yield from _wrap(
            plain(note), width, first="     " if i else "how: ", rest="     ", style=_DIM
        )
    if report.notes:
        yield Text()


def _anatomy(report: Report, width: int) -> Iterator[Text]:
    picture = report.picture
    if not picture.parts:
        return
    sure = f" ({plain(picture.confidence)})" if picture.confidence else ""
    yield from _wrap(f"anatomy: {plain(picture.family)}{sure}", width)
    rows = [_cells(part) for part in picture.parts]
    widths = [max(cell_len(cell) for cell in column) for column in zip(*rows, strict=True)]
    for i, row in enumerate(rows):
        cells = [set_cell_size(cell, w) for cell, w in zip(row, widths, strict=True) if w]
        line = f"  {'→ ' if i else '  '}{'  '.join(cells)}".rstrip()
        yield from _hang(Text(line), width, indent=widths[0] + 6)
    yield Text()


def _cells(part: Part) -> tuple[str, str, str, str]:
    shape = "×".join(map(str, part.shape)) if part.shape else ""
    at = f"{place(part.at.file)}:{part.at.line}" if part.at else ""
    return plain(part.role), f"`{plain(part.name)}`" if part.name else "", shape, at


def _finding(finding: Finding, width: int) -> Iterator[Text]:
    colour = _COLOURS[finding.severity]
    head = f"{finding.severity}[{finding.code}] {finding.name}:"
    message = Text.assemble((head, colour), (f" {plain(finding.message)}", "bold"))
    yield from _hang(message, width, indent=2)
    gutter = 1
    if finding.at:
        shown = frame(finding.at, width=width)
        gutter = shown.gutter
        for left, right in shown.lines():
            caret = colour if right.strip("^ ") == "" else ""
            yield Text.assemble((left, _GUTTER), (right, caret))
    if finding.measured:
        yield from _slot("measured", _measured(finding.measured), gutter, width)
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
    yield from _hang(text, width, indent=len(first))


def _measured(values: Mapping[str, Number]) -> str:
    return ", ".join(f"{plain(k)} = {number(v)}" for k, v in values.items())


def _verified(report: Report, width: int) -> Iterator[Text]:
    said: list[Verified] = [v for o in report.outcomes for v in o.verified]
    if said:
        yield Text("verified:")
    for one in said:
        numbers = f" ({_measured(one.measured)})" if one.measured else ""
        yield from _wrap(f"{plain(one.text)}{numbers}", width, first="  ✓ ", rest="    ")
    if said:
        yield Text()


def _not_judged(outcomes: Iterable[Outcome], width: int, *, verbose: bool) -> Iterator[Text]:
    """Skipped and crashed rules with their reasons: one line a reason, or one a rule."""
    for status in ("skipped", "crashed"):
        reasons: dict[str, list[Outcome]] = {}
        for outcome in (o for o in outcomes if o.status == status):
            key = outcome.code if verbose else outcome.reason
            reasons.setdefault(key, []).append(outcome)
        if reasons:
            yield Text(f"{status}:")
        for rules in reasons.values():
            names = ", ".join(o.code for o in rules)
            if verbose:
                names = f"{rules[0].code} {rules[0].name}"
            elif len(rules) > MOST_CODES:
                names = f"{len(rules)} rules"
            yield from _wrap(f"{names}: {plain(rules[0].reason)}", width, first="  ", rest="    ")
        if reasons:
            yield Text()


def _passed(outcomes: Iterable[Outcome], width: int) -> Iterator[Text]:
    passed = [o for o in outcomes if o.status == "passed"]
    if passed:
        yield Text("passed:")
        for o in passed:
            yield Text(f"  {o.code} {o.name}")
        yield Text()


def _footer(report: Report, width: int, *, quiet: bool) -> Iterator[Text]:
    counts = [(sum(f.severity is s for f in report.findings), s) for s in reversed(Severity)]
    found = ", ".join(_count(n, str(s)) for n, s in counts if n)
    silenced = f" ({len(report.suppressed)} suppressed)" if report.suppressed else ""
    rules = sum(o.status in ("passed", "failed") for o in report.outcomes)
    skipped = len(report.outcomes) - rules
    cost = f"{_count(rules, 'rule')} in {report.seconds:.1f} s"
    cost += f", {skipped} not judged" if skipped else ""
    seed = [f"seed {number(report.environment['seed'])}"] if "seed" in report.environment else []
    verdict = Text(f"{found or 'no problems found'}{silenced}")
    verdict.stylize(_COLOURS[report.findings[0].severity] if report.findings else "bold green")
    text = Text.assemble(verdict, f" · {' · '.join([cost, *seed])}")
    yield from _hang(text, width, indent=2)
    if report.findings and not quiet:
        yield Text(f"next: vaedoctor explain {report.findings[0].code}")


def _count(n: int, noun: str) -> str:
    return f"{n} {noun}{'' if n == 1 else 's'}" if n else ""


def _wrap(
    said: str, width: int, *, first: str = "", rest: str = "", style: str = ""
) -> Iterator[Text]:
    text = Text(f"{first}{said}", style=style)
    yield from _hang(text, width, indent=len(rest))


def _hang(text: Text, width: int, *, indent: int) -> Iterator[Text]:
    """The text in lines of at most `width`, all but the first indented."""
    if text.cell_len <= width:
        yield text
        return
    # Positions come from textwrap, which measures characters; the styles stay on their places.
    lines = textwrap.wrap(
        text.plain,
        width,
        subsequent_indent=" " * indent,
        break_long_words=False,
        break_on_hyphens=False,
        drop_whitespace=True,
    )
    at = 0
    for i, line in enumerate(lines):
        words = line.removeprefix(" " * indent) if i else line
        at = text.plain.index(words, at)
        part = text[at : at + len(words)]
        at += len(words)
        yield Text(" " * indent).append_text(part) if i else part
