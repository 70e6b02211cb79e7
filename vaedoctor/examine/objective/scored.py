"""What a loss that takes probabilities, or their logarithms, is given in their place."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ..runs.flow import RESHAPES, Flow
from ..runs.recording import Op, Recording, Value
from .categorical import no_logarithms, probabilities


@dataclass(frozen=True, slots=True)
class Scored:
    """A call that is given the wrong kind of numbers, from `least` to `most`.

    `wants` and `gets` say which; the logarithm of a softmax is what `nll_loss` wants.
    """

    op: Op
    name: str
    wants: str
    gets: str
    cure: str
    least: float
    most: float


def scored(recording: Recording, flow: Flow) -> Iterator[Scored]:
    """Every `nll_loss` of no logarithms, every distribution whose probabilities are none."""
    for op in recording.ops:
        if not op.reads or not op.makes or not flow.posterior(op.reads[0]):
            continue
        given = op.reads[0].tensor.detach()
        if not given.is_floating_point() or not given.numel():
            continue
        ends = float(given.min()), float(given.max())
        if op.name == "nll_loss" and given.dim() > 1:
            if _sums_to_one(given):
                gets, cure = "probabilities", "take `F.log_softmax` in place of the softmax"
                yield Scored(op, op.name, "log-probabilities", gets, cure, *ends)
            elif no_logarithms(given) and _of_a_layer(flow, op.reads[0]):
                gets, cure = "a layer's output", "use `cross_entropy`, or `F.log_softmax` before it"
                yield Scored(op, op.name, "log-probabilities", gets, cure, *ends)
        outside = ends[0] < 0 or ends[1] > 1
        if outside and _as_probabilities(op) and _of_a_layer(flow, op.reads[0]):
            gets, cure = "a layer's output", "pass it by its name: `logits=`"
            yield Scored(op, "torch.distributions", "probabilities", gets, cure, *ends)


def _sums_to_one(given: Tensor) -> bool:
    """Whether the numbers of each element are probabilities of its classes."""
    return given.shape[1] > 1 and probabilities(given.movedim(1, 0).flatten(1))


def _as_probabilities(op: Op) -> bool:
    """Whether torch's distributions take numbers for probabilities, and keep them off 0 and 1."""
    read = op.reads[0].tensor
    if op.name != "clamp" or not read.is_floating_point():
        return False
    eps = torch.finfo(read.dtype).eps
    return op.kwargs.get("min") == eps and op.kwargs.get("max") == 1 - eps


def _of_a_layer(flow: Flow, value: Value) -> bool:
    while value.op is not None and value.op.name in RESHAPES and value.op.reads:
        value = flow.parents(value)[0]
    return value.op is not None and flow.layer(value.op)
