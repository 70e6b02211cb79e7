"""Conditions in whose place one half of a model is given a constant of their shape."""

from __future__ import annotations

from collections.abc import Callable, Set
from dataclasses import dataclass

from torch import Tensor

from ...subject.subject import Subject
from ..anatomy.anatomy import Anatomy
from ..anatomy.decoders import predictions
from ..runs.flow import JOINS, RESHAPES
from ..runs.recording import Op, Value
from ..runs.step import run_recorded

_LIKE = frozenset("zeros_like ones_like full_like".split())
_SHAPED = frozenset("zeros ones full new_zeros new_ones new_full".split())
_OTHER_SEEDS = 3  # a condition that is left out at random, for guidance, is there in one of them


@dataclass(frozen=True, slots=True)
class Blank:
    """What makes the constant, and which half reads it: the decoder, or the encoder."""

    op: Op
    half: str


def blanked(
    subject: Subject, anatomy: Anatomy, value: Value, seed: int, rewind: Callable[[], None]
) -> Blank | None:
    """What makes the constant: `y = torch.zeros_like(y)` where a decoder then reads `y`.

    The condition itself reaches the loss, and no reconstruction around the samples; or it reaches
    those and no sample. A state that begins with zeros is in a recurrent layer, and is none.
    """
    flow, loss = anatomy.flow, anatomy.recording.loss
    end = anatomy.recording.value_of(loss) if isinstance(loss, Tensor) else None
    made = predictions(anatomy)
    if end is None or not made or not anatomy.sampled:
        return None
    samples = [latent.z for latent in anatomy.sampled]
    ahead = flow.descendants(value)
    if end.index not in ahead:
        return None
    decoded, encoded = flow.ancestors(*made, stop=samples), flow.ancestors(*samples)
    drawn = flow.descendants(*samples)
    if value.index not in decoded:
        half, within, partners, other = "decoder", decoded, drawn, flow.ancestors(end)
    elif value.index not in encoded:
        data = {v.index for v in flow.recording.values if flow.data[v.index]}
        half, within, partners, other = "encoder", encoded, frozenset(data - ahead), decoded
    else:
        return None
    joined = _joined(flow.recording.ops, ahead & other)
    for op in flow.recording.ops:
        if not op.makes or op.out.index not in within or flow.data[op.out.index]:
            continue
        shaped = op.name in _LIKE and any(v.index in ahead for v in op.shapes)
        shaped |= op.name in _SHAPED and op.out.shape in joined and _once(flow.recording.ops, op)
        if shaped and _beside(anatomy, op, partners) and _always(subject, op, seed, rewind):
            return Blank(op, half)
    return None


def _joined(ops: list[Op], ahead: Set[int]) -> set[tuple[int, ...]]:
    """The shapes in which a condition is joined to something else, over rows and features."""
    known = {v.shape for o in ops if o.name in JOINS for v in o.reads if v.index in ahead}
    return {shape for shape in known if len(shape) > 1}


def _once(ops: list[Op], op: Op) -> bool:
    """Whether the line of a constant runs once, and not at the begin of each of several walks."""
    return sum(o.name == op.name and o.span == op.span for o in ops) == 1


def _beside(anatomy: Anatomy, op: Op, partners: Set[int]) -> bool:
    """Whether a constant is joined to a sample, or to data, before a layer reads both."""
    flow = anatomy.flow
    chain = JOINS | RESHAPES
    held = {v.index for v in flow.onward(op.out, past=lambda o: o.name in chain)}
    joined = [o for o in flow.recording.ops if o.name in JOINS]
    return any(
        any(v.index in held and v.index not in partners for v in o.reads)
        and any(v.index in partners for v in o.reads)
        for o in joined
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
