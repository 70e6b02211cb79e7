"""A batch written as a function, to be corrected where it does not fit and handed back.

Every argument has a line of its own, with what the docstring says about it; each is marked as a
place to be corrected, and those that the exception is about as the user's own.
"""

from __future__ import annotations

import inspect
import textwrap
import types
from collections.abc import Callable, Collection, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ..trials.trial import forward_parameters
from .making import MARK
from .marks import documented

_OWN = f"  {MARK}your own"
_MADE = f"  {MARK}made up"
_INDENT = "    "
_WIDTH = 96
_MOST_SAID = 400
_EMPTY = inspect.Parameter.empty


def as_function(
    model: nn.Module,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    blamed: Collection[str] = (),
) -> list[str]:
    """The lines of a module with `one_batch`, which returns what `forward` was given.

    `blamed` are the names of the arguments that are to be corrected.
    """
    parameters = forward_parameters(model)
    given = _by_parameter(parameters, args, kwargs)
    forward = type(model).forward
    forward = model.forward if forward is nn.Module.forward else forward  # put together from parts
    return _function(forward, parameters, given, kwargs, blamed)


def to_be_filled(kind: type) -> list[str]:
    """The same for a class of which there is no model yet; nothing where it has no `forward`."""
    forward = getattr(kind, "forward", None)
    if forward is None or forward is nn.Module.forward:
        return []
    try:
        _, *found = inspect.signature(forward).parameters.values()
    except (TypeError, ValueError):
        return []
    parameters = [p for p in found if p.kind is not p.VAR_KEYWORD]
    return _function(forward, parameters, _by_parameter(parameters, (), {}), {}, ())


def _function(
    forward: Callable[..., Any],
    parameters: list[inspect.Parameter],
    given: Mapping[str, Any],
    kwargs: Mapping[str, Any],
    blamed: Collection[str],
) -> list[str]:
    lines = ["from types import SimpleNamespace", ""] if _has_objects(given) else []
    lines += ["import torch", "", "", "def one_batch():", *_what_forward_takes(forward, parameters)]
    for name, value in given.items():
        if said := " ".join(documented(forward, name).split()):
            lines.append(f"{_INDENT}# {name}: {said}"[:100].rstrip())
        mark = _OWN if name in blamed else _MADE
        first, *rest = f"{_INDENT}{name} = {expression(value)}".split("\n")
        inner = [line + _mark(line, mark) * (line.strip() != "}") for line in rest]
        lines += [first + _mark(first, mark), *inner]
    more = [f"{p.name}={p.default!r}" for p in parameters if _is_left(p, given)]
    also = f", which also takes {', '.join(more)}" if more else ""
    spread = any(p.kind is p.VAR_POSITIONAL for p in parameters)
    also += ", which takes any number of them" if spread else ""
    return [*lines, f"{_INDENT}return {_returned(given, kwargs)}  {MARK}as forward takes it{also}"]


def _mark(line: str, mark: str) -> str:
    """The mark of a line; of one with nothing that could be made up, and of no bracket."""
    return _OWN if "..." in line else mark


def _is_left(p: inspect.Parameter, given: Mapping[str, Any]) -> bool:
    return p.name not in given and p.default is not _EMPTY


def _what_forward_takes(
    forward: Callable[..., Any], parameters: list[inspect.Parameter]
) -> list[str]:
    """The signature of forward, and the beginning of its docstring, as comments."""
    said = f"forward({', '.join(map(str, parameters))})"
    text = " ".join(inspect.cleandoc(forward.__doc__ or "").split())
    text = text if len(text) <= _MOST_SAID else f"{text[:_MOST_SAID]} ..."
    first, then = f"{_INDENT}# ", f"{_INDENT}#   "
    return [
        line
        for one in (said, text)
        for line in textwrap.wrap(one, _WIDTH, initial_indent=first, subsequent_indent=then)
    ]


def _by_parameter(
    parameters: list[inspect.Parameter], args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> dict[str, Any]:
    """What each parameter of forward was given; `...` for those that must be and were not."""
    given: dict[str, Any] = {}
    for place, p in enumerate(parameters):
        if p.kind is p.VAR_POSITIONAL:
            given |= {f"{p.name}_{i}": a for i, a in enumerate(args[place:])}
            break
        if place < len(args):
            given[p.name] = args[place]
        elif p.default is p.empty and p.name not in kwargs:
            given[p.name] = ...
    return (given | dict(kwargs)) or {"x": ...}


def _returned(given: Mapping[str, Any], kwargs: Mapping[str, Any]) -> str:
    """In order, or by name where a name was left out; a list alone is no list of arguments."""
    if kwargs:
        return "{" + ", ".join(f'"{n}": {n}' for n in given) + "}"
    return ", ".join(given) if len(given) > 1 else f"({next(iter(given))},)"


def _has_objects(value: Any) -> bool:
    if isinstance(value, types.SimpleNamespace):
        return True
    inside = value.values() if isinstance(value, Mapping) else value
    return isinstance(value, Mapping | list | tuple) and any(map(_has_objects, inside))


def expression(value: Any) -> str:
    """A made-up argument as Python: a tensor of the same shape and kind; `...` for what is none."""
    match value:
        case Tensor():
            return _tensor(value)
        case torch.device():
            return f'torch.device("{value}")'
        case bool() | int() | float() | str() | None | torch.dtype():
            return str(value) if isinstance(value, torch.dtype) else repr(value)
        case types.SimpleNamespace():
            inside = ", ".join(f"{k}={expression(v)}" for k, v in vars(value).items())
            return f"SimpleNamespace({inside})"
        case dict() if value:
            entries = (f"{_INDENT * 2}{k!r}: {expression(v)}," for k, v in value.items())
            return "\n".join(["{", *entries, f"{_INDENT}}}"])
        case list() | tuple() if value:
            inside = ", ".join(map(expression, value))
            return f"[{inside}]" if isinstance(value, list) else f"({inside},)"
    return "..."


def _tensor(value: Tensor) -> str:
    sides = ", ".join(map(str, value.shape))
    if value.dtype is torch.bool:
        return f"torch.ones({sides}, dtype=torch.bool)"
    if value.is_complex():
        return f"torch.rand({sides}, dtype={value.dtype})"
    if not value.is_floating_point():
        top = int(value.max()) + 1 if value.numel() else 2
        return f"torch.randint({top}, ({sides}{',' * (value.dim() == 1)}))"
    if value.dim() and bool((value == value.round()).all()):  # one-hot rows, zeros and ones, counts
        return f"torch.randint({int(value.max()) + 1}, ({sides}{',' * (value.dim() == 1)})).float()"
    return f"torch.rand({sides})"
