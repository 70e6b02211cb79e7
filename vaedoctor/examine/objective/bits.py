"""Relaxed bits, or binary Concrete latents: logits with logistic noise that pass a sigmoid.

The KL of Bernoulli(sigmoid(l)) to Bernoulli(1/2) has the gradient p (1 - p) l at l, and that of
the reverse p - 1/2.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..anatomy.anatomy import Anatomy
from ..anatomy.latents import Latent
from .categories import EVEN

_SIGMOIDS = frozenset({"sigmoid", "sigmoid_"})


def are_bits(anatomy: Anatomy, latent: Latent) -> bool:
    """Whether logistic noise of its own scale meets a logit, whose sigmoid alone is decoded.

    A logistic posterior has a scale, or is decoded as it is.
    """
    flow, x_hat = anatomy.flow, anatomy.x_hat
    if latent.family != "logistic" or latent.scale is not None or latent.loc is None:
        return False
    near = flow.onward(latent.z, past=lambda op: not flow.layer(op))
    gates = [
        op.out
        for value in near
        for op in flow.consumers.get(value.index, ())
        if op.name in _SIGMOIDS and op.makes and op.out.shape == latent.z.shape
    ]
    if x_hat is None or not gates:
        return False
    behind = flow.ancestors(x_hat)
    around = flow.ancestors(x_hat, stop=gates)
    return latent.z.index in behind and latent.z.index not in around


def kind_of_bits(logits: Tensor, gradient: Tensor | None) -> tuple[str, float]:
    """Which KL's gradient this is at the logits of bits, and its weight."""
    if gradient is None:
        return "other", 0.0
    p, g = torch.sigmoid(logits.double()), gradient.double()
    for kind, reference in (("kl", p * (1 - p) * logits.double()), ("reverse", p - 0.5)):
        weight = float((g * reference).sum() / reference.square().sum())
        error = float((g - weight * reference).abs().max())
        if weight != 0 and error < EVEN * float(g.abs().max()):
            return kind, weight
    return "other", 0.0
