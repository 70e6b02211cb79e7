"""The loss of the step: the user's own, or reconstruction plus KL composed from the anatomy."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..anatomy.anatomy import Anatomy
from ..anatomy.latents import Latent


def compose(anatomy: Anatomy) -> Tensor | None:
    """A loss for a model that comes without one: squared error plus the KL to N(0, I).

    Summed over features, averaged over the batch, in nats at unit observation variance (Kingma and
    Welling 2014, appendix B). It serves to see which gradients arrive, never to judge the user's
    objective. None where no reconstruction was found.
    """
    x_hat = anatomy.x_hat
    if x_hat is None:
        return None
    loss = _reconstruction(x_hat.tensor, anatomy.x.tensor if anatomy.x is not None else None)
    for latent in anatomy.latents:
        kl = _kl(latent)
        if kl is not None:
            loss = loss + kl
    if anatomy.unsampled is not None:
        mu, logvar = anatomy.unsampled.loc.value.tensor, anatomy.unsampled.scale.value.tensor
        rows = _rows(mu)
        loss = loss + 0.5 * (mu**2 + logvar.clamp(max=20).exp() - 1 - logvar).sum() / rows
    return loss


def _rows(tensor: Tensor) -> int:
    return max(1, tensor.shape[0]) if tensor.dim() else 1


def _reconstruction(x_hat: Tensor, x: Tensor | None) -> Tensor:
    rows = _rows(x_hat)
    if x is not None and x.numel() == x_hat.numel() and x.is_floating_point():
        return 0.5 * ((x_hat - x.reshape(x_hat.shape)) ** 2).sum() / rows
    if x is not None and not x.is_floating_point() and x_hat.shape[:-1] == x.shape:
        target = x.reshape(-1).clamp(0, x_hat.shape[-1] - 1).long()
        return F.cross_entropy(x_hat.flatten(0, -2), target, reduction="sum") / rows
    return 0.5 * (x_hat**2).sum() / rows


def _kl(latent: Latent) -> Tensor | None:
    """KL(N(loc, scale²) || N(0, I)) with whatever parametrisation the sampler has, in nats."""
    if latent.family != "gaussian" or latent.loc is None or latent.scale is None:
        return None
    loc, scale = latent.loc.tensor, latent.scale.tensor
    if latent.loc.shape != latent.scale.shape:
        return 0.5 * ((loc**2).sum() + (scale**2).sum()) / _rows(loc)
    tiny = torch.finfo(scale.dtype).tiny
    kl = 0.5 * (loc**2 + scale**2 - 1 - (scale**2).clamp_min(tiny).log())
    return kl.sum() / _rows(loc)
