"""Made-up values: how they are made, and how the user would write them."""

from __future__ import annotations

import enum
import shlex
import types
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch

WRITTEN = "make_vae"  # the module of a class that the factory brings with it
GAP = "VALUE"  # what is to be filled in, where no Python stands
MARK = "# <-- "  # behind what may be filled in or corrected


@dataclass(frozen=True, slots=True)
class Call:
    """A value that is made by calling something: `Encoder(input_dim=37)`.

    It is made anew for each model, so that two models never share a component. What stands under a
    number is given by position: `nn.Sequential(nn.Flatten(), ...)`.
    """

    thing: Callable[..., Any]
    values: Mapping[Any, Any]

    def made(self) -> Any:
        """The value; raises what the callable raises."""
        given = {k: realised(v) for k, v in self.values.items()}
        places = [v for k, v in given.items() if isinstance(k, int)]
        return self.thing(*places, **{k: v for k, v in given.items() if not isinstance(k, int)})


@dataclass(frozen=True, slots=True)
class Gap:
    """A value that nobody can make up, with what is known about it.

    `about` are its type and use in a few words, `said` is what a docstring says, and `like` are
    objects that may be meant, or their classes.
    """

    about: str
    said: str = ""
    like: tuple[Call | type, ...] = ()


@dataclass(frozen=True, slots=True)
class Typed:
    """A value as the user typed it: `--arg widths=[8,8]`."""

    text: str
    value: Any


def gaps_in(value: Any) -> Iterator[Gap]:
    """The gaps in made-up values."""
    if isinstance(value, Gap):
        yield value
    elif isinstance(value, Call):
        yield from gaps_in(dict(value.values))
    elif isinstance(value, dict | list | tuple):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from gaps_in(inner)


def namespace_of(values: Mapping[str, Any]) -> Call:
    """An object with attributes, for `args`, `opt`, `hparams` and their like."""
    return Call(types.SimpleNamespace, values)


def realised(value: Any) -> Any:
    """A made-up value as the constructor gets it: calls inside it are made."""
    if isinstance(value, Call):
        return value.made()
    if type(value) in (list, tuple):
        return type(value)(realised(v) for v in value)
    if type(value) is dict:
        return {k: realised(v) for k, v in value.items()}
    return value


def arguments(values: Mapping[str, Any]) -> str:
    """`--arg latent_dim=7 --arg 'dims=[29,31]'`, ready for the shell."""
    return " ".join(f"--arg {shlex.quote(f'{k}={spelled(v)}')}" for k, v in values.items())


def spelled(value: Any) -> str:
    """A value as it is typed after `--arg name=`."""
    if isinstance(value, Gap):
        return GAP
    if isinstance(value, Typed):
        return value.text
    if isinstance(value, str) and not _reads_as_something_else(value):
        return value
    return expression(value)


def expression(value: Any) -> str:
    """A value as Python, without spaces after commas."""
    if isinstance(value, Call):
        inside = ",".join(
            expression(v) if isinstance(k, int) else f"{k}={expression(v)}"
            for k, v in value.values.items()
        )
        return f"{_name(value.thing)}({inside})"
    if isinstance(value, Gap):
        return "..."
    if isinstance(value, Typed):
        return repr(value.value) if isinstance(value.value, str) else value.text
    if type(value) is list:
        return f"[{','.join(map(expression, value))}]"
    if type(value) is tuple:
        return f"({','.join(map(expression, value))}{',' * (len(value) == 1)})"
    if type(value) is dict:
        return "{" + ",".join(f"{k!r}:{expression(v)}" for k, v in value.items()) + "}"
    if isinstance(value, enum.Enum):
        return f"{type(value).__name__}.{value.name}"
    if isinstance(value, torch.device):
        return f"torch.device({str(value)!r})"
    if isinstance(value, type):
        return _name(value)
    if isinstance(value, torch.Tensor):
        return f"torch.tensor({value.tolist()})".replace(", ", ",")
    return repr(value).replace(", ", ",")


def imports_for(value: Any, own: str = "") -> list[str]:
    """The import statements that an expression needs beyond its own module."""
    found: dict[str, None] = {}
    for thing in _named(value):
        module = str(getattr(thing, "__module__", "") or "")
        if _name(thing).startswith("nn."):
            found["from torch import nn"] = None
        elif _name(thing).startswith("torch.") or thing is torch.device:
            found["import torch"] = None
        elif module not in {own, "builtins", WRITTEN}:
            found[f"from {module} import {_name(thing)}"] = None
    return sorted(found)


def classes_written(value: Any) -> list[type]:
    """The classes among made-up values that the factory brings with it."""
    named = (thing for thing in _named(value) if isinstance(thing, type))
    return list(dict.fromkeys(k for k in named if k.__module__ == WRITTEN))


def _named(value: Any) -> Iterator[Any]:
    """The classes and functions that an expression names, or that may stand in a gap."""
    if isinstance(value, Gap):
        yield from _named(list(value.like))
    elif isinstance(value, Call):
        yield value.thing
        yield from _named(list(value.values.values()))
    elif isinstance(value, dict):
        yield from _named(list(value.values()))
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _named(inner)
    elif isinstance(value, type):
        yield value
    elif isinstance(value, enum.Enum | torch.device):
        yield type(value)


def _reads_as_something_else(text: str) -> bool:
    """Whether a bare text would be read as a number, a list, or a name such as `None`."""
    return not text.isidentifier() or text in {"None", "True", "False", "nn", "torch"}


def _name(thing: Any) -> str:
    module = str(getattr(thing, "__module__", "") or "")
    name = str(getattr(thing, "__qualname__", getattr(thing, "__name__", thing)))
    if module.startswith("torch.nn"):
        return f"nn.{name}"
    bare = str(getattr(thing, "__name__", name))
    return f"torch.{bare}" if getattr(torch, bare, None) is thing else name
