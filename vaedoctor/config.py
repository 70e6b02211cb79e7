"""What to judge and how strictly: selectors, severities, and errors that suggest the right word."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import click

from .finding import Severity
from .rule import Rule, all_rules
from .spelling import did_you_mean


@dataclass(frozen=True, slots=True)
class Settings:
    """What one check-up judges. `select` None means every rule.

    `severity` gives the rules that a selector names another severity than their own.
    """

    select: tuple[str, ...] | None = None
    ignore: tuple[str, ...] = ()
    fail_on: Severity = Severity.ERROR
    seed: int = 0
    severity: Mapping[str, str] = field(default_factory=dict)


class ConfigError(click.ClickException):
    """The request itself cannot be understood: exit code 2."""

    exit_code = 2


def select_rules(
    select: Iterable[str] | None = None, ignore: Iterable[str] = ()
) -> tuple[Rule, ...]:
    """The rules that `select` names and `ignore` does not, by code.

    A selector is a code, a prefix of codes (`VAE3`), a rule's name or `ALL`; one string may hold
    several, separated by commas.
    """
    rules = all_rules()
    chosen = _codes(("ALL",) if select is None else select, rules)
    dropped = _codes(ignore, rules)
    return tuple(r for r in rules if r.code in chosen and r.code not in dropped)


def severities(levels: Mapping[str, str]) -> dict[str, Severity]:
    """The severity by code that selectors ask for; the longer selector wins."""
    rules = all_rules()
    return {
        code: parse_severity(levels[selector])
        for selector in sorted(levels, key=len)
        for code in _codes((selector,), rules)
    }


def find_rule(code_or_name: str) -> Rule:
    """The one rule with this code or name."""
    wanted = code_or_name.strip()
    for rule in all_rules():
        if wanted.upper() == rule.code or wanted.lower().replace("_", "-") == rule.name:
            return rule
    known = [word for rule in all_rules() for word in (rule.code, rule.name)]
    raise ConfigError(f"no rule is called `{wanted}`{did_you_mean(wanted, known)}")


def parse_severity(word: str) -> Severity:
    """`note`, `warning` or `error`, in any case."""
    try:
        return Severity(word.strip().lower())
    except ValueError:
        known = [str(s) for s in Severity]
        hint = did_you_mean(word, known)
        raise ConfigError(
            f"`{word}` is no severity{hint}; the severities are {', '.join(known)}"
        ) from None


def split_words(words: Iterable[str]) -> tuple[str, ...]:
    """The words of a repeatable option, each of which may hold several separated by commas."""
    words = (words,) if isinstance(words, str) else words
    return tuple(part.strip() for word in words for part in word.split(",") if part.strip())


def _codes(selectors: Iterable[str], rules: Sequence[Rule]) -> frozenset[str]:
    codes: set[str] = set()
    for selector in split_words(selectors):
        found = {r.code for r in rules if _matches(selector, r)}
        if not found:
            known = ["ALL", *(word for r in rules for word in (r.code, r.name))]
            raise ConfigError(
                f"`{selector}` selects no rule{did_you_mean(selector, known)} "
                "(`vaedoctor rules` lists them)"
            )
        codes |= found
    return frozenset(codes)


def _matches(selector: str, rule: Rule) -> bool:
    if selector.upper() == "ALL" or selector.lower().replace("_", "-") == rule.name:
        return True
    return len(selector) > 1 and rule.code.startswith(selector.upper())
