"""Padded steps that count in a KL of each step, although the reconstruction leaves them out.

Other values are put where x is padding. What the loss adds up of the posterior must move at the
padded steps and nowhere else, and that alone must move the loss, by just as much as it says.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ...subject.subject import Batch, Subject
from ..anatomy.anatomy import Anatomy
from ..runs.flow import Flow
from ..runs.recording import Op, Value
from ..runs.step import run_recorded

_EVEN = 1e-3  # of the loss's own change


def padded_kl(
    subject: Subject,
    anatomy: Anatomy,
    beyond: Tensor,
    moved: Batch,
    seed: int,
    rewind: Callable[[], None],
) -> Op | None:
    """The operation that adds the KL of padded steps up; None where none is proven to count.

    `beyond` [B, T] says which steps of x are padding, `moved` is the batch with other values there.
    """
    loss, steps = anatomy.recording.loss, _of_steps(anatomy, tuple(beyond.shape))
    if not isinstance(loss, Tensor) or not steps or not _left_out(anatomy, loss, beyond):
        return None
    run = run_recorded(subject, seed=seed, batch=moved)
    try:
        twins = run.values
        if run.error is not None or len(twins) != len(anatomy.recording.values):
            return None
        if not isinstance(run.loss, Tensor):
            return None
        change = float((run.loss - loss).detach().double().sum())
        counted = [
            v for v in steps if _explains(loss, v, twins[v.index].tensor.detach(), beyond, change)
        ]
    finally:
        run.release()
        rewind()
    return _reader(anatomy, counted[-1]) if counted else None


def others_at(x: Tensor, beyond: Tensor) -> Tensor:
    """The input [B, T, ...] with values of its real steps where it is padding."""
    made, real = x.detach().clone(), x.detach()[~beyond]
    made[beyond] = real[torch.arange(int(beyond.sum()), device=x.device) % len(real)]
    return made


def _of_steps(anatomy: Anatomy, shape: tuple[int, ...]) -> list[Value]:
    """What the loss makes of a posterior's location and scale, an entry a step, without x_hat."""
    flow, loss, x_hat = anatomy.flow, anatomy.recording.loss, anatomy.x_hat
    end = anatomy.recording.value_of(loss) if isinstance(loss, Tensor) else None
    if end is None or x_hat is None:
        return []
    samples, made = [x.z for x in anatomy.latents], flow.descendants(x_hat)
    heads = [
        (_alone(flow, x.loc, x.scale), _alone(flow, x.scale, x.loc))
        for x in anatomy.latents
        if x.loc is not None and x.scale is not None
    ]
    behind = flow.ancestors(end, stop=[x_hat]) - flow.ancestors(x_hat, *samples)
    return [
        v
        for v in anatomy.recording.values
        if v.index in behind
        and v.index not in made
        and v.shape[:2] == shape
        and v.edge is not None
        and any(all(way & flow.ancestors(v, stop=samples) for way in both) for both in heads)
    ]


def _alone(flow: Flow, one: Value, other: Value) -> frozenset[int]:
    """What makes one parameter of a posterior and not the other: its head and what follows it."""
    alone = flow.ancestors(one) | {one.index}
    return frozenset(alone - flow.ancestors(other) - {other.index})


def _left_out(anatomy: Anatomy, loss: Tensor, beyond: Tensor) -> bool:
    """Whether the reconstruction counts at real steps alone."""
    x_hat = anatomy.x_hat
    if x_hat is None or x_hat.edge is None or x_hat.shape[:2] != tuple(beyond.shape):
        return False
    gradient = _slope(loss, x_hat)
    if gradient is None:
        return False
    counts = (gradient.reshape(*beyond.shape, -1) != 0).any(-1)
    return bool(counts[~beyond].any()) and not bool(counts[beyond].any())


def _explains(loss: Tensor, value: Value, now: Tensor, beyond: Tensor, change: float) -> bool:
    """Whether a value moved at padded steps alone, counts at all of them, and moved the loss."""
    then, slope = value.tensor.detach(), _slope(loss, value)
    if slope is None or now.shape != then.shape or change == 0:
        return False
    moved = (now - then).double()
    each = moved.reshape(*beyond.shape, -1).abs().amax(-1)
    counts = slope.reshape(*beyond.shape, -1).abs().amax(-1)
    if bool((each[~beyond] != 0).any()) or not bool((counts[beyond] > 0).all()):
        return False
    return abs(float((slope.double() * moved).sum()) / change - 1) < _EVEN


def _slope(loss: Tensor, value: Value) -> Tensor | None:
    if value.edge is None or not loss.requires_grad:
        return None
    (found,) = torch.autograd.grad(loss.sum(), [value.edge], allow_unused=True, retain_graph=True)
    return found


def _reader(anatomy: Anatomy, value: Value) -> Op | None:
    """The operation of the loss that reads a value."""
    end = anatomy.recording.value_of(anatomy.recording.loss)
    behind = anatomy.flow.ancestors(end) if end is not None else frozenset()
    readers = anatomy.flow.consumers.get(value.index, ())
    return next((op for op in readers if op.makes and op.out.index in behind), None)
