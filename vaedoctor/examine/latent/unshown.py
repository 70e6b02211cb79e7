"""Steps beyond the rows' lengths that the encoder is not shown and that the loss counts.

The input need not hold one value there: other values are put in their place. Where no posterior
and no entry of x_hat moves, nothing of them was shown to the model.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ...subject.subject import Batch, Subject
from ..anatomy.anatomy import Anatomy
from ..objective.likelihood import meeting
from ..runs.recording import Op
from ..runs.step import run_recorded


def beyond_lengths(x: Tensor | None, lengths: Tensor) -> Tensor | None:
    """Which steps [B, T] of x [B, T, ...] lie beyond lengths [B] that are not all the same."""
    if x is None or x.dim() < 2 or lengths.dim() != 1 or len(lengths) != len(x):
        return None
    if lengths.is_floating_point() or lengths.dtype is torch.bool or len(set(lengths.tolist())) < 2:
        return None
    if int(lengths.min()) < 1 or int(lengths.max()) > x.shape[1]:
        return None
    return torch.arange(x.shape[1], device=lengths.device)[None] >= lengths[:, None]


def unshown(
    subject: Subject,
    anatomy: Anatomy,
    beyond: Tensor,
    moved: Batch,
    seed: int,
    rewind: Callable[[], None],
) -> Op | None:
    """The operation of the loss that compares unshown steps with the input; None if not proven.

    `beyond` [B, T] says which steps those are, `moved` is the batch with other values there.
    """
    x, x_hat, loss = anatomy.x, anatomy.x_hat, anatomy.recording.loss
    if x is None or x_hat is None or x_hat.edge is None or not isinstance(loss, Tensor):
        return None
    if x_hat.shape[:2] != tuple(beyond.shape) or not loss.requires_grad or not anatomy.latents:
        return None
    met = meeting(anatomy)
    if met is None or not all(
        x.index in anatomy.flow.ancestors(v) | {v.index}
        for v in met.reads
        if not anatomy.flow.learned[v.index]
    ):
        return None
    (gradient,) = torch.autograd.grad(loss, [x_hat.edge], allow_unused=True, retain_graph=True)
    if gradient is None or not bool((gradient.reshape(*beyond.shape, -1) != 0).any(-1).all()):
        return None
    shown = [x_hat, *(v for n in anatomy.latents for v in (n.loc, n.scale, n.z) if v is not None)]
    run = run_recorded(subject, seed=seed, batch=moved)
    try:
        twins = run.values
        if run.error is not None or len(twins) != len(anatomy.recording.values):
            return None
        same = all(torch.equal(v.tensor, twins[v.index].tensor) for v in shown)
        counted = isinstance(run.loss, Tensor) and bool((run.loss != loss).any())
    finally:
        run.release()
        rewind()
    return met if same and counted else None
