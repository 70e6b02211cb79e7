"""What each key of `[tool.vaedoctor]` takes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from .config import parse_severity
from .finding import Severity


class Wrong(Exception):
    """A value of another kind; the text says what the key takes."""


Kind = Callable[[Any], Any]


def _text(value: Any) -> str:
    if isinstance(value, str) and value.strip():
        return value
    raise Wrong("a string")


def _words(value: Any) -> tuple[str, ...]:
    words = [value] if isinstance(value, str) else value
    if isinstance(words, list) and all(isinstance(w, str) for w in words):
        return tuple(words)
    raise Wrong('a list of rules, such as `["VAE3", "kl-missing"]`')


def _whole(value: Any) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    raise Wrong("a whole number")


def _flag(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    raise Wrong("true or false")


def _rows(value: Any) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and value > 0:
        return value
    raise Wrong("a whole number above 0")


def _number(value: Any) -> float:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return value
    raise Wrong("a number")


def _seconds(value: Any) -> float:
    if isinstance(value, int | float) and not isinstance(value, bool) and value > 0:
        return float(value)
    raise Wrong("a number of seconds above 0")


def _axis(value: Any) -> int | None:
    if value == "none":
        return None
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    raise Wrong('the number of an axis or `"none"`')


def _arguments(value: Any) -> Mapping[str, Any]:
    if isinstance(value, dict) and all(k.isidentifier() for k in value):
        return value
    raise Wrong("a table of arguments, such as `{ latent_dim = 16 }`")


def _conditions(value: Any) -> tuple[int | str, ...]:
    items = value if isinstance(value, list) else [value]
    if all(isinstance(i, int | str) and not isinstance(i, bool) for i in items):
        return tuple(items)
    raise Wrong("a list of positions or names")


def _level(value: Any) -> Severity:
    if isinstance(value, str):
        return parse_severity(value)
    raise Wrong("note, warning or error")


def _levels(value: Any) -> Mapping[str, str]:
    if not isinstance(value, dict) or not all(isinstance(v, str) for v in value.values()):
        raise Wrong('a table of rules, such as `{ VAE201 = "error" }`')
    return {k: v.lower() for k, v in value.items()}


def _tables(value: Any) -> list[Mapping[str, Any]]:
    if isinstance(value, list) and all(isinstance(v, dict) for v in value):
        return value
    raise Wrong("tables, written `[[tool.vaedoctor.targets]]`")


PROJECT: Mapping[str, Kind] = {
    "targets": _tables,
    "select": _words,
    "ignore": _words,
    "severity": _levels,
    "fail-on": _level,
    "seed": _whole,
    "timeout": _seconds,
    "baseline": _text,
}
TARGET: Mapping[str, Kind] = {
    "model": _text,
    "args": _arguments,
    "batch": _text,
    "objective": _text,
    "conditions": _conditions,
    "beta": _number,
    "batch-size": _rows,
    "batch-axis": _axis,
    "call": _arguments,
    "checkpoint": _text,
    "exec": _flag,
}
