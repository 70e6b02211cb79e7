"""The model in evaluation mode: is the latent that is decoded the location or a sample?"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from ...finding import Span
from ...rule import Unavailable
from ...subject.subject import Subject
from ..anatomy.anatomy import Anatomy
from ..anatomy.evaluation import run_forward
from ..anatomy.heads import Head
from ..anatomy.latents import Latent
from ..gradients.reparameterized import entry_of
from ..runs.flow import JOINS, RESHAPES, SLICES, Flow
from ..runs.gradients import gradient_between
from ..runs.recording import Op, Recording, Value
from ..sampling.decoding import handed_over
from .averages import decodes_mean

SYMMETRIC = frozenset({"gaussian", "laplace"})
"""Families whose sample is the location where the noise is at its centre."""

_MOST = 4  # latents of a hierarchy that are looked at
_ROUNDING = 1e-5  # of the location's slope
_LEAST = 1e-3  # of the location's size: rounding is far below, a scale in the way far above


class _NoGradient(Exception):
    """Autograd refused."""


@dataclass(frozen=True, slots=True)
class EvalLatent:
    """One latent in evaluation mode with all noise at 0.

    `shift` is |z - loc| relative to the location (None where z cannot be compared with loc),
    `by_scale` and `by_loc` whether a gradient reaches the scale and location head.
    """

    latent: Latent
    shift: float | None
    by_scale: float
    by_loc: float
    at: Span | None

    @property
    def finite(self) -> bool:
        """Whether what was compared were numbers."""
        return all(math.isfinite(n) for n in (self.shift or 0.0, self.by_scale, self.by_loc))

    @property
    def consistent(self) -> bool:
        """Whether z is the location when the noise is 0."""
        moved = self.shift is not None and self.shift > _LEAST
        return not moved and self.by_scale == 0 and self.by_loc > 0


def eval_latents(
    subject: Subject, anatomy: Anatomy, seed: int, rewind: Callable[[], None]
) -> list[EvalLatent]:
    """Run training and evaluation mode with still noise and compare what enters the decoder."""
    judged = [
        latent
        for latent in anatomy.sampled
        if latent.family in SYMMETRIC and latent.loc_head and latent.scale_head
    ]
    if not judged:
        raise Unavailable("no Gaussian or Laplace latent with a location and a scale head")
    recording = run_forward(subject, seed=seed, still=True)
    try:
        if recording.error is not None:
            raise Unavailable(f"the model raises in evaluation mode: {recording.error}")
        flow = Flow(recording)
        found = [_compare(anatomy, latent, flow) for latent in judged[:_MOST]]
    finally:
        recording.release()
        rewind()
    seen = [f for f in found if f is not None and f.finite]
    if any(f.by_scale > 0 or f.by_loc == 0 for f in seen):
        train = run_forward(subject, seed=seed, train=True, still=True)
        seen = [f for f in seen if _plays_its_part(anatomy, f, train)]
        rewind()
        seen = [
            f for f in seen if not (f.by_scale and decodes_mean(subject, anatomy, f.latent, seed))
        ]
        rewind()
    if not seen:
        raise Unavailable("the decoder of the training step is not met in evaluation mode")
    return seen


def _compare(anatomy: Anatomy, latent: Latent, evaluated: Flow) -> EvalLatent | None:
    flow, run = anatomy.flow, evaluated.recording
    entry, reader = _decoder(anatomy, latent)
    assert latent.loc_head is not None
    assert latent.scale_head is not None
    loc = _twin_head(flow, latent.loc_head, run)
    scale = _twin_head(flow, latent.scale_head, run)
    taken = _operand(flow, reader, entry, run) if reader is not None else None
    if loc is None or taken is None or _by_other_layers(evaluated, taken, loc, scale):
        return None
    if _meets_a_draw(flow, latent.z, entry):
        return None
    shift = _apart(entry, latent, taken, loc)
    try:
        by_scale, by_loc = _slopes(taken, scale, loc)
    except _NoGradient:
        by_scale, by_loc = 0.0, 1.0
        if shift is None:
            return None
    if not taken.requires_grad:
        if shift is None:
            return None
        by_loc = 1.0 if shift <= _LEAST else 0.0  # detached, and the location all the same
    op = _maker(evaluated, taken, loc, scale)
    at = op.span if op is not None else None
    twin = _twin(flow, reader, run) if reader is not None else None
    if op is not None and twin is not None and _made_in_training_too(flow, op, latent):
        at = handed_over(twin, op)  # a parameter itself is decoded
    return EvalLatent(latent, shift, by_scale, by_loc, at)


def _made_in_training_too(flow: Flow, op: Op, latent: Latent) -> bool:
    """Whether an operation is one of training mode as well, and not the one that samples there."""
    sampling = {o.span for o in (latent.meeting, latent.z.op) if o is not None}
    return op.span not in sampling and any(
        (o.name, o.span) == (op.name, op.span) for o in flow.recording.ops
    )


def _decoder(anatomy: Anatomy, latent: Latent) -> tuple[Value, Op | None]:
    """What a sample is when it enters the decoder, and the operation it enters.

    That is the first layer; where there is none (an inner product), what reads the sample.
    """
    flow = anatomy.flow
    entry = entry_of(flow, latent, anatomy.x_hat)
    reader = next((op for op in flow.consumers.get(entry.index, ()) if flow.layer(op)), None)
    if reader is not None or anatomy.x_hat is None:
        return entry, reader
    behind = flow.ancestors(anatomy.x_hat)
    read = [op for op in flow.consumers.get(latent.z.index, ()) if op.makes]
    read = [op for op in read if op.out.index in behind and op.name not in RESHAPES | SLICES]
    return latent.z, next(iter(read), None)


def _apart(entry: Value, latent: Latent, taken: Value, loc: Value) -> float | None:
    """How far what is decoded is from the location; None where it is not that, or joined to more.

    Conditions that it is concatenated with are left out.
    """
    if latent.loc_head is None or not _unmoved(latent.loc, latent.loc_head.value):
        return None
    values = taken.tensor.detach()
    if not _unmoved(entry, latent.z):
        op = entry.op
        if op is None or op.name not in ("cat", "concat") or values.shape != entry.shape:
            return None
        own = [i for i, v in enumerate(op.reads) if _unmoved(v, latent.z)]
        ends = [v.shape[-1:] for v in op.reads]
        last = sum(n for (n,) in ends if n) if all(ends) else 0
        if len(own) != 1 or last != entry.shape[-1]:  # not along the last axis
            return None
        start = sum(n for (n,) in ends[: own[0]])
        values = values.narrow(-1, start, ends[own[0]][0])
    if values.numel() != loc.tensor.numel():
        return None
    return _shift(values.flatten(), loc.tensor.detach().flatten())


def _shift(taken: Tensor, loc: Tensor) -> float:
    """How far one is from the other, relative to the location; turned axes move no number."""
    difference = min((a - b).abs().max() for a, b in ((taken, loc), (_sorted(taken), _sorted(loc))))
    return float(difference) / (float(loc.abs().max()) or 1.0)


def _sorted(values: Tensor) -> Tensor:
    return values.sort().values


def _maker(flow: Flow, taken: Value, *heads: Value | None) -> Op | None:
    """What made the latent that a layer takes, before it was reshaped or joined to a condition."""
    op = taken.op
    while op is not None and op.name in RESHAPES | JOINS and op.reads:
        known = {h.index for h in heads if h is not None}
        own = [v for v in op.reads if known & flow.ancestors(v)]
        op = (own or op.reads)[0].op
    return op


def _plays_its_part(anatomy: Anatomy, found: EvalLatent, train: Recording) -> bool:
    """Whether in training mode, with the noise at 0, the heads do what they do not in evaluation.

    Where the scale matters in evaluation mode it must not in training, where the location does
    not it must.
    """
    flow, latent = anatomy.flow, found.latent
    entry, reader = _decoder(anatomy, latent)
    if train.error is not None or reader is None:
        return False
    taken = _operand(flow, reader, entry, train)
    loc, scale = (
        _twin_head(flow, h, train) if h else None for h in (latent.loc_head, latent.scale_head)
    )
    if taken is None:
        return False
    if loc is not None and found.shift is not None and found.shift > _LEAST:
        shift = _apart(entry, latent, taken, loc)
        if shift is not None and shift <= _LEAST:
            return True  # there it is the location, whatever that is made of
    try:
        by_scale, by_loc = _slopes(taken, scale, loc)
    except _NoGradient:
        return False
    without_scale = scale is not None and by_scale == 0
    return (found.by_scale == 0 or without_scale) and (found.by_loc > 0 or by_loc > 0)


def _slopes(taken: Value, scale: Value | None, loc: Value | None) -> tuple[float, float]:
    """How strongly scale and location move the latent; a slope of rounding's size is none.

    Laplace noise is made of uniform numbers whose centre is half of float32's rounding off 0.
    """
    by_scale = _size(_gradient(taken, scale)) if scale is not None else 0.0
    by_loc = _size(_gradient(taken, loc)) if loc is not None else 0.0
    return (by_scale if by_scale > _ROUNDING * by_loc else 0.0), by_loc


def _gradient(of: Value, at: Value) -> Tensor | None:
    if of.edge is None or at.edge is None:
        return None
    try:
        (found,) = gradient_between([of], [at])
    except RuntimeError:  # an in-place edit, harmless in evaluation: values tell
        raise _NoGradient from None
    return found


def _size(gradient: Tensor | None) -> float:
    return 0.0 if gradient is None else float(gradient.abs().max())


def _weights(op: Op) -> tuple[str, ...]:
    return tuple(v.name for v in op.reads if v.source == "parameter")


def _twin(flow: Flow, op: Op, run: Recording) -> Op | None:
    """The operation of another run that applies the same weights, and as often before.

    None where a layer that is used again and again is used another number of times there.
    """
    names, recording = _weights(op), flow.recording
    if not names:
        return _at_one_place(op, recording, run)
    end = recording.forward_end if op.index < recording.forward_end else len(recording.ops)
    mine = [o for o in recording.ops[:end] if o.name == op.name and _weights(o) == names]
    theirs = [o for o in run.ops if o.name == op.name and _weights(o) == names]
    if len(mine) == len(theirs):
        return theirs[mine.index(op)]
    return theirs[0] if len(mine) == 1 and theirs else None


def _at_one_place(op: Op, recording: Recording, run: Recording) -> Op | None:
    """The operation of another run at the same expression, reached as often in both."""
    end = recording.forward_end if op.index < recording.forward_end else len(recording.ops)
    mine, theirs = (
        [o for o in ops if (o.name, o.span) == (op.name, op.span)]
        for ops in (recording.ops[:end], run.ops)
    )
    known = op.span is not None and len(mine) == len(theirs)
    return theirs[mine.index(op)] if known else None


def _by_other_layers(flow: Flow, taken: Value, *heads: Value | None) -> bool:
    """Whether other layers make the latent in evaluation mode, as a prior's network does."""
    behind = flow.ancestors(taken)
    return flow.posterior(taken) and not any(h.index in behind for h in heads if h is not None)


