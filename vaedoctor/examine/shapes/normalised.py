"""Probabilities of categories that were normalised over the rows of the batch instead."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ...subject.subject import Subject
from ..anatomy.anatomy import Anatomy
from ..runs.recording import Op
from .batchrows import rows_of

SOFTMAX = frozenset("softmax log_softmax".split())
_SUMS = frozenset("sum mean logsumexp nansum".split())
_PICKS = frozenset("nll_loss".split())


@dataclass(frozen=True, slots=True)
class Normalised:
    """A softmax over the rows; `total` is what a row's probabilities add up to, 1 when right."""

    op: Op
    rows: int
    total: float


def normalised_over_rows(subject: Subject, anatomy: Anatomy) -> list[Normalised]:
    """Softmax over the batch of scores whose other axis the loss sums, or picks a class from.

    Weights of rows are summed over the rows, and a square compares rows with each other.
    """
    loss, axis = anatomy.recording.loss, subject.batch_axis
    end = anatomy.recording.value_of(loss) if isinstance(loss, Tensor) else None
    rows = rows_of(subject, anatomy)
    if end is None or axis is None or rows < 2:
        return []
    judged, flow = anatomy.flow.ancestors(end), anatomy.flow
    return [
        Normalised(op, rows, _total(op, axis))
        for op in anatomy.recording.ops
        if op.name in SOFTMAX
        and op.makes
        and op.out.index in judged
        and flow.posterior(op.out)
        and _over(op) == {axis}
        and op.out.shape[axis] == rows
        and all(size != rows for i, size in enumerate(op.out.shape) if i != axis)
        and op.out.tensor[0].numel() > 1
        and _summed_apart(anatomy, op, axis, judged)
    ]


def _total(op: Op, axis: int) -> float:
    made = op.out.tensor.detach()
    made = made.exp() if op.name == "log_softmax" else made
    sums = made.movedim(axis, 0).flatten(1).sum(1)
    return float(sums[(sums - 1).abs().argmax()])


def _over(op: Op) -> set[int]:
    """The axes over which an operation runs; torch's own choice where a softmax names none."""
    dims = op.out.tensor.dim() if op.name in SOFTMAX else len(op.reads[0].shape)
    given: Any = op.kwargs.get("dim", op.args[1] if len(op.args) > 1 else None)
    if given is None and op.name in SOFTMAX:
        given = 0 if dims in (0, 1, 3) else 1
    if given is None:
        return set(range(dims))
    return {d % dims for d in ((given,) if isinstance(given, int) else given)}


def _summed_apart(anatomy: Anatomy, softmax: Op, axis: int, judged: frozenset[int]) -> bool:
    """Whether what is computed of it entry by entry is first summed without the batch axis."""
    flow, shape = anatomy.flow, softmax.out.shape
    waiting, seen, apart = [softmax.out], set[int](), False
    while waiting:
        for op in flow.consumers.get(waiting.pop().index, ()):
            if op.index in seen or not op.makes or op.out.index not in judged:
                continue
            seen.add(op.index)
            if op.name in _PICKS:
                apart = True
            elif op.name in _SUMS and op.reads[0].shape == shape:
                over = _over(op)
                if axis in over and len(over) < len(shape):
                    return False
                apart |= axis not in over
            elif op.out.shape == shape:
                waiting.append(op.out)
    return apart
