"""Importance weights: over which axis, and with which sign, the loss joins the K samples."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from .anatomy import Anatomy
from .likelihood import fits
from .recording import Op, Value

CLOSE = 1e-3


@dataclass(frozen=True, slots=True)
class Aggregation:
    """One log-sum-exp over log-weights of K samples.

    `axis` is "samples" or "rows", `rewards` whether a better reconstruction raises the weights.
    """

    op: Op
    samples: int
    rows: int
    axis: str
    rewards: bool


def aggregations(anatomy: Anatomy, rows: int | None) -> Iterator[Aggregation]:
    """Every `logsumexp` over a [K, B] or [B, K] tensor that decides the loss."""
    loss, x_hat = anatomy.recording.loss, anatomy.x_hat
    if rows is None or not isinstance(loss, Tensor) or not loss.requires_grad or x_hat is None:
        return
    behind = [latent.z for latent in anatomy.sampled]
    for op in anatomy.recording.ops:
        weights = op.reads[0] if op.reads else None
        if op.name != "logsumexp" or weights is None or len(weights.shape) != 2:
            continue
        if x_hat.index not in anatomy.flow.ancestors(weights):
            continue
        sample_axis = _sample_axis(weights, behind, rows)
        axis = _axis(loss, weights, sample_axis) if sample_axis is not None else None
        rewards = _rewards(anatomy, weights)
        if axis is not None and sample_axis is not None and rewards is not None:
            name = "samples" if axis == sample_axis else "rows"
            yield Aggregation(op, weights.shape[sample_axis], rows, name, rewards)


def _sample_axis(weights: Value, latents: list[Value], rows: int) -> int | None:
    """The axis of K samples, if z has one beside the batch and its units."""
    for z in latents:
        first = z.shape[:2]
        fits_z = len(z.shape) == 3 and sorted(first) == sorted(weights.shape)
        if fits_z and rows in first and first[0] != first[1]:
            return 0 if weights.shape[1] == rows else 1
    return None


def _axis(loss: Tensor, weights: Value, sample_axis: int) -> int | None:
    """The axis whose softmax the loss's gradient at the weights is, times one negative number."""
    if weights.edge is None:
        return None
    (gradient,) = torch.autograd.grad(
        loss.sum(), [weights.edge], retain_graph=True, allow_unused=True
    )
    if gradient is None:
        return None
    for axis in (sample_axis, 1 - sample_axis):
        shares = torch.softmax(weights.tensor.detach().double(), axis)
        sums = gradient.double().sum(axis)
        scale = float(sums.mean())
        error = (gradient.double() - scale * shares).abs().max()
        if scale < 0 and float(error) < CLOSE * abs(scale):
            return axis
    return None


def _rewards(anatomy: Anatomy, weights: Value) -> bool | None:
    """Whether the weights rise as the reconstruction gets better; None if not known."""
    x_hat, x = anatomy.x_hat, anatomy.x
    if x_hat is None or x is None or x_hat.edge is None:
        return None
    (gradient,) = torch.autograd.grad(
        weights.tensor.sum(), [x_hat.edge], retain_graph=True, allow_unused=True
    )
    if gradient is None:
        return None
    made, given = x_hat.tensor.detach(), x.tensor.detach()
    for target in (given, given.unsqueeze(0), given.unsqueeze(1)):
        try:
            target = target.expand_as(made)
        except RuntimeError:
            continue
        found = [weight for _, weight, _ in fits(gradient, made, target)]
        if found:
            return found[0] < 0
    return None
