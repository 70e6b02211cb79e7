"""Constants of the user's file that are called like a parameter nobody gave."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Mapping, Sequence
from typing import Any

_LARGEST = 100_000


def constants_for(name: str, annotation: Any, namespace: Mapping[str, Any]) -> list[Any]:
    """What the file itself calls `latent_dim` or `LATENT_DIM`, for a parameter `latent_dim`.

    Code that reads the constant where the parameter is meant runs with this value only.
    """
    found = []
    for key in dict.fromkeys((name, name.upper())):
        value = namespace.get(key)
        if _is_setting(value) and _suits(value, annotation) and value not in found:
            found.append(value)
    return found


def _is_setting(value: Any) -> bool:
    if type(value) in (list, tuple):
        return bool(value) and all(type(v) in (int, float, str) for v in value)
    if type(value) is int:
        return 0 <= value <= _LARGEST
    return type(value) in (float, str)


def _suits(value: Any, annotation: Any) -> bool:
    """Whether a value is what an annotation asks for; none asks for anything."""
    if annotation is inspect.Parameter.empty or annotation is Any:
        return True
    if annotation in (int, float, str):
        return type(value) is annotation or (annotation is float and type(value) is int)
    origin = typing.get_origin(annotation) or annotation
    if isinstance(origin, type) and issubclass(origin, Sequence):
        return isinstance(value, list | tuple)
    return any(_suits(value, inner) for inner in typing.get_args(annotation) if inner)
