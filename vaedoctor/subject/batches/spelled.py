"""A batch written as a function, to be corrected where it does not fit and handed back.

Every argument has a line of its own, with what the docstring says about it; an arrow points at
those that the exception is about.
"""

from __future__ import annotations

import types
from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ..construct.marks import documented
from ..trials.trial import forward_parameters

_MARK = "  # <-- your own"
_INDENT = "    "


def as_function(
    model: nn.Module,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    blamed: Collection[str] = (),
) -> list[str]:
    """The lines of a module with `one_batch`, which returns what `forward` was given.

    `blamed` are the names of the arguments that are to be corrected.
    """
    given = _by_parameter(model, args, kwargs)
    lines = ["from types import SimpleNamespace", ""] if _has_objects(given) else []
    lines += ["import torch", "", "", "def one_batch():"]
    for name, value in given.items():
        if said := " ".join(documented(type(model).forward, name).split()):
            lines.append(f"{_INDENT}# {name}: {said}"[:100].rstrip())
        first, *rest = f"{_INDENT}{name} = {expression(value)}".split("\n")
        mark = _MARK if name in blamed or "..." in first else ""
        lines += [first + mark, *rest]
    return [*lines, f"{_INDENT}return {_returned(given, kwargs)}"]


def _by_parameter(
    model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> dict[str, Any]:
    """What each parameter of forward was given; `...` for those that must be and were not."""
    parameters = forward_parameters(model)
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
    """Alone, in order, or by name where a name was left out."""
    if kwargs:
        return "{" + ", ".join(f'"{n}": {n}' for n in given) + "}"
    return ", ".join(given)


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
