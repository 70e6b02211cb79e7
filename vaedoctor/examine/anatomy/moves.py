"""The batch's tensors in a run, and the values that only move, cut or join others."""

from __future__ import annotations

from torch import Tensor

from ..runs.flow import CUTS, JOINS, RESHAPES, SLICES, Flow
from ..runs.recording import Recording, Value
from .latents import MULS

CLASSES = frozenset({"argmax", "long", "int"})
"""Operations that make the numbers of classes of an input that holds them otherwise."""


def inputs_of(recording: Recording) -> list[Value]:
    """The batch's tensors, in the order in which the run met them."""
    return [v for v in recording.values if v.source == "input" and v.op is None]


def only_moved(flow: Flow, value: Value, raw: set[int]) -> bool:
    """Whether a value is one of the given (an input, say), or one only reshaped or sliced."""
    return moved_from(flow, value, raw) is not None


def moved_from(flow: Flow, value: Value, raw: set[int]) -> Value | None:
    """Which of the given a value only moves, masks or numbers; None where it does more."""
    while value.index not in raw and value.op is not None:
        op = value.op
        if op.name in RESHAPES | SLICES | CLASSES:
            value = flow.parents(value)[0]
        elif op.name in MULS and len(op.reads) == 2 and all(r.index in raw for r in op.reads):
            value, other = sorted(op.reads, key=lambda r: is_binary(r.tensor))
            if not is_binary(other.tensor):
                return None
        else:
            return None
    return value if value.index in raw else None


def is_binary(tensor: Tensor) -> bool:
    """Whether all entries are 0 or 1, as those of a mask."""
    return bool(((tensor == 0) | (tensor == 1)).all())


def fed_by(flow: Flow, value: Value) -> list[Value]:
    """What a value is put together from by moving and joining alone: `cat([mu, logvar])`."""
    waiting, found = [value], []
    while waiting:
        value = waiting.pop(0)
        op = value.op
        if op is not None and op.name in RESHAPES | JOINS | CUTS:
            waiting.extend(flow.parents(value))
        found.append(value)
    return found
