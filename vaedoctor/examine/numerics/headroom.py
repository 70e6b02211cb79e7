"""How near exponentials are to overflow, now and with inputs ten times larger."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ...subject.subject import Batch, Subject
from ..runs.flow import Flow
from ..runs.recording import Op, Recording, tensors_in
from ..runs.step import run_recorded
from .numerics import EXPONENTIALS

MARGIN = 2.0  # headroom: the argument times this still fits
WIDER = 10.0  # inputs this many times larger


@dataclass(frozen=True, slots=True)
class Headroom:
    """The largest argument of one exponential, now and with inputs ten times larger."""

    op: Op
    largest: float
    limit: float
    wider: float | None


def largest_argument(op: Op) -> float:
    """The largest argument of an exponential; of an in-place one, from its result."""
    read, made = op.reads[0].tensor.detach(), op.out.tensor.detach()
    if not read.numel() or not read.is_floating_point():
        return -math.inf
    if op.reads[0].tensor is op.out.tensor:
        return float(made.double().log().max())
    return float(read.max())


def exponentials(recording: Recording, ends: frozenset[int]) -> list[Op]:
    """The exponentials that reach the loss or an output."""
    return [
        op
        for op in recording.ops
        if op.name in EXPONENTIALS
        and op.makes
        and op.reads
        and op.out.tensor.is_floating_point()
        and op.out.index in ends
    ]


def headroom(
    subject: Subject,
    recording: Recording,
    flow: Flow,
    ends: frozenset[int],
    seed: int,
    rewind: Callable[[], None],
) -> list[Headroom]:
    """Exponentials whose argument comes near the largest that the dtype can hold."""
    learned, made = flow.learned, exponentials(recording, ends)
    ops = [op for op in made if learned[op.out.index] or flow.data[op.out.index]]
    if not ops:
        return []
    limits = {op.index: math.log(torch.finfo(op.out.tensor.dtype).max) for op in ops}
    largest = {op.index: largest_argument(op) for op in ops}
    # Layers grow with their input, a square twice as fast: what is smaller cannot get there.
    close = [op for op in ops if largest[op.index] * WIDER**2 >= limits[op.index]]
    wider = _wider(subject, close, seed, rewind) if close else {}
    found = []
    for op in close:
        limit, now, then = limits[op.index], largest[op.index], wider.get(op.index)
        if now > limit:
            continue  # it has overflowed: VAE801 speaks
        grown = learned[op.out.index] and then is not None and then >= limit
        if now * MARGIN > limit or grown:
            found.append(Headroom(op, now, limit, then))
    return found


def _wider(
    subject: Subject, ops: list[Op], seed: int, rewind: Callable[[], None]
) -> dict[int, float]:
    """The largest arguments when every floating input is ten times larger."""
    recording = run_recorded(subject, seed=seed, batch=scaled(subject, WIDER))
    rewind()
    found = {}
    for op in ops:
        twin = recording.ops[op.index] if op.index < len(recording.ops) else None
        if twin is not None and twin.name == op.name and twin.makes:
            found[op.index] = largest_argument(twin)
    recording.release()
    return found


def scaled(subject: Subject, factor: float) -> Batch:
    """The batch with its data multiplied.

    Conditions, what holds only 0 and 1, and how strongly nodes are joined are kept.
    """
    batch = subject.batch
    items = [*enumerate(batch.args), *batch.kwargs.items()]
    kept = {id(t) for key, item in items if key in subject.conditions for t in tensors_in(item)}
    every = [t for _, item in items for t in tensors_in(item)]
    kept |= {id(t) for t in every if any(_joins(t, nodes) for nodes in every)}

    def grow(t: Tensor) -> Tensor:
        quantity = t.is_floating_point() and bool(((t != 0) & (t != 1)).any())
        return t.detach() * factor if quantity and id(t) not in kept else t

    return batch.mapped(grow)


def _joins(matrix: Tensor, nodes: Tensor) -> bool:
    """Whether a square matrix has a row and a column for every node of another input."""
    square = matrix.dim() in (2, 3) and matrix.shape[-1] == matrix.shape[-2]
    return square and nodes is not matrix and nodes.shape[:-1] == matrix.shape[:-1]
