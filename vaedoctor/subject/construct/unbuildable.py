"""What is said when a model cannot be constructed: the signature, and how to say the rest."""

from __future__ import annotations

import enum
import inspect
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ...spelling import listed
from ..code.signatures import by_name, hint_of, name_of, signature_text
from ..errors import TargetError, summary, user_traceback
from .gaps import known, with_gaps
from .making import (
    Call,
    Gap,
    arguments,
    classes_written,
    expression,
    gaps_in,
    imports_for,
    spelled,
)
from .marks import comments, gap
from .parts import stands_in
from .proposing import Proposals

_EMPTY = inspect.Parameter.empty
_STANDS_IN = "a layer that stands in: put your own part in its place"


def cannot_guess(
    thing: Callable[..., Any], proposals: Proposals, values: Mapping[str, Any], label: str
) -> TargetError:
    """Arguments that nothing is known about."""
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
    made = by_name(thing, made)
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
) -> TargetError:
    """The constructor raised."""
    made = by_name(thing, made_up)
    made_up = with_gaps(thing, made, error)
    name = name_of(thing)
    again = f"vaedoctor check {label}"
    if made_up:
        step = f"{command(label, made_up)}\n\n{said(thing, label, made_up)}"
        message = (
            f"`{name}{signature_text(thing)}` could not be constructed "
            f"{'with made-up arguments' if made else 'without arguments'}: {summary(error)}"
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
    thing: Callable[..., Any],
    made_up: Mapping[str, Any],
    error: BaseException,
    label: str,
    lines: Sequence[str] = (),
) -> TargetError:
    """The forward pass raised, and other made-up sizes change what it says.

    `lines` are a function with the input that was given, which may be to blame as well.
    """
    how = "with made-up arguments, which may not fit each other" if made_up else "as it is made"
    made_up = with_gaps(thing, by_name(thing, made_up), error)
    steps = [command(label, made_up), said(thing, label, made_up)]
    if lines and not any(True for _ in gaps_in(made_up)):
        again = f"vaedoctor check {_place(label)}:make_vae --input data.py:one_batch"
        steps += ["the input is made up too; where that is to blame, in data.py:"]
        steps += ["\n".join(lines), again]
    return TargetError(
        f"`{name_of(thing)}{signature_text(thing)}` does not run {how}: {summary(error)}",
        traceback=user_traceback(error),
        next_step="\n\n".join(steps),
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
    nested = any(True for v in made.values() if not isinstance(v, Gap) for _ in gaps_in(v))
    written = nested or classes_written(dict(made))
    forms = [_how_to_fill(made)] if written else [_how_to_fill(made), configuration(label, made)]
    return "\n\n".join([*forms, factory(thing, label, made)])


def command(label: str, made: Mapping[str, Any]) -> str:
    """The command with every argument, or with the factory where one cannot be typed."""
    nested = any(True for v in made.values() if not isinstance(v, Gap) for _ in gaps_in(v))
    if nested or classes_written(dict(made)):
        return f"vaedoctor check {_place(label)}:make_vae   (the factory below)"
    return f"vaedoctor check {label} {arguments(made)}"


def _how_to_fill(made: Mapping[str, Any]) -> str:
    if any(True for _ in gaps_in(dict(made))):
        return "`VALUE` and `...` stand for what cannot be made up; the rest is made up:"
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


def _place(label: str) -> str:
    place = label.rpartition(":")[0]
    return place if place.endswith(".py") else "make_vae.py"


def factory(thing: Callable[..., Any], label: str, made: Mapping[str, Any]) -> str:
    """A function that makes the model: at the end of the user's file, or in one of its own."""
    name, place = name_of(thing), label.rpartition(":")[0]
    own = str(getattr(thing, "__module__", "")) if place.endswith(".py") else ""
    lines = [*_classes(made), *_function(thing, own, made)]
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


def _classes(made: Mapping[str, Any]) -> list[str]:
    """The classes that stand in for the user's own parts, with what they need."""
    kinds: list[Any] = classes_written(dict(made))
    if not kinds:
        return []
    bases = {f"from {k.base.__module__} import {k.base.__name__}" for k in kinds if k.base}
    spaces = any("SimpleNamespace" in k.text for k in kinds)
    more = ["from types import SimpleNamespace"] if spaces else []
    of_torch = ["from torch import nn"] if any("nn." in k.text for k in kinds) else []
    imports = [*more, *sorted(bases), *of_torch]
    return [*imports, "", *(line for k in kinds for line in (*k.text.splitlines(), ""))]


def _function(thing: Callable[..., Any], own: str, made: Mapping[str, Any]) -> list[str]:
    """The lines of the factory; one for each argument where something is to be filled in."""
    told = [g.about for g in gaps_in(dict(made))]
    spoken = {f"import {m}" for m in ("numpy", "torch") if any(f"{m}." in t for t in told)}
    named = sorted({*imports_for(dict(made), own), *spoken})
    name, imports = name_of(thing), [f"    {i}" for i in named]
    lines = ["def make_vae():", *imports]
    if not any(True for _ in gaps_in(dict(made))):
        given = ", ".join(f"{k}={expression(v)}" for k, v in made.items())
        return [*lines, f"    return {name}({given})"]
    lines.append(f"    return {name}(")
    for key, value in made.items():
        lines += [f"        {c}" for c in comments(thing, key, list(gaps_in(value)))]
        about = "; ".join(g.about for g in gaps_in(value) if g.about)
        about = about or _STANDS_IN * (isinstance(value, Call) and stands_in(value))
        lines.append(f"        {key}={expression(value)}," + (f"  # {about}" if about else ""))
    return [*lines, "    )"]


def _key(name: str) -> str:
    return name if name.isascii() else json.dumps(name)


def _toml(value: Any) -> str:
    """A value in TOML; what TOML does not know is written as Python, in a string."""
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
