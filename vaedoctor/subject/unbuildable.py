"""What is said when a model cannot be constructed: the signature, and how to say the rest."""

from __future__ import annotations

import enum
import json
from collections.abc import Callable, Mapping
from typing import Any

from ..spelling import listed
from .errors import TargetError, summary, user_traceback
from .making import Call, arguments, expression, imports_for, spelled
from .proposing import Proposals
from .signatures import by_name, name_of, signature_text

_UNKNOWN = "VALUE"


def cannot_guess(
    thing: Callable[..., Any], proposals: Proposals, values: Mapping[str, Any], label: str
) -> TargetError:
    """Arguments that nothing is known about."""
    made: dict[str, Any] = {}
    unknown = []
    for p in proposals.missing:
        options = proposals.options(p)
        if not options:
            unknown.append(f"`{p.name}`")
        made[p.name] = options[0] if options else _UNKNOWN
    made = by_name(thing, made)
    return TargetError(
        f"`{name_of(thing)}{signature_text(thing)}` needs {listed(unknown)}, "
        "which cannot be made up",
        next_step=f"vaedoctor check {label} {arguments(made)}\n\n{said(thing, label, made)}",
    )


def cannot_construct(
    thing: Callable[..., Any],
    made_up: Mapping[str, Any],
    error: BaseException,
    label: str,
) -> TargetError:
    """The constructor raised."""
    made_up = by_name(thing, made_up)
    name = name_of(thing)
    again = f"vaedoctor check {label}"
    if made_up:
        step = f"{again} {arguments(made_up)}\n\n{said(thing, label, made_up)}"
        message = (
            f"`{name}{signature_text(thing)}` could not be constructed "
            f"with made-up arguments: {summary(error)}"
        )
        return TargetError(message, traceback=user_traceback(error), next_step=step)
    return TargetError(
        f"`{name}` raised {summary(error)} while it was constructed",
        traceback=user_traceback(error),
        next_step=f"correct `{name}.__init__`, then `{again}`"
        if isinstance(thing, type)
        else f"correct `{name}`, then `{again}`",
    )


def cannot_run(
    thing: Callable[..., Any], made_up: Mapping[str, Any], error: BaseException, label: str
) -> TargetError:
    """The forward pass raised, and other made-up sizes change what it says."""
    made_up = by_name(thing, made_up)
    return TargetError(
        f"`{name_of(thing)}{signature_text(thing)}` does not run with made-up arguments, "
        f"which may not fit each other: {summary(error)}",
        traceback=user_traceback(error),
        next_step=f"vaedoctor check {label} {arguments(made_up)}\n\n{said(thing, label, made_up)}",
    )


def cannot_compose(model: object, way: str, error: BaseException, label: str) -> TargetError:
    """A model without `forward` whose parts do not fit in the way they were put together."""
    name = type(model).__name__
    return TargetError(
        f"`{name}` has no `forward`, and its parts do not run as they were put together "
        f"({way}): {summary(error)}",
        traceback=user_traceback(error),
        next_step=f"give `{name}` a `forward`, then `vaedoctor check {label}`",
    )


def said(thing: Callable[..., Any], label: str, made: Mapping[str, Any]) -> str:
    """The same as configuration and as a factory, each to be edited and pasted."""
    return f"{configuration(label, made)}\n\n{factory(thing, label, made)}"


def configuration(label: str, made: Mapping[str, Any]) -> str:
    """The entry for `pyproject.toml`."""
    args = ", ".join(f"{_key(k)} = {_toml(v)}" for k, v in made.items())
    return "\n".join(
        [
            "or in pyproject.toml:",
            "",
            "[[tool.vaedoctor.targets]]",
            f"model = {json.dumps(label)}",
            f"args = {{ {args} }}",
            'batch = "16x784"',
            'objective = "loss_function"',
        ]
    )


def factory(thing: Callable[..., Any], label: str, made: Mapping[str, Any]) -> str:
    """A function that makes the model: at the end of the user's file, or in one of its own."""
    name = name_of(thing)
    place = label.rpartition(":")[0]
    given = ", ".join(f"{k}={expression(v)}" for k, v in made.items())
    own = str(getattr(thing, "__module__", ""))
    imports = [f"    {i}" for i in imports_for(made, own)]
    lines = ["def make_vae():", *imports, f"    return {name}({given})"]
    if place.endswith(".py"):
        return "\n".join(
            [f"or at the end of {place}:", "", *lines, "", f"vaedoctor check {place}:make_vae"]
        )
    module = getattr(thing, "__module__", place)
    return "\n".join(
        [
            "or in a file of your own, make_vae.py:",
            "",
            f"from {module} import {name}",
            "",
            *lines,
            "",
            "vaedoctor check make_vae.py:make_vae",
        ]
    )


def _key(name: str) -> str:
    return name if name.isascii() else json.dumps(name)


def _toml(value: Any) -> str:
    """A value in TOML; what TOML does not know is written as Python, in a string."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, str) and not isinstance(value, enum.Enum):
        return json.dumps(value)
    if type(value) in (list, tuple) and not _holds_calls(value):
        return f"[{', '.join(map(_toml, value))}]" if type(value) is list else _quoted(value)
    if type(value) is dict and not _holds_calls(value) and all(isinstance(k, str) for k in value):
        return "{ " + ", ".join(f"{_key(k)} = {_toml(v)}" for k, v in value.items()) + " }"
    return _quoted(value)


def _quoted(value: Any) -> str:
    return json.dumps(spelled(value))


def _holds_calls(value: Any) -> bool:
    if isinstance(value, Call | type | enum.Enum) or value is None:
        return True
    inside = value.values() if isinstance(value, dict) else value
    return isinstance(value, dict | list | tuple) and any(map(_holds_calls, inside))
