"""What each element of x_hat costs in the loss, whatever likelihood makes its number of it.

The last value behind x_hat that has one number for each of its elements is what the loss adds up:
its gradient there is the weight of all of them, one number, 1 / (B D) of a mean.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..anatomy.anatomy import Anatomy
from ..runs.recording import Op
from .likelihood import Likelihood, meeting
from .quotients import EVEN, spread

KIND = "a likelihood of elements"


def costs(anatomy: Anatomy) -> Likelihood | None:
    """Such a term and its weight a row; None where the elements are not weighed alike.

    Its sign is not told: a log-likelihood is subtracted.
    """
    loss, x, x_hat, met = anatomy.recording.loss, anatomy.x, anatomy.x_hat, meeting(anatomy)
    if x is None or x_hat is None or met is None or not isinstance(loss, Tensor):
        return None
    end = anatomy.recording.value_of(loss)
    if end is None or not loss.requires_grad or x.tensor.numel() != x_hat.tensor.numel():
        return None
    flow = anatomy.flow
    within = flow.descendants(met.out) & flow.ancestors(end)
    kept = [op for op in anatomy.recording.ops if _is_elementwise(op, x_hat.tensor, within)]
    if not kept or kept[-1].out.edge is None:
        return None
    (gradient,) = torch.autograd.grad(
        loss.sum(), [kept[-1].out.edge], allow_unused=True, retain_graph=True
    )
    if gradient is None or not bool((gradient != 0).all()) or spread(gradient.double()) > EVEN:
        return None
    rows, given = x.shape[0] if x.shape else 1, x.tensor.detach()
    weight = float(gradient.double().mean().abs()) * rows
    compared = float(given.min()), float(given.max())
    return Likelihood(KIND, weight, rows, given.numel() // max(1, rows), compared)


def _is_elementwise(op: Op, x_hat: Tensor, within: frozenset[int]) -> bool:
    made = bool(op.makes) and op.out.index in within
    return made and op.out.tensor.numel() == x_hat.numel() and op.out.tensor.is_floating_point()
