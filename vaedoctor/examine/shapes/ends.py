"""The last steps of a series that a loss leaves out of x_hat and of its target alike."""

from __future__ import annotations

from collections.abc import Set

import torch

from ..anatomy.anatomy import Anatomy
from ..anatomy.moves import inputs_of
from ..anatomy.reconstruction import compared_values
from ..runs.flow import RESHAPES, SLICES, Flow
from ..runs.recording import Op, Value


def shortened(anatomy: Anatomy) -> tuple[tuple[int, ...], int, Op] | None:
    """The last steps that are cut off before the two are compared, of how many, and where.

    One of the two starts a step later where a step predicts the next one.
    """
    recording, flow = anatomy.recording, anatomy.flow
    inputs = {v.index for v in inputs_of(recording)}
    samples = [latent.z for latent in anatomy.sampled]
    for made, op in compared_values(recording, flow, samples) if samples else ():
        if made.op is None or made.op.name not in SLICES:
            continue
        decoded = flow.parents(made)[0]
        for read in op.reads:
            target, whole = _part(flow, read, inputs)
            if whole is None or len(decoded.shape) != 3 or decoded.shape[:2] != whole.shape[:2]:
                continue
            alike = len(made.shape) == 3 and made.shape[:2] == target.shape[:2]
            if alike and _from_the_start(made, decoded) and _from_the_start(target, whole):
                steps = decoded.shape[1]
                return tuple(range(made.shape[1], steps)), steps, op
    return None


def unshifted(anatomy: Anatomy, value: Value, axis: int, missing: list[int]) -> bool:
    """Whether these are the last steps of a series that is compared whole, step by step.

    Steps that are alike in every row are padding; and a decoder that is shown steps of the input
    itself may be asked for the others.
    """
    x, flow, samples = anatomy.x, anatomy.flow, [latent.z for latent in anatomy.sampled]
    if x is None or not samples or axis != 1 or len(x.shape) != 3 or x.shape != value.shape:
        return False
    if 0 in missing or x.shape[1] - 1 not in missing or not x.tensor.is_floating_point():
        return False
    left_out = x.tensor.detach()[:, missing]
    padding = bool((left_out == left_out[:1]).all())
    if padding or x.index in flow.ancestors(value, stop=samples):
        return False
    met = [op for made, op in compared_values(anatomy.recording, flow, samples) if made is value]
    return any(
        v.shape == x.shape and torch.equal(v.tensor, x.tensor) for op in met for v in op.reads
    )


def _part(flow: Flow, value: Value, inputs: Set[int]) -> tuple[Value, Value | None]:
    """The slice of an input that a value is, and that input; None where it is none."""
    while value.op is not None and value.op.name in RESHAPES:
        value = flow.parents(value)[0]
    if value.op is None or value.op.name not in SLICES:
        return value, None
    whole = flow.parents(value)[0]
    return value, whole if whole.index in inputs else None


def _from_the_start(part: Value, whole: Value) -> bool:
    """Whether a part is what is left of a series whose last steps alone are cut off."""
    a, b = part.tensor, whole.tensor
    same = a.untyped_storage().data_ptr() == b.untyped_storage().data_ptr()
    return same and a.storage_offset() == b.storage_offset() and a.shape[1] < b.shape[1]
