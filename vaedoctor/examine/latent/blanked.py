"""Conditions in whose place a decoder is given a constant of their shape."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from ...subject.subject import Subject
from ..anatomy.anatomy import Anatomy
from ..anatomy.decoders import predictions
from ..runs.recording import Op, Value
from ..runs.step import run_recorded

_CONSTANTS = frozenset("zeros_like ones_like full_like".split())
_OTHER_SEEDS = 3  # a condition that is left out at random, for guidance, is there in one of them


def blanked(
    subject: Subject, anatomy: Anatomy, value: Value, seed: int, rewind: Callable[[], None]
) -> Op | None:
    """What makes the constant: `y = torch.zeros_like(y)` where a decoder then reads `y`.

    The condition itself reaches the loss, and no reconstruction around the samples. A state that
    begins with zeros is in a recurrent layer, and is none.
    """
    flow, loss = anatomy.flow, anatomy.recording.loss
    end = anatomy.recording.value_of(loss) if isinstance(loss, Tensor) else None
    made = predictions(anatomy)
    if end is None or not made or not anatomy.sampled:
        return None
    samples = [latent.z for latent in anatomy.sampled]
    ahead = flow.descendants(value)
    decoded = flow.ancestors(*made, stop=samples)
    if end.index not in ahead or value.index in decoded:
        return None
    for op in flow.recording.ops:
        if op.name not in _CONSTANTS or not op.makes or op.out.index not in decoded:
            continue
        shaped = any(v.index in ahead for v in op.shapes)
        if shaped and _beside(anatomy, op, samples) and _always(subject, op, seed, rewind):
            return op
    return None


def _beside(anatomy: Anatomy, op: Op, samples: list[Value]) -> bool:
    """Whether a constant is joined to a sample before a layer reads both."""
    flow = anatomy.flow
    drawn = flow.descendants(*samples)
    joined = [o for o in flow.recording.ops if o.name in ("cat", "concat", "concatenate")]
    return any(
        any(v is op.out for v in o.reads) and any(v.index in drawn for v in o.reads) for o in joined
    )


def _always(subject: Subject, op: Op, seed: int, rewind: Callable[[], None]) -> bool:
    """Whether other steps make the constant as well."""
    for other in range(seed + 1, seed + 1 + _OTHER_SEEDS):
        run = run_recorded(subject, seed=other)
        there = any(o.name == op.name and o.span == op.span for o in run.ops)
        run.release()
        rewind()
        if not there:
            return False
    return True
