"""Every rule has a small model that breaks it: where it lies, and how to examine it."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from .config import ConfigError
from .project import Target
from .rule import Rule

_HERE = Path(__file__).parent
_FOLDERS = (_HERE / "_fixtures", _HERE.parent / "fixtures")  # in a wheel, in the repository


def find_fixture(rule: Rule) -> Path | None:
    """The rule's `fixtures/<family>/<rule_name>.py`."""
    name = f"{rule.name.replace('-', '_')}.py"
    found = (path for folder in _FOLDERS for path in sorted(folder.glob(f"*/{name}")))
    return next(found, None)


def demo_target(rule: Rule) -> Target:
    """What to check to see the rule at work: its fixture's `Broken`, with the fixture's data."""
    path = find_fixture(rule)
    if path is None:
        raise ConfigError(f"{rule.code} ({rule.name}) has no demonstration")
    names = _functions(path)
    return Target(
        f"{path}:Broken",
        batch=f"{path}:batch" if "batch" in names else None,
        objective="objective" if "objective" in names else None,
    )


def example(rule: Rule) -> str:
    """The class of the fixture that breaks the rule, as source text, or nothing."""
    path = find_fixture(rule)
    if path is None:
        return ""
    text = path.read_text(encoding="utf-8")
    for node in ast.parse(text).body:
        if isinstance(node, ast.ClassDef) and node.name == "Broken":
            source = ast.get_source_segment(text, node) or ""
            return re.sub(r"# (expect|todo): ", r"# ", source)
    return ""


def _functions(path: Path) -> frozenset[str]:
    body = ast.parse(path.read_bytes()).body
    return frozenset(node.name for node in body if isinstance(node, ast.FunctionDef))
