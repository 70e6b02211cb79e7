"""What is said when a model cannot be constructed: the signature, and how to say the rest."""

from __future__ import annotations

import enum
import inspect
import json
import types
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ...spelling import listed
from ..code.signatures import (
    annotations_of,
    by_name,
    hint_of,
    name_of,
    signature_of,
    signature_text,
)
from ..errors import TargetError, summary, user_traceback
from .gaps import known, with_gaps
from .making import Call, Gap, Typed, arguments, classes_written, gaps_in, spelled
from .marks import gap
from .pasted import home_of, pasted
from .proposing import Proposals
from .templates import is_plain

_EMPTY = inspect.Parameter.empty


def cannot_guess(
    thing: Callable[..., Any], proposals: Proposals, typed: Mapping[str, Typed], label: str
) -> TargetError:
    """Arguments that nothing is known about; `typed` are those that the user gave."""
    made: dict[str, Any] = {}
    unknown = []
    for p in proposals.missing:
        options = proposals.options(p)
        hint = hint_of(thing, p, proposals.hints)
        if not options:
            unknown.append(f"`{p.name}`")
        use = proposals.uses.get(p.name)
        made[p.name] = (
            options[0] if options else gap(thing, p.name, known(hint, use), hint, use, made)
        )
        if not options and (entries := proposals.entries(p)):
            told = {k: known(_EMPTY, use.keys[k]) for k in entries} if use is not None else {}
            made[p.name] = {
                k: Gap(f"{k}: {told[k]}" if told.get(k) else k) if v is None else v
                for k, v in entries.items()
            }
    made = in_order(thing, {**typed, **by_name(thing, made)})
    return TargetError(
        f"`{name_of(thing)}{signature_text(thing)}` needs {listed(unknown)}, "
        "which cannot be made up",
        next_step=f"{command(label, made)}\n\n{said(thing, label, made)}",
    )


def cannot_construct(
    thing: Callable[..., Any],
    made_up: Mapping[str, Any],
    error: BaseException,
    label: str,
    typed: Mapping[str, Typed] = types.MappingProxyType({}),
) -> TargetError:
    """The constructor raised."""
    made = by_name(thing, made_up)
    gaps = with_gaps(thing, made, error)
    name, kept = name_of(thing), in_order(thing, {**gaps, **typed})
    if kept or is_of_a_library(thing, label):
        step = f"{command(label, kept)}\n\n{said(thing, label, kept)}"
        how = "with made-up arguments" if made else "with your arguments" * bool(typed)
        message = (
            f"`{name}{signature_text(thing)}` could not be constructed "
            f"{how or 'without arguments'}: {summary(error)}{_unlike(thing, typed)}"
        )
        return TargetError(message, traceback=user_traceback(error), next_step=step)
    step = f"correct `{name}.__init__`, then `vaedoctor check {label}`"
    if not isinstance(thing, type):
        step = f"correct `{name}`:\n\n{pasted(thing, label, {})}"
    return TargetError(
        f"`{name}` raised {summary(error)} while it was constructed",
        traceback=user_traceback(error),
        next_step=step,
    )


def _unlike(thing: Callable[..., Any], typed: Mapping[str, Typed]) -> str:
    """Which arguments that the user gave are not what their annotations ask for."""
    hints = annotations_of(thing)
    said = ""
    for name, given in typed.items():
        kind = hints.get(name)
        numbers = (int,) if kind is int else (int, float)
        if kind in (int, float) and not isinstance(given.value, numbers):
            asked = "an int" if kind is int else "a float"
            said += f"; `--arg {name}={given.text}` is not {asked}, which its annotation asks for"
    return said


def cannot_run(
    thing: Callable[..., Any],
    made_up: Mapping[str, Any],
    error: BaseException,
    label: str,
    lines: Sequence[str] = (),
    typed: Mapping[str, Typed] = types.MappingProxyType({}),
) -> TargetError:
    """The forward pass raised, and other arguments or another input may change what it says.

    `lines` are a function with the input that was given, which may be to blame as well.
    """
    how = "with made-up arguments, which may not fit each other" if made_up else "as it is made"
    made = in_order(thing, {**with_gaps(thing, by_name(thing, made_up), error), **typed})
    if lines and not made_up:
        how = "on the input that was made up"
    whole = bool(lines) and not any(True for _ in gaps_in(made))
    steps = [said(thing, label, made, lines, with_batch=whole)]
    if made:
        steps = [command(label, made), *steps]
    return TargetError(
        f"`{name_of(thing)}{signature_text(thing)}` does not run {how}: {summary(error)}",
        traceback=user_traceback(error),
        next_step="\n\n".join(steps),
    )


def in_order(thing: Callable[..., Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments in the order of the signature, those of `**kwargs` last."""
    names = [n for n in signature_of(thing).parameters if n in values]
    return {n: values[n] for n in (*names, *(k for k in values if k not in names))}


def is_of_a_library(thing: Callable[..., Any], label: str) -> bool:
    """Whether a target is a class of a package, which its user does not write."""
    place = label.rpartition(":")[0]
    return isinstance(thing, type) and bool(place) and not place.endswith((".py", ".ipynb"))


def cannot_compose(model: object, way: str, error: BaseException, label: str) -> TargetError:
    """A model without `forward` whose parts do not fit in the way they were put together."""
    name = type(model).__name__
    return TargetError(
        f"`{name}` has no `forward`, and its parts do not run as they were put together "
        f"({way}): {summary(error)}",
        traceback=user_traceback(error),
        next_step=f"give `{name}` a `forward`, then `vaedoctor check {label}`",
    )


def said(
    thing: Callable[..., Any],
    label: str,
    made: Mapping[str, Any],
    batch: Sequence[str] = (),
    *,
    with_batch: bool = False,
) -> str:
    """The same as configuration and as a file, each to be edited and pasted."""
    nested = any(True for v in made.values() if not isinstance(v, Gap) for _ in gaps_in(v))
    written = nested or classes_written(dict(made))
    forms = [_how_to_fill(made)]
    if made and not written:
        forms.append(configuration(label, made))
    return "\n\n".join([*forms, pasted(thing, label, made, batch, with_batch=with_batch)])


def command(label: str, made: Mapping[str, Any]) -> str:
    """The command with every argument, or with the factory where one cannot be typed."""
    nested = any(True for v in made.values() if not isinstance(v, Gap) for _ in gaps_in(v))
    if nested or not made or classes_written(dict(made)):
        return f"vaedoctor check {home_of(label)}:make_vae   (the factory below)"
    return f"vaedoctor check {label} {arguments(made)}"


def _how_to_fill(made: Mapping[str, Any]) -> str:
    if any(True for _ in gaps_in(dict(made))):
        return (
            "`VALUE` and `...` stand for what cannot be made up; the rest is made up, and yours to "
            "correct:"
        )
    if not made:
        return "what stands behind `# <--` is yours to fill in or to correct:"
    return "as they stand, these made-up arguments raise the error above: put in your own:"


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
        ]
    )


def _key(name: str) -> str:
    return name if name.isascii() else json.dumps(name)


def _toml(value: Any) -> str:
    """A value in TOML; what TOML does not know is written as Python, in a string."""
    if isinstance(value, Typed):
        return _toml(value.value) if is_plain(value.value) else json.dumps(value.text)
    if isinstance(value, Gap):
        return _quoted(value)
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
