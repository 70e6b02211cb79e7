"""What a user must fill in: the arguments that an exception is about, and what is known of them."""

from __future__ import annotations

import inspect
import re
import sys
import typing
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from typing import Any

from ..code.signatures import annotations_of, hint_of, signature_of
from ..code.uses import Use
from ..trials.witness import calls_none, user_frame, user_frames
from .making import Call
from .marks import gap
from .proposing import said_in, unset_in
from .reading import uses_of

_MOST_SAID = 4


def with_gaps(
    thing: Callable[..., Any],
    made: Mapping[str, Any],
    error: BaseException,
    *,
    by_lines: bool = True,
) -> dict[str, Any]:
    """The arguments with a gap for each that the exception, or the line that raised it, names."""
    for names in islice(_ways(error), None if by_lines else 1):
        changed = _placed(thing, made, names, error)
        if changed is not None:
            return changed
    return dict(made)


def known(hint: Any, use: Use | None) -> str:
    """What is known about an argument, in a few words."""
    parts = [a for a in typing.get_args(hint) if a is not type(None)]
    optional = len(parts) < len(typing.get_args(hint))
    kind = parts[0] if optional and len(parts) == 1 else hint
    said = []
    if kind is not inspect.Parameter.empty and kind is not None:
        bare = isinstance(kind, type) and not typing.get_args(kind)
        said.append(kind.__name__ if bare else re.sub(r"\b(\w+\.)+", "", str(kind)))
    if said == ["ndarray"]:
        said.append("such as numpy.zeros((1, 1))")
    if use is not None:
        read = list(dict.fromkeys([*use.attributes, *use.methods, *map(str, use.keys)]))
        if read:
            more = ", ..." if len(read) > _MOST_SAID else ""
            verb = "is" if len(read) == 1 else "are"
            said.append(f"its {', '.join(read[:_MOST_SAID])}{more} {verb} read")
            if "log_prob" in read:
                said.append("such as torch.distributions.Normal(0.0, 1.0)")
        elif use.called is not None:
            said.append(f"called with {use.called} argument{'s' * (use.called != 1)}")
    return ", ".join(said)


def is_part(use: Use | None) -> bool:
    """Whether a value is called, or its methods are: a part of the model."""
    return use is not None and (use.called is not None or bool(use.methods))


def _ways(error: BaseException) -> Iterator[Callable[[str], bool]]:
    """Ways to tell whether a name is meant: by the message, by the lines, the innermost first."""
    frame = user_frame(error) if calls_none(error) else None
    called = set(re.findall(r"\bself\.(\w+)\(", frame[1])) if frame is not None else set()
    yield lambda name: said_in(name, error) or name in called
    yield unset_in(error).__contains__
    for _, line in user_frames(error):
        words = set(re.findall(r"\w+", line))
        yield words.__contains__


def _placed(
    thing: Callable[..., Any],
    made: Mapping[str, Any],
    is_meant: Callable[[str], bool],
    error: BaseException,
) -> dict[str, Any] | None:
    """The arguments with gaps, also in the fields of made-up objects; None without any."""
    found, hints = dict(made), annotations_of(thing)
    module = sys.modules.get(str(getattr(thing, "__module__", "")))
    uses = uses_of(thing, vars(module) if module is not None else {})
    uncalled = calls_none(error)  # and the next part has not been asked for yet
    for p in signature_of(thing).parameters.values():
        spread = p.kind in (p.VAR_KEYWORD, p.VAR_POSITIONAL)
        value = made.get(p.name)
        if isinstance(value, Call) and isinstance(value.thing, type):
            inside = _placed(value.thing, value.values, is_meant, error)
            if inside is not None:
                found[p.name] = Call(value.thing, inside)
                continue
        unset = p.default is None and p.name not in made
        meant = is_meant(p.name) or (unset and uncalled and is_part(uses.get(p.name)))
        if not spread and meant and (p.name in made or p.default is None):
            frame = user_frame(error)
            line = f"used in `{frame[1]}`" if frame is not None else ""
            hint, use = hint_of(thing, p, hints), uses.get(p.name)
            found[p.name] = gap(thing, p.name, known(hint, use) or line, hint, use, made)
    return found if found != dict(made) else None
