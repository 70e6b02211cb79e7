"""Codes that are looked up and not decoded: x_hat is made without x, in evaluation mode.

In training a codebook that follows the encoder carries x, so that step does not show it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from ...finding import Span
from ...subject.subject import Subject
from ..anatomy.anatomy import EXTREMES, LOOKUPS, Anatomy
from ..anatomy.evaluation import reconstruction_in, returned, run_forward
from ..anatomy.moves import inputs_of
from ..runs.flow import Flow
from ..runs.recording import ESCAPES, Op, Value
from ..sampling.noise import perturbed


@dataclass(frozen=True, slots=True)
class Undecoded:
    """Where the codes are chosen, and where the decoder takes something else."""

    chosen_at: Span | None
    at: Span | None


def undecoded(
    subject: Subject, anatomy: Anatomy, seed: int, rewind: Callable[[], None]
) -> Undecoded | None:
    """Run once, and with another input: x_hat has no way from x and comes out the same.

    None of tokens: another input is made by moving numbers.
    """
    if anatomy.x is None or not anatomy.x.tensor.is_floating_point():
        return None
    whole = not returned(anatomy)
    recording = run_forward(subject, seed=seed, whole=whole)
    rewind()
    other = run_forward(subject, seed=seed, whole=whole, batch=perturbed(subject.batch))
    rewind()
    try:
        if recording.error is not None or other.error is not None:
            return None
        x_hat, twin = (reconstruction_in(run, anatomy) for run in (recording, other))
        if x_hat is None or twin is None:
            return None
        flow = Flow(recording)
        behind = flow.ancestors(x_hat)
        chosen = [op for op in recording.ops if _chooses(flow, op)]
        out = any(op.name in ESCAPES for op in recording.ops[: recording.forward_end])
        if not chosen or out or any(v.index in behind for v in inputs_of(recording)):
            return None
        if twin.shape != x_hat.shape or not torch.equal(twin.tensor, x_hat.tensor):
            return None
        return Undecoded(chosen[0].span, _called_at(subject.model, flow, x_hat))
    finally:
        recording.release()
        other.release()


def _chooses(flow: Flow, op: Op) -> bool:
    """Whether an operation looks a code up, or rounds, by what the encoder made."""
    named = op.name in LOOKUPS or op.name in EXTREMES
    return named and bool(op.makes) and any(flow.posterior(v) for v in op.reads)


def _called_at(model: nn.Module, flow: Flow, x_hat: Value) -> Span | None:
    """Where forward calls what makes x_hat: the first layer behind it, or its last operation."""
    forward = getattr(getattr(type(model), "forward", None), "__code__", None)
    behind = flow.ancestors(x_hat)
    made = (op for op in flow.recording.ops if op.makes and op.out.index in behind)
    op = next((op for op in made if flow.layer(op)), x_hat.op)
    if op is None:
        return None
    frame = next((f for f in op.frames if f.code is forward), None)
    return frame.span if frame is not None else op.span
