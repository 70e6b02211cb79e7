"""The loss's gradient at the reconstruction, also where the steps of it are scored one by one."""

from __future__ import annotations

import torch
from torch import Tensor

from ..anatomy.anatomy import Anatomy
from ..runs.flow import Flow
from ..runs.recording import Op, Value

_MOVES = frozenset("transpose permute swapaxes movedim".split())


def gradient_at(anatomy: Anatomy) -> Tensor | None:
    """The loss's gradient at x_hat; None where it does not reach it."""
    loss, x_hat = anatomy.recording.loss, anatomy.x_hat
    if not isinstance(loss, Tensor) or x_hat is None or x_hat.edge is None:
        return None
    if not loss.requires_grad:
        return None
    (gradient,) = torch.autograd.grad(
        loss.sum(), [x_hat.edge], allow_unused=True, retain_graph=True
    )
    return _of_steps(anatomy.flow, loss, x_hat) if gradient is None else gradient


def _of_steps(flow: Flow, loss: Tensor, x_hat: Value) -> Tensor | None:
    """The gradient where the loss scores every step by itself, and x_hat is put together of them.

    Laid out as x_hat is; None where that is no mere joining of the steps, or one is not scored.
    """
    moves: list[Op] = []
    while x_hat.op is not None and x_hat.op.name in _MOVES:
        moves.append(x_hat.op)
        (x_hat,) = flow.parents(x_hat)
    op = x_hat.op
    if op is None or op.name not in ("stack", "cat"):
        return None
    edges = [v.edge for v in op.reads if v.edge is not None]
    if len(edges) < len(op.reads):
        return None
    parts = torch.autograd.grad(loss.sum(), edges, allow_unused=True, retain_graph=True)
    if any(part is None for part in parts):
        return None
    joined: Tensor = getattr(torch, op.name)(parts, *op.args[1:], **op.kwargs)
    for move in reversed(moves):
        joined = getattr(joined, move.name)(*move.args[1:], **move.kwargs)
    return joined
