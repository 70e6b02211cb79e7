"""An optional argument that the model needs after all: without it an attribute is never set."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Mapping
from typing import Any

from torch import nn

from ..code.signatures import annotations_of, signature_of
from ..trials.witness import calls_none, user_frame
from .inventing import Inventor
from .making import Call
from .proposing import said_in
from .reading import uses_of
from .sizes import Sizes

_EMPTY = inspect.Parameter.empty


def given_too(
    built: Any, error: BaseException | None, namespace: Mapping[str, Any]
) -> Iterator[dict[str, Any]]:
    """The made-up values with an optional argument, whose lack a module's attribute tells."""
    lacks = _lacks(error) or _asked(built, error)
    if lacks is None:
        return
    kind, name = lacks
    parameter = signature_of(kind).parameters.get(name)
    if parameter is None or parameter.default is not None:
        return
    inventor = Inventor(Sizes(), namespace)
    use = uses_of(kind, namespace).get(name)
    values = dict(built.made_up)
    for option in inventor.choices(name, annotations_of(kind).get(name, _EMPTY), use):
        own: Any = {**values, name: option}
        inside = kind is not type(built.model)
        changed = _given_inside(values, kind, name, option) if inside else own
        if changed != values and (inside or name not in values):
            yield changed


def calls_what_nobody_gave(model: nn.Module, error: BaseException | None) -> bool:
    """Whether a part was called that is None, as it is unless the constructor is given one."""
    none = calls_none(error) or (isinstance(error, AttributeError) and error.obj is None)
    lacks = _lacks(error) if none else None
    if lacks is None or lacks[0] is not type(model):
        return False
    parameter = signature_of(lacks[0]).parameters.get(lacks[1])
    return parameter is not None and parameter.default is None


def _lacks(error: BaseException | None) -> tuple[type, str] | None:
    """The class and the name of a module's attribute that is not there, or None and called."""
    if isinstance(error, AttributeError) and isinstance(error.obj, nn.Module):
        return type(error.obj), str(error.name)
    frame = user_frame(error)
    if frame is None:
        return None
    held = frame[0].f_locals.get("self")
    if calls_none(error):
        called = re.findall(r"\bself\.(\w+)\(", frame[1])
    elif isinstance(error, AttributeError) and error.obj is None:
        called = re.findall(rf"\bself\.(\w+)\.{error.name}\b", frame[1])
    else:
        return None
    unset = [n for n in called if getattr(held, n, held) is None]
    return (type(held), unset[0]) if isinstance(held, nn.Module) and unset else None


def _asked(built: Any, error: BaseException | None) -> tuple[type, str] | None:
    """The class and the first optional argument that a refusal of its own code asks for."""
    frame = user_frame(error)
    if error is None or frame is None or not frame[1].startswith("raise "):
        return None
    kind = type(built.model)
    unset = [p.name for p in signature_of(kind).parameters.values() if p.default is None]
    named = [n for n in unset if n not in built.made_up and said_in(n, error)]
    return (kind, named[0]) if named else None


def _given_inside(values: Any, kind: type, name: str, option: Any) -> Any:
    if isinstance(values, Call):
        inside = _given_inside(dict(values.values), kind, name, option)
        return Call(values.thing, {name: option, **inside} if values.thing is kind else inside)
    if isinstance(values, Mapping):
        return {k: _given_inside(v, kind, name, option) for k, v in values.items()}
    return values
