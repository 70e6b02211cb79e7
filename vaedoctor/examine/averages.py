"""The mean over the noise of what lies between the sample and the decoder."""

from __future__ import annotations

import torch
from torch import Tensor

from ..subject.subject import Subject
from .anatomy import Anatomy
from .evaluation import run_forward
from .latents import Latent
from .paths import entry_of
from .recorder import Edit
from .step import run_recorded

_NEAR = 1e-3  # of the mean, and of 1


def decodes_mean(subject: Subject, anatomy: Anatomy, latent: Latent, seed: int) -> bool:
    """Whether evaluation decodes the mean of a curved function of the sample, as a log-normal's.

    The mean is taken by quadrature, of every value on the way; the caller restores the model.
    """
    found = _means(subject, anatomy, latent, seed)
    decoded = [v.tensor.detach() for v in run_forward(subject, seed=seed, still=True).values]
    return any(
        value.shape == mean.shape and torch.allclose(value.double(), mean, rtol=_NEAR, atol=_NEAR)
        for mean in found
        for value in decoded
        if value.is_floating_point()
    )


def _means(subject: Subject, anatomy: Anatomy, latent: Latent, seed: int) -> list[Tensor]:
    """The means of the values of z's shape that are computed from it; none where runs differ."""
    flow, draw = anatomy.flow, latent.draw.op
    behind = flow.ancestors(entry_of(flow, latent, anatomy.x_hat)) - {latent.z.index}
    way = [
        v
        for v in flow.recording.values
        if v.index in behind and v.shape == latent.z.shape and latent.z.index in flow.ancestors(v)
    ]
    if draw is None:
        return []
    means = {v.index: torch.zeros(v.shape, dtype=torch.float64) for v in way}
    nodes = torch.linspace(-6, 6, 17, dtype=torch.float64)  # far finer than a Gaussian needs
    weights = torch.softmax(-0.5 * nodes**2, dim=0)
    for noise, weight in zip(nodes.tolist(), weights.tolist(), strict=True):
        run = run_recorded(subject, seed=seed, edits={draw.index: _constantly(noise)})
        if run.error is not None or len(run.values) < len(flow.recording.values):
            return []
        for i, mean in means.items():
            mean += weight * run.values[i].tensor.detach()
    return list(means.values())


def _constantly(number: float) -> Edit:
    return lambda drawn: torch.full_like(drawn, number)
