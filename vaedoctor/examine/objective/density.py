"""The density of the sample in the loss, log q(z): judged whatever the prior is.

A KL by one sample is log q(z) - log p(z). With the decoder held, the heads forced and z replaced
by known values, the prior does not move, and the loss's gradient at the heads is that of log q
alone. For a normal density of scale σ it is c (z - m) at the location, and A + B (z - m)² at the
scale head, with σ² = -A / B and weight w = c σ², the same at two settings of the head. Whether σ is
the scale that is sampled needs no word about the prior: a Vamp, mixture, flow or learned one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ...finding import Span
from ...rule import Unavailable
from ...subject.subject import Subject
from ..anatomy.anatomy import Anatomy
from ..anatomy.latents import Latent
from ..anatomy.pinning import loss_value
from .divergence import EXACT, Divergence
from .locationscale import LocationScale
from .probe import Probe

LEFT = 2e-3  # of a fit, in float32


@dataclass(frozen=True, slots=True)
class Density(LocationScale):
    """log q of the sample as the loss has it.

    `weight` is that of a row and `meant` the two scales of the density, beside `sampled`; a
    density that no scale fits at one weight is not `normalised`.
    """

    latent: Latent
    rows: int
    units: int
    weight: float
    far: float
    normalised: bool
    sampled: tuple[float, float]
    meant: tuple[float, float]
    at: Span | None
    sampled_at: Span | None
    clamped: Span | None = None
    connected: bool = True
    missing: bool = False
    reversed: bool = False

    @property
    def exact(self) -> bool:
        """Whether the density in the loss is that of the sample."""
        pairs = zip(self.sampled, self.meant, strict=True)
        return self.normalised and all(abs(m / abs(s) - 1) < EXACT for s, m in pairs)

    @property
    def apart(self) -> bool:
        """Whether this is a density, and of another scale than the sample's.

        A scale off by one factor f at a weight of f² is a slip at the logarithm of the scale, one
        of √2 or √½ a half too much or missing beside the squared distance.
        """
        (s, t), (m, n) = self.sampled, self.meant
        slip = abs(m * t / (n * s) - 1) < EXACT if n * s else True
        square = (s / m) ** 2 if m else 1.0
        halved = min(abs(square - 2), abs(square - 0.5)) < EXACT
        slip = slip and (halved or abs(self.weight * square - 1) < EXACT)
        return self.normalised and not self.exact and not slip

    @property
    def standard(self) -> bool:
        """Whether its weight is that of a KL."""
        return self.exact and self.weight != 0

    @property
    def prior(self) -> str:
        """The prior that the KL is measured against."""
        return "the loss's own prior"


def density(
    subject: Subject,
    anatomy: Anatomy,
    of: Divergence,
    seed: int,
    rewind: Callable[[], None],
) -> Density | None:
    """Read log q off the loss; None where the loss does not read the sample beside the decoder.

    Raises Unavailable where the heads cannot be forced apart.
    """
    flow, latent = anatomy.flow, of.latent
    probe = Probe(subject, anatomy, latent, seed, rewind)
    outputs = [v for op in probe.pins for v in op.makes]
    read = flow.ancestors(loss_value(anatomy), stop=outputs)
    shapes = {x.z.shape for x in probe.alike}
    if latent.z.index not in read or not probe.apart or len(shapes) > 1:
        return None
    found: list[tuple[float, float]] = []
    for setting in of.settings:
        mu, h = probe.leaves(setting.head, 1.0)
        location = probe.one_of(setting.location, latent.z)
        known = _laid_out(probe.one_of(mu.detach(), probe.mu), location)
        if location.shape != known.shape or not torch.allclose(location, known):
            return None
        z = probe.tied(_spread_out(setting.location, seed), latent.z)
        apart = (probe.one_of(z, latent.z) - known).double()
        fit = _fit(probe, probe.scored(mu, h, z), mu, h, apart)
        if fit is None:
            return None
        found.append(fit)
    (w, m), (v, n) = found
    size = max(abs(w), abs(v))
    normalised = m > 0 and n > 0 and abs(w - v) < EXACT * size
    scales = tuple(s.scale for s in of.settings)
    return Density(
        latent,
        of.rows,
        of.units,
        (w + v) / 2 * of.rows,
        (w + v) / 2 * of.rows,
        normalised,
        (scales[0], scales[1]),
        (m, n),
        of.at,
        of.sampled_at,
    )


def _laid_out(values: Tensor, like: Tensor) -> Tensor:
    """Values of a row without the axis that the samples are spread over: `m.unsqueeze(1)`."""
    return values.reshape(like.shape) if values.squeeze().shape == like.squeeze().shape else values


def _spread_out(like: Tensor, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed + 3)
    return ((torch.rand(like.shape, generator=generator) * 2 - 1) * 3).to(like)


def _fit(
    probe: Probe, loss: Tensor, mu: Tensor, h: Tensor, apart: Tensor
) -> tuple[float, float] | None:
    """Weight and scale of the density whose gradient this is; a scale of 0 fits none.

    `apart` is z - m; None where the gradient at the location is not one number times it.
    """
    if not loss.requires_grad:
        return None
    try:
        by_mu, by_h = torch.autograd.grad(loss, [mu, h], allow_unused=True)
    except RuntimeError as error:
        raise Unavailable("the backward pass raises (VAE606)") from error
    if by_mu is None or by_h is None:
        return None
    by_mu = _laid_out(probe.one_of(by_mu, probe.mu, add=True), apart)
    by_h = _laid_out(probe.one_of(by_h, probe.h, add=True), apart)
    if by_mu.shape != apart.shape or by_h.dim() > apart.dim():
        return None
    slope = float((by_mu.double() * apart).sum() / apart.square().sum())
    left = (by_mu.double() - slope * apart).abs().max()
    if slope == 0 or float(left) > LEFT * float(by_mu.abs().max()):
        return None
    squares = apart.square().flatten()
    columns = torch.stack([torch.ones_like(squares), squares], 1)
    given = by_h.double().expand(apart.shape).reshape(-1, 1)
    a, b = torch.linalg.lstsq(columns, given).solution.flatten().tolist()
    rest = (columns @ torch.tensor([[a], [b]], dtype=torch.float64) - given).abs().max()
    if float(rest) > LEFT * float(given.abs().max()):
        return None
    # log q is in the loss with a plus: a gradient of w (z - m) / σ² at m
    square = -a / b if b != 0 else 0.0
    return (slope * square, square**0.5) if square > 0 else (slope, 0.0)
