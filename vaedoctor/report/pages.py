"""The rules for people to read: one Markdown page each and an index, the table, JSON."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from ..rule import FAMILIES, Rule

Example = Callable[[Rule], str]

_MADE = (
    "<!-- made by `vaedoctor rules --markdown docs/rules`: edit the rule's docstring instead -->"
)


def rule_to_dict(rule: Rule) -> dict[str, Any]:
    """One rule as plain data."""
    return {
        "code": rule.code,
        "name": rule.name,
        "severity": str(rule.severity),
        "family": rule.family,
        "summary": rule.summary,
        "page": rule.page,
    }


def page(rule: Rule, *, example: str = "") -> str:
    """The rule's page in Markdown: its docstring under its name, and the model that breaks it."""
    head = f"# {rule.code} {rule.name}\n\n*{rule.severity} · {rule.family}*\n\n"
    shown = f"\n\n## Example\n\n```python\n{example.rstrip()}\n```" if example else ""
    return f"{head}{rule.page}{shown}\n"


def index(rules: Iterable[Rule]) -> str:
    """A table of all rules by family, with links to their pages."""
    lines = [
        _MADE,
        "",
        "# Rules",
        "",
        "Errors are proofs, warnings are measured with a wide margin or may be intended, notes "
        "are worth knowing.",
    ]
    by_family: dict[str, list[Rule]] = {name: [] for name in FAMILIES.values()}
    for rule in rules:
        by_family[rule.family].append(rule)
    for family, members in by_family.items():
        if members:
            lines += ["", f"## {family}", "", "| code | name | severity | what is wrong |"]
            lines += ["|---|---|---|---|"]
        lines += [
            f"| [{r.code}]({r.code}.md) | {r.name} | {r.severity} | {_cell(r.summary)} |"
            for r in members
        ]
    return "\n".join(lines) + "\n"


def write_pages(folder: Path, rules: Iterable[Rule], example: Example) -> None:
    """Write the index and a page for each rule; remove the pages of rules that are gone."""
    folder.mkdir(parents=True, exist_ok=True)
    rules = tuple(rules)
    files = {f"{r.code}.md": f"{_MADE}\n\n{page(r, example=example(r))}" for r in rules}
    files["README.md"] = index(rules)
    for old in folder.glob("*.md"):
        if re.fullmatch(r"[A-Z]+\d{3}\.md", old.name) and old.name not in files:
            old.unlink()
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8", newline="\n")


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
