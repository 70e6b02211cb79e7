"""The KL in the loss as a function of the scale head, beside that of what is sampled.

Measured only where a finding is to be proved: two forward passes a point, with the heads and the
noise forced and the decoder held, as for the two settings of `divergence.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ...rule import Unavailable
from ...subject.subject import Subject
from ..anatomy.anatomy import Anatomy
from ..anatomy.latents import Latent
from .divergence import MEANINGS, Divergence
from .probe import Probe

SIGNED = (-2.0, -1.0, 0.0, 1.0, 2.0)
POSITIVE = (0.25, 0.5, 1.0, 1.5, 2.0)


@dataclass(frozen=True, slots=True)
class KLCurve:
    """At each value of the scale head: the sampler's scale, and nats a unit of both KLs.

    `loss` is the loss over its weight at the location, `true` the KL of the sample to N(0, I),
    both less their value where the scale is nearest 1. `meant` is the standard deviation that the
    loss's gradient fits, where it fits one.
    """

    heads: tuple[float, ...]
    scale: tuple[float, ...]
    loss: tuple[float, ...]
    true: tuple[float, ...]
    meant: tuple[float, ...]


def kl_curve(
    subject: Subject,
    anatomy: Anatomy,
    divergence: Divergence,
    seed: int,
    rewind: Callable[[], None],
) -> KLCurve | None:
    """Sweep the scale head; None where it cannot be forced apart or the loss has no weight."""
    probe = Probe(subject, anatomy, divergence.latent, seed, rewind)
    weight = abs(divergence.weight) / divergence.rows
    if not probe.apart or weight == 0:
        return None
    heads = SIGNED if probe.signed else POSITIVE
    points = []
    for head in heads:
        mu, h = probe.leaves(head, 1.0)
        with torch.no_grad():
            loss, location, scale = probe.read(mu, h)
        each = float(loss.double()) / (weight * divergence.rows * divergence.units)
        points.append((float(scale.double().mean()), each, _kl(location, scale)))
    scales, losses, exact = (tuple(column) for column in zip(*points, strict=True))
    rest = min(range(len(heads)), key=lambda i: abs(scales[i] - 1))
    return KLCurve(
        heads,
        scales,
        tuple(v - losses[rest] for v in losses),
        tuple(v - exact[rest] for v in exact),
        _meant(divergence.meaning, heads),
    )


def _kl(location: Tensor, scale: Tensor) -> float:
    """The exact KL to N(0, I), a unit."""
    m, s = location.double(), scale.double().abs()
    return float((0.5 * (m**2 + s**2 - 1) - s.log()).mean())


def _meant(meaning: str, heads: tuple[float, ...]) -> tuple[float, ...]:
    if not meaning:
        return ()
    return tuple(MEANINGS[meaning](torch.tensor(heads, dtype=torch.float64)).tolist())


def unit_kl(latent: Latent) -> tuple[float, ...]:
    """The KL to N(0, I) of each unit in the recorded step, nats averaged over rows, largest first.

    Raises Unavailable where location and scale are not those of a Gaussian.
    """
    if latent.loc is None or latent.scale is None or latent.family != "gaussian":
        raise Unavailable("the sampler is not location + scale * Gaussian noise")
    m, s = (v.tensor.detach().double() for v in (latent.loc, latent.scale))
    if m.dim() < 2 or not bool((s > 0).all()):
        raise Unavailable("the sampler's scale is not positive")
    each = 0.5 * (m**2 + s**2 - 1) - s.log()
    return tuple(sorted(each.flatten(1).mean(0).tolist(), reverse=True))
