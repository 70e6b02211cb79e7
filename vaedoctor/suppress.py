"""`# vaedoctor: ignore[VAE301]`: findings that a comment silences, and idle comments."""

from __future__ import annotations

import ast
import io
import os
import re
import tokenize
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from .finding import Finding, Outcome, Severity, Span
from .notebook import is_notebook, joined_text
from .rule import all_rules
from .spelling import did_you_mean

UNUSED = "VAE001"

_COMMENT = re.compile(r"#\s*vaedoctor:\s*ignore\b\s*(?:\[(?P<words>[^\]]*)\])?", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Suppression:
    """One comment: the rules it names (as they are written), and where it stands."""

    words: tuple[str, ...]
    at: Span

    def names(self, finding: Finding) -> bool:
        """Whether the comment names the finding's rule, by code or by name."""
        return any(_is(word, finding.code, finding.name) for word in self.words)


def apply_suppressions(
    outcomes: tuple[Outcome, ...], *, model_at: Span | None
) -> tuple[Outcome, ...]:
    """Move the findings that a comment silences to `suppressed`; report unused comments.

    A comment silences the rules it names on its own line (any line of a finding's span), or
    everywhere when it stands on the model's class line, `model_at`. What VAE001 has to say is
    only known now, after every other rule: its findings are put into its outcome here, if it is
    among `outcomes`. A comment is called unused only inside the model's own class, and only for
    rules that ran: elsewhere in the file it may well serve another model.
    """
    return _Silencer(outcomes, model_at).apply()


def read_suppressions(file: str) -> tuple[Suppression, ...]:
    """The suppression comments of a Python file; none if it cannot be read as one."""
    try:
        text = _text(file)
        if _COMMENT.search(text) is None:  # of a thousand lines, a thousandth of the time
            return ()
        return tuple(_read(text, file))
    except (OSError, SyntaxError, ValueError, tokenize.TokenError):
        return ()


def _text(file: str) -> str:
    if is_notebook(file):
        return joined_text(file)
    with tokenize.open(file) as stream:
        return stream.read()


def _read(text: str, file: str) -> Iterator[Suppression]:
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type != tokenize.COMMENT:
            continue
        for match in _COMMENT.finditer(token.string):
            words = tuple(w.strip() for w in (match["words"] or "").split(",") if w.strip())
            line, col = token.start[0], token.start[1] + match.start() + 1
            yield Suppression(words, Span(file, line, col, line, col + len(match[0])))


class _Silencer:
    """One pass over the outcomes, which remembers the comments that were of use."""

    def __init__(self, outcomes: tuple[Outcome, ...], model_at: Span | None) -> None:
        self.outcomes = outcomes
        places = [f.at for o in outcomes for f in o.findings if f.at] + [model_at] * bool(model_at)
        files = {_same(at.file): at.file for at in places if at}
        self.comments = {key: read_suppressions(file) for key, file in files.items()}
        self.model_file = _same(model_at.file) if model_at else ""
        written = self.comments.get(self.model_file)
        self.header, self.body = _class_lines(model_at if written else None)
        self.used: set[tuple[Suppression, str]] = set()

    def apply(self) -> tuple[Outcome, ...]:
        judged = tuple(o if o.code == UNUSED else self._silence(o) for o in self.outcomes)
        unused = tuple(self._unused())
        return tuple(
            self._silence(replace(o, findings=unused, status="failed" if unused else o.status))
            if o.code == UNUSED
            else o
            for o in judged
        )

    def _silence(self, outcome: Outcome) -> Outcome:
        if not outcome.findings:
            return outcome
        kept: list[Finding] = []
        silenced = list(outcome.suppressed)
        for finding in outcome.findings:
            comments = [c for c in self._near(finding.at) if c.names(finding)]
            self.used |= {(c, finding.code) for c in comments}
            (silenced if comments else kept).append(finding)
        status = outcome.status if kept else "passed"
        return replace(outcome, status=status, findings=tuple(kept), suppressed=tuple(silenced))

    def _near(self, at: Span | None) -> Iterator[Suppression]:
        """The comments that can silence a finding at this place."""
        for comment in self.comments.get(self.model_file, ()):
            if comment.at.line in self.header:
                yield comment
        if at is not None:
            lines = range(at.line, max(at.line, at.end_line) + 1)
            yield from (c for c in self.comments.get(_same(at.file), ()) if c.at.line in lines)

    def _unused(self) -> Iterator[Finding]:
        ran = {o.code: o.name for o in self.outcomes if o.status in ("passed", "failed")}
        rules = {r.code: r.name for r in all_rules()} | {o.code: o.name for o in self.outcomes}
        for comment in self.comments.get(self.model_file, ()):
            if comment.at.line not in self.body:
                continue
            if not comment.words:
                yield _note(
                    "this comment names no rule, so it silences nothing",
                    "name the rules: `# vaedoctor: ignore[VAE301]`",
                    comment.at,
                )
            for word in comment.words:
                code = next((c for c, name in rules.items() if _is(word, c, name)), None)
                if code is None:
                    known = [w for item in rules.items() for w in item]
                    hint = did_you_mean(word, known).removeprefix("; ")
                    yield _note(
                        f"this comment names `{word}`, which is no rule",
                        hint or "list the rules with `vaedoctor rules`",
                        comment.at,
                    )
                elif code in ran and code != UNUSED and (comment, code) not in self.used:
                    yield _note(
                        f"this comment silences {code} ({rules[code]}), which found nothing here",
                        f"remove `{word}` from the comment",
                        comment.at,
                    )


def _note(message: str, help: str, at: Span) -> Finding:
    return Finding(
        message,
        help=help,
        at=at,
        severity=Severity.NOTE,
        code=UNUSED,
        name="unused-suppression",
    )


def _is(word: str, code: str, name: str) -> bool:
    return word.upper() == code or word.lower().replace("_", "-") == name


def _same(file: str) -> str:
    return os.path.realpath(file)


def _class_lines(at: Span | None) -> tuple[range, range]:
    """The lines of the class statement at this place: its header, and all of it."""
    if at is None:
        return range(0), range(0)
    alone = range(at.line, at.line + 1)
    try:
        tree = ast.parse(_text(at.file))
    except (OSError, SyntaxError, ValueError):
        return alone, alone
    for node in _classes(ast.walk(tree)):
        first = min([node.lineno, *(d.lineno for d in node.decorator_list)])
        if first <= at.line <= node.lineno:
            last = node.end_lineno or node.lineno
            header = range(first, max(node.body[0].lineno, node.lineno + 1))
            return header, range(first, last + 1)
    return alone, alone


def _classes(nodes: Iterable[ast.AST]) -> Iterator[ast.ClassDef]:
    return (node for node in nodes if isinstance(node, ast.ClassDef))
