"""How likely it is that a draw comes out the same twice, though its generator runs on."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .recording import Op

RARE = math.log(1e-6)
"""The logarithm of a chance that is no explanation."""


def coincidence(op: Op) -> float:
    """The logarithm of the chance that two draws of an operation are equal; -inf of real numbers.

    Of categories, Bernoulli and Poisson numbers it is the product of Σ p² over the entries, of
    other whole numbers that of as many equally likely ones as were drawn.
    """
    drawn = op.noise
    if drawn is None or (drawn.is_floating_point() and bool((drawn != drawn.round()).any())):
        return -math.inf
    given = op.reads[0].tensor.detach().double() if op.reads else None
    if op.name == "multinomial" and given is not None:
        p = given / given.sum(-1, keepdim=True)
        return float(_log(p.square().sum(-1)).sum()) * drawn.shape[-1]
    if op.name.startswith("bernoulli"):
        chance = _number(op, given, drawn)
        return float(_log(chance**2 + (1 - chance) ** 2).sum())
    if op.name == "poisson" and given is not None:
        return float(_log(torch.special.i0e(2 * given)).sum())
    return -drawn.numel() * math.log(max(1, len(set(drawn.flatten().tolist()))))


def _number(op: Op, given: Tensor | None, drawn: Tensor) -> Tensor:
    """The chances of a Bernoulli draw: a tensor, or one number for all, ½ if neither is told."""
    numbers = [a for a in (*op.args, *op.kwargs.values()) if isinstance(a, float)]
    if op.name == "bernoulli" and not numbers and given is not None:
        return given
    return torch.full(drawn.shape, numbers[0] if numbers else 0.5, dtype=torch.float64)


def _log(chance: Tensor) -> Tensor:
    return chance.clamp(1e-300, 1).log()
