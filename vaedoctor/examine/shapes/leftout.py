"""Where a loss leaves out a part of the reconstruction."""

from __future__ import annotations

import torch
from torch import Tensor

from ..anatomy.anatomy import Anatomy
from ..runs.flow import SLICES
from ..runs.recording import Op, Value


def touched(gradient: Tensor) -> list[Tensor]:
    """For each axis after the first, which of its slices hold a gradient that is not 0."""
    alive = gradient != 0
    return [alive.movedim(a, 0).flatten(1).any(1) for a in range(1, gradient.dim())]


def reader(anatomy: Anatomy, value: Value, axis: int, missing: list[int]) -> Op | None:
    """The operation that leaves something of x_hat out, or reads it next to that; else the first.

    Where the loss reads everything, it is the slice of what it makes of that: `nll[:, 1:]`.
    """
    end = anatomy.recording.forward_end
    readers = anatomy.flow.consumers.get(value.index, [])
    readers = [op for op in readers if op.index >= end] or readers
    for beside in (missing[0] - 1, missing[-1] + 1):
        for op in reversed(readers):
            read = _columns_read(op, value, axis)
            if read and beside in read and not read.intersection(missing):
                return op
    first = next(iter(readers), None)
    later = _sliced_off(anatomy, value, axis, set(missing)) if first is not None else None
    return later or first


def _sliced_off(anatomy: Anatomy, value: Value, axis: int, missing: set[int]) -> Op | None:
    """The first slice whose operand knows what is left out, and which does not itself."""
    flow, loss = anatomy.flow, anatomy.recording.loss
    end = anatomy.recording.value_of(loss) if isinstance(loss, Tensor) else None
    if end is None:
        return None
    way = flow.descendants(value) & flow.ancestors(end) - {value.index}
    for op in flow.recording.ops:
        if op.name not in SLICES or not op.makes or not {op.out.index, op.reads[0].index} <= way:
            continue
        made = op.reads[0].op
        if made is not None and missing <= _columns_read(made, value, axis):
            read = _columns_read(op, value, axis)
            if read and not read & missing:
                return op
    return None


def _columns_read(op: Op, value: Value, axis: int) -> set[int]:
    """Which slices of a value an operation reads."""
    made = op.out.tensor if op.makes else None
    if made is None or value.edge is None or not made.requires_grad:
        return set()
    (found,) = torch.autograd.grad(made.sum(), [value.edge], allow_unused=True, retain_graph=True)
    if found is None:
        return set()
    return set(touched(found)[axis - 1].nonzero().flatten().tolist())
