"""What a rule is: a generator over measurements, its code, its severity and its page."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from .finding import Finding, Outcome, Severity, Verified

if TYPE_CHECKING:
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
        """The family's name, such as structure or sampling."""
        return FAMILIES[self.code[:-2]]

    def run(self, examination: Examination) -> Outcome:
        """Judge one examination. Never raises: a bug of ours becomes `crashed`."""
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
            return Outcome(self.code, self.name, "skipped", reason=str(why))
        except Exception as bug:
            return Outcome(self.code, self.name, "crashed", reason=f"{type(bug).__name__}: {bug}")
        status = "failed" if findings else "passed"
        return Outcome(self.code, self.name, status, tuple(findings), verified=tuple(verified))


_RULES: dict[str, Rule] = {}


def rule(
    code: str, severity: Severity, *, before: tuple[str, ...] = ()
) -> Callable[[Check], Check]:
    """Register a generator function as the rule `code`."""

    def register(check: Check) -> Check:
        _RULES[code] = Rule(code, severity, check, before)
        return check

    return register


def all_rules() -> tuple[Rule, ...]:
    """Every rule, by code. Walks the `rules` package once; imports no torch."""
    if not _RULES:
        from . import rules

        for module in pkgutil.walk_packages(rules.__path__, f"{rules.__name__}."):
            importlib.import_module(module.name)
    return tuple(_RULES[code] for code in sorted(_RULES))