def _operand(flow: Flow, op: Op, value: Value, run: Recording) -> Value | None:
    """What an operation's twin reads in the place of a value."""
    twin = _twin(flow, op, run)
    where = next((i for i, v in enumerate(op.reads) if v is value), None)
    if twin is None or where is None or where >= len(twin.reads):
        return None
    return twin.reads[where]


def _twin_head(flow: Flow, head: Head, run: Recording) -> Value | None:
    """The head of another run: its layer's result, cut in the same way."""
    twin = _twin(flow, head.op, run)
    if twin is None:
        return None
    value, way = head.value, []
    while value.op is not None and value.op is not head.op:
        if value.op.name not in SLICES | RESHAPES:
            return None
        way.append((value.op.name, value.op.makes.index(value), str(value.op.args[1:])))
        value = flow.parents(value)[0]
    found = twin.makes[head.op.makes.index(value)] if value in head.op.makes else twin.out
    readers = run.consumers()
    for name, index, args in reversed(way):
        steps = [
            op
            for op in readers.get(found.index, ())
            if op.name == name and str(op.args[1:]) == args and len(op.makes) > index
        ]
        if not steps:
            return None
        found = steps[0].makes[index]
    return found


def _meets_a_draw(flow: Flow, z: Value, entry: Value) -> bool:
    """Whether a sample meets other random numbers before the decoder; at 0 they would hide it."""
    way, values = flow.descendants(z) & flow.ancestors(entry), flow.recording.values
    for op in flow.recording.ops:
        if not op.makes or op.out.index not in way or op.out is z:
            continue
        beside = flow.ancestors(*(v for v in op.reads if v.index not in way))
        if any((made := values[i].op) is not None and made.noise is not None for i in beside):
            return True
    return False


def _unmoved(value: Value | None, origin: Value) -> bool:
    """Whether a value is another only seen in another shape."""
    while value is not None and value is not origin:
        if value.op is None or value.op.name not in RESHAPES or not value.op.reads:
            return False
        value = value.op.reads[0]
    return value is origin
