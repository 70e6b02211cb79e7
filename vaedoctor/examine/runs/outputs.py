"""The tensors a forward pass returned or left on the model, with the names users know them by."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

from torch import Tensor, nn

from .recording import Recording, Value


@dataclass(frozen=True, slots=True)
class Output:
    """One tensor of the model's output: its path in the structure ("[1]", "mu", "q.loc")."""

    name: str
    value: Value


def outputs_of(recording: Recording) -> list[Output]:
    """Every recorded tensor in the forward pass's output, in order."""
    found = []
    for name, tensor in named_tensors(recording.output):
        value = recording.value_of(tensor)
        if value is not None:
            found.append(Output(name, value))
    return found


def named_tensors(thing: Any, name: str = "", depth: int = 6) -> Iterator[tuple[str, Tensor]]:
    """Tensors inside tuples, lists, dicts, dataclasses, distributions and plain objects."""
    if isinstance(thing, Tensor):
        yield name or "output", thing
    elif depth == 0 or thing is None or isinstance(thing, (str, bytes, int, float, nn.Module)):
        return
    elif isinstance(thing, Mapping):
        for key, item in thing.items():
            yield from named_tensors(item, _join(name, str(key)), depth - 1)
    elif isinstance(thing, tuple) and hasattr(thing, "_fields"):
        for key, item in zip(thing._fields, thing, strict=True):
            yield from named_tensors(item, _join(name, key), depth - 1)
    elif isinstance(thing, (list, tuple)):
        for i, item in enumerate(thing):
            yield from named_tensors(item, f"{name}[{i}]", depth - 1)
    elif is_dataclass(thing) and not isinstance(thing, type):
        for f in fields(thing):
            yield from named_tensors(getattr(thing, f.name, None), _join(name, f.name), depth - 1)
    elif hasattr(thing, "__dict__") and not isinstance(thing, type):
        for key, item in vars(thing).items():
            yield from named_tensors(item, _join(name, key), depth - 1)


def _join(name: str, key: str) -> str:
    return f"{name}.{key}" if name else key
