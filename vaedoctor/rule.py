"""What a rule is: a generator over measurements, its code, its severity and its page."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from .finding import Finding, Outcome, Severity, Verified

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

    from .examine.examination import Examination

Check = Callable[["Examination"], Iterator[Finding | Verified]]

FAMILIES = {
    "VAE0": "the check itself",
    "VAE1": "structure",
    "VAE2": "device and dtype",
    "VAE3": "sampling",
    "VAE4": "latent",
    "VAE5": "shapes",
    "VAE6": "gradients",
    "VAE7": "objective",
    "VAE8": "numerics",
    "VAE9": "training",
    "VQ1": "codebook",
}


GROUP = "vaedoctor.rules"  # the entry points of packages that bring rules

_CODE = re.compile(r"[A-Z]{2,12}\d{3}")
_RULES: dict[str, Rule] = {}
_LOADED: list[bool] = []
_LEFT_OUT: list[str] = []


class Unavailable(Exception):
    """A measurement cannot be made on this model; the text says why and what to supply."""


@dataclass(frozen=True, slots=True)
class Rule:
    """A registered rule. `before` names the codes it speaks before when they share a cause."""

    code: str
    severity: Severity
    check: Check
    before: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The function's name with hyphens: `sample-not-reparameterized`."""
        return self.check.__name__.replace("_", "-")

    @property
    def page(self) -> str:
        """The rule's documentation in Markdown, from its docstring."""
        return inspect.cleandoc(self.check.__doc__ or "")

    @property
    def summary(self) -> str:
        """The page's first line."""
        return self.page.partition("\n")[0]

    @property
    def family(self) -> str:
        """The family's name, such as structure or sampling; `other` for rules from elsewhere."""
        return FAMILIES.get(self.code[:-2], "other")

    @property
    def own(self) -> bool:
        """Whether the rule is one of vaedoctor's, not of an installed package."""
        return self.check.__module__.startswith(f"{__package__}.rules.")

    def run(self, examination: Examination) -> Outcome:
        """Judge one examination. Never raises: a bug of ours becomes `crashed`.

        What was found before a measurement turned out to be unavailable stays found.
        """
        findings: list[Finding] = []
        verified: list[Verified] = []
        try:
            for said in self.check(examination):
                if isinstance(said, Verified):
                    verified.append(said)
                else:
                    severity = said.severity or self.severity
                    findings.append(
                        replace(said, code=self.code, name=self.name, severity=severity)
                    )
        except Unavailable as why:
            if not findings:
                return Outcome(self.code, self.name, "skipped", reason=str(why))
        except Exception as bug:
            reason = f"{type(bug).__name__}: {bug}"
            if not self.own:
                reason += f" (in `{self.check.__module__}`)"
            return Outcome(self.code, self.name, "crashed", reason=reason)
        status = "failed" if findings else "passed"
        return Outcome(self.code, self.name, status, tuple(findings), verified=tuple(verified))


def rule(
    code: str, severity: Severity, *, before: tuple[str, ...] = ()
) -> Callable[[Check], Check]:
    """Register a generator function as the rule `code`.

    Raises `ValueError` for a code of another form, one of ours, or a code or name that is taken.
    """

    def register(check: Check) -> Check:
        made = Rule(code, severity, check, before)
        if problem := _problem(made):
            raise ValueError(problem)
        _RULES[code] = made
        return check

    return register


def all_rules() -> tuple[Rule, ...]:
    """Every rule, by code: our own and those of installed packages. Our own import no torch."""
    if not _LOADED:
        _LOADED.append(True)
        from importlib.metadata import entry_points  # 20 ms: only when rules are asked for

        from . import rules

        for module in pkgutil.walk_packages(rules.__path__, f"{rules.__name__}."):
            importlib.import_module(module.name)
        for entry in sorted(entry_points(group=GROUP), key=lambda e: e.name):
            _load(entry)
    return tuple(_RULES[code] for code in sorted(_RULES))


def left_out() -> tuple[str, ...]:
    """Why the rules of an installed package are not judged, one note a package."""
    all_rules()
    return tuple(_LEFT_OUT)


def _load(entry: EntryPoint) -> None:
    """Import the rules of an installed package: all of them, or none and a note."""
    before = dict(_RULES)
    try:
        with redirect_stdout(sys.stderr):  # the report alone goes to stdout
            entry.load()
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        _RULES.clear()
        _RULES.update(before)
        said = str(error).strip().partition("\n")[0]
        _LEFT_OUT.append(
            f"the rules of `{entry.name}` are left out: {type(error).__name__}: {said}"
        )


def _problem(new: Rule) -> str:
    """Why a rule cannot be registered, or nothing."""
    if not _CODE.fullmatch(new.code):
        return f"`{new.code}` is no code: it takes capital letters and three digits, as in ACME101"
    if new.code.startswith(("VAE", "VQ")) and not new.own:
        return f"`{new.code}` is a code of vaedoctor: take letters of your own, as in ACME101"
    for old in _RULES.values():
        # The same function again: its module was loaded once more.
        if _origin(old.check) == _origin(new.check):
            continue
        if old.code == new.code:
            return f"the code {new.code} is taken by `{old.check.__module__}`"
        if old.name == new.name:
            return f"the name {new.name} is taken by {old.code} of `{old.check.__module__}`"
    return ""


def _origin(check: Check) -> tuple[str, str]:
    return check.__module__, check.__qualname__
