"""Records of a batch: dataclasses, namespaces and plain objects that hold tensors by name."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn
from torch.distributions import Distribution
from torch.nn.utils.rnn import PackedSequence

_ENTRIES = (Tensor, str, bytes, int, float, complex, list, tuple, Mapping, type(None))


def fields_of(item: Any) -> dict[str, Any] | None:
    """The fields of a record by name; None where it is none.

    A plain object is one where it holds a tensor and nothing but what a record may hold: another
    object's inside may be bound to it.
    """
    if isinstance(item, (*_ENTRIES, type, nn.Module, PackedSequence, Distribution)):
        return None
    if dataclasses.is_dataclass(item):
        return {f.name: getattr(item, f.name, None) for f in dataclasses.fields(item)}
    held = getattr(item, "__dict__", None)
    if not isinstance(held, dict) or not all(isinstance(v, _ENTRIES) for v in held.values()):
        return None
    return dict(held) if any(isinstance(v, Tensor) for v in held.values()) else None


def with_fields(item: Any, change: Callable[[Any], Any]) -> Any:
    """A copy of a record with every field changed; the item itself where it is none."""
    held = fields_of(item)
    if held is None:
        return item
    made = copy.copy(item)
    for name, value in held.items():
        object.__setattr__(made, name, change(value))
    return made
