"""An input in whose place another one of its kind is handed over: what moves, what is lost."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from ...subject.subject import Batch, Subject
from ..anatomy.anatomy import Anatomy
from ..anatomy.evaluation import reconstruction_in, returned, run_forward
from ..runs.recording import Op, Value
from ..runs.step import run_recorded


def exchanged(batch: Batch, old: Tensor, new: Tensor) -> Batch:
    """The batch with another tensor in the place of one, at any depth."""
    return batch.mapped(lambda item: new if item is old else item)


def alternatives(tensor: Tensor) -> Iterator[Tensor]:
    """Conditions of the same kind: the rows in another order, and the values turned round."""
    t = tensor.detach()
    if not t.numel():
        return
    if t.dim() and bool((t.roll(1, 0) != t).any()):
        yield t.roll(1, 0)
    if t.dtype is torch.bool:
        yield ~t
    elif t.is_floating_point():
        yield 1 - t
    elif int(t.max()) > 0:
        yield int(t.max()) - t


def x_hat_moves(
    subject: Subject, anatomy: Anatomy, tensor: Tensor, seed: int, rewind: Callable[[], None]
) -> float | None:
    """How far x_hat moves in training mode when the condition alone is another one."""
    if anatomy.x_hat is None:
        return None
    usual = anatomy.x_hat.tensor.detach()
    moves = []
    for other in alternatives(tensor):
        batch = exchanged(subject.batch, tensor, other)
        whole = not returned(anatomy)
        run = run_forward(subject, seed=seed, batch=batch, train=True, whole=whole)
        x_hat = reconstruction_in(run, anatomy)
        rewind()
        if x_hat is not None and x_hat.shape == tuple(usual.shape):
            moves.append(float((x_hat.tensor.detach() - usual).abs().max()))
    return max(moves, default=None)


def lost_in(
    subject: Subject,
    anatomy: Anatomy,
    value: Value,
    seed: int,
    rewind: Callable[[], None],
    *,
    scoring: bool = False,
) -> Op | None:
    """Which operation gives weights, data and outputs the same of any condition; None if none.

    A softmax over one entry, a product with 0. Weights that are 0 lose nothing: they learn.
    `scoring` asks it of what meets x_hat in the loss alone, an entry of the mask each.
    """
    flow, recording = anatomy.flow, anatomy.recording
    leaves = [v for v in recording.values if v.op is None and v.source != "constant"]
    others = [v for v in leaves if v is not value]
    alone = flow.descendants(value) - flow.descendants(*others, *(d.value for d in flow.draws))
    met = [
        v
        for op in recording.ops
        if any(m.index not in alone for m in op.makes)
        for v in op.reads
        if v.index in alone
    ]
    if scoring:
        met = [v for v in _scoring(anatomy, met) if v.tensor.numel() >= value.tensor.numel()]
    if not met or value in met:
        return None
    compared = 0
    for other in (*alternatives(value.tensor), torch.zeros_like(value.tensor)):
        run = run_recorded(subject, seed=seed, batch=exchanged(subject.batch, value.tensor, other))
        twins = run.values
        same = run.error is None and len(twins) == len(recording.values)
        equal = same and all(torch.equal(v.tensor, twins[v.index].tensor) for v in met)
        run.release()
        rewind()
        if same and not equal:
            return None
        compared += same
    return met[0].op if compared > 1 else None


def _scoring(anatomy: Anatomy, met: list[Value]) -> list[Value]:
    """Those of the values that an operation of the loss reads beside what x_hat became."""
    loss, x_hat = anatomy.recording.loss, anatomy.x_hat
    end = anatomy.recording.value_of(loss) if isinstance(loss, Tensor) else None
    if end is None or x_hat is None:
        return []
    behind, made = anatomy.flow.ancestors(end), anatomy.flow.descendants(x_hat)
    found = {
        v.index
        for op in anatomy.recording.ops
        if op.makes and op.out.index in behind and any(r.index in made for r in op.reads)
        for v in op.reads
        if v.op is not None and v.index in behind
    }
    return [v for v in met if v.index in found]
