"""Masks and lengths that hide nothing from the loss: no entry is left out, or padding counts."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..anatomy.anatomy import Anatomy
from ..objective.likelihood import meeting
from ..runs.recording import Op, Value


def loose_at(anatomy: Anatomy, tensor: Tensor, value: Value | None) -> Op | None:
    """The operation by which a 0/1 mask enters the loss although no entry of x_hat is left out.

    A mask that works leaves out the entries where it is 0, or those where it is 1.
    """
    x_hat, loss = anatomy.x_hat, anatomy.recording.loss
    if x_hat is None or x_hat.edge is None or value is None or not isinstance(loss, Tensor):
        return None
    if not loss.requires_grad or not _binary(tensor):
        return None
    flow = anatomy.flow
    end = anatomy.recording.value_of(loss)
    outputs = [o.value for o in anatomy.outputs if o.value.shape]
    if end is None or value.index not in flow.ancestors(end, stop=[x_hat, *outputs]):
        return None
    (gradient,) = torch.autograd.grad(loss, [x_hat.edge], allow_unused=True, retain_graph=True)
    if gradient is None:
        return None
    extra = gradient.dim() - tensor.dim()
    if extra < 0 or gradient.shape[: tensor.dim()] != tensor.shape:
        return None
    size = gradient.abs().reshape(*tensor.shape, -1).amax(-1)
    on, off = size[tensor != 0], size[tensor == 0]
    if bool((on == 0).any()) or bool((off == 0).any()):
        return None
    behind, made = flow.ancestors(end), flow.descendants(x_hat)
    given = flow.descendants(value) - made
    meets = [
        op
        for op in anatomy.recording.ops
        if op.makes
        and op.out.index in behind
        and op.name in ("mul", "mul_", "multiply")
        and any(v.index in given and not flow.learned[v.index] for v in op.reads)
        and any(v.index in made and v.op is not None and _was_reduced(flow, v) for v in op.reads)
    ]
    return meets[0] if meets else None


def counted_padding(anatomy: Anatomy, given: Tensor) -> tuple[Op | None, int]:
    """The first operation of the loss on x_hat, and how many padded steps have a gradient there.

    Only where all steps beyond the rows' lengths, or on one side of a mask, hold one and the same
    value, and most count. An x_hat of one step less holds the next step of each.
    """
    x, x_hat, loss = anatomy.x, anatomy.x_hat, anatomy.recording.loss
    if x is None or x_hat is None or x_hat.edge is None or not isinstance(loss, Tensor):
        return None, 0
    if len(x.shape) < 2 or len(x_hat.shape) < 2 or not loss.requires_grad:
        return None, 0
    shift = x.shape[1] - x_hat.shape[1]
    if x_hat.shape[:1] != x.shape[:1] or shift not in (0, 1):
        return None, 0
    beyond = _padded_steps(x.tensor.detach(), given.detach())
    if beyond is None:
        return None, 0
    (gradient,) = torch.autograd.grad(loss, [x_hat.edge], allow_unused=True, retain_graph=True)
    if gradient is None or gradient.shape[:2] != x_hat.shape[:2]:
        return None, 0
    counted = gradient.flatten(2).abs().amax(-1) if gradient.dim() > 2 else gradient.abs()
    seen = beyond[:, shift:] & (counted > 0)
    if not _counts_padding(beyond[:, shift:], seen):
        return None, 0
    flow = anatomy.flow
    readers = [op for op in flow.consumers.get(x_hat.index, ()) if op.makes]
    if given.dim() == 2 and not _compared_with_input(anatomy):
        return None, 0
    return (readers[-1] if readers else None), int(seen.sum())


def _counts_padding(beyond: Tensor, seen: Tensor) -> bool:
    """Whether all of the padding counts, or most of it and more than an end that a row is to learn.

    So it is where a mask is made of the longest row's length.
    """
    all_of_it = bool(beyond.any()) and bool((seen == beyond).all())
    most = 2 * int(seen.sum()) > int(beyond.sum())
    return all_of_it or (most and bool((seen.sum(1) > 2).any()))


def are_lengths(x: Tensor | None, given: Tensor) -> bool:
    """Whether an argument [B] says, whatever its name, at which step each row's padding begins."""
    if x is None or x.dim() < 2 or given.dim() != 1:
        return False
    beyond = _padded_steps(x.detach(), given.detach())
    if beyond is None or int(beyond.any(1).sum()) < 2:
        return False
    pad = x.detach()[beyond][0]
    last = x.detach()[torch.arange(len(x), device=x.device), given.detach().long() - 1]
    return bool((last != pad).reshape(len(x), -1).any(1).all())


def are_marks(x: Tensor | None, given: Tensor) -> bool:
    """Whether an argument [B, T] marks, whatever its name, the padding at the end of each row.

    Marks with gaps, as of the voiced steps of a sound, say something of the steps.
    """
    if x is None or x.dim() < 2 or given.dim() != 2:
        return False
    beyond = _padded_steps(x.detach(), given.detach())
    if beyond is None or int(beyond.any(1).sum()) < 2 or len(set(beyond.sum(1).tolist())) < 2:
        return False
    return bool((beyond.int().diff(dim=1) >= 0).all()) and not bool(beyond.all(1).any())


def steps_beyond(x: Tensor | None, given: Tensor) -> Tensor | None:
    """Which steps [B, T] of x are padding by lengths [B]; of masks, which may be gaps, None."""
    if x is None or x.dim() < 2 or given.dim() != 1:
        return None
    return _padded_steps(x.detach(), given.detach())


def _padded_steps(x: Tensor, given: Tensor) -> Tensor | None:
    """Which steps [B, T] of x are padding, by lengths [B] or by a mask [B, T]; None if unsure."""
    if given.dim() == 1 and tuple(given.shape) == x.shape[:1] and not given.is_floating_point():
        if int(given.min()) < 1 or int(given.max()) > x.shape[1]:
            return None
        sides = [torch.arange(x.shape[1], device=given.device)[None] >= given[:, None]]
    elif given.dim() == 2 and given.shape == x.shape[:2] and _binary(given):
        sides = [given == 0, given != 0]
    else:
        return None
    for beyond in sides:
        pads, inside = x[beyond], x[~beyond]
        if len(pads) > 1 and bool((pads == pads[:1]).all()) and bool((inside != pads[:1]).any()):
            return beyond
    return None


def _compared_with_input(anatomy: Anatomy) -> bool:
    """Whether the loss compares x_hat with x itself: to fill what a mask hides is another task."""
    flow, x, met = anatomy.flow, anatomy.x, meeting(anatomy)
    if x is None or met is None:
        return False
    plain = (v for v in met.reads if flow.data[v.index] and not flow.learned[v.index])
    return any(x.index in flow.ancestors(v) for v in plain)


def _was_reduced(flow: Any, value: Value) -> bool:
    """Whether a value is one number, or one a row: summed before it met the mask."""
    return value.tensor.numel() == 1 or len(value.shape) == 1


def _binary(tensor: Tensor) -> bool:
    t = tensor.detach()
    two = bool(((t == 0) | (t == 1)).all())
    return two and bool((t == 0).any()) and bool((t == 1).any()) and t.dim() > 1
