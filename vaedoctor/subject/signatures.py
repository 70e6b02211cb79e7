"""What a class, function or method takes."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Mapping
from typing import Any


def signature_of(thing: Callable[..., Any]) -> inspect.Signature:
    """The signature, or an empty one where Python cannot tell."""
    try:
        return inspect.signature(thing)
    except (TypeError, ValueError):
        return inspect.Signature()


def signature_text(thing: Callable[..., Any]) -> str:
    """`(input_dim, latent_dim=16)`, shortened to one line."""
    text = str(signature_of(thing))
    return text if len(text) <= 200 else text[:197] + "..."


def by_name(thing: Callable[..., Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments by the names that a call says, those of `**kwargs` among them."""
    parameters = signature_of(thing).parameters
    found: dict[str, Any] = {}
    for name, value in values.items():
        spare = name in parameters and parameters[name].kind is inspect.Parameter.VAR_KEYWORD
        found |= value if spare and isinstance(value, dict) else {name: value}
    return found


def required(signature: inspect.Signature) -> list[inspect.Parameter]:
    """The parameters that must be given."""
    return [
        p
        for p in signature.parameters.values()
        if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
    ]


def defaults_of(thing: Callable[..., Any]) -> dict[str, Any]:
    """The parameters' default values by name."""
    parameters = signature_of(thing).parameters.values()
    return {p.name: p.default for p in parameters if p.default is not p.empty}


def annotations_of(thing: Callable[..., Any]) -> dict[str, Any]:
    """The annotations, evaluated where that is possible."""
    try:
        return typing.get_type_hints(vars(thing)["__init__"] if isinstance(thing, type) else thing)
    except Exception:
        return {}


def name_of(thing: Any) -> str:
    """The name of a class or function, or that of an object's class."""
    return str(getattr(thing, "__name__", type(thing).__name__))
