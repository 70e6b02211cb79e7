"""The KL to a Gaussian prior that is learned, N(a, b²): whether location and scale agree about b.

With decoder and prior held, KL(q || p) has the gradient w (s²/b² - 1) at log s and the second
derivative w/b² at the location, b of each element. Two settings of the scale give w and b, two
of the location the second derivative: for a KL the two are one. They are not where a square or a
division is forgotten, and what was forgotten is read off the form that does fit every element.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..finding import Span
from ..subject.subject import Subject
from .anatomy import Anatomy
from .divergence import EXACT, LEARNED, Divergence
from .latents import Latent
from .pinning import loss_value
from .probe import Probe, spread

_APART = 0.05  # the priors' own scales have to differ by more than that to tell the forms apart


@dataclass(frozen=True, slots=True)
class LearnedPrior:
    """What the KL makes of the prior's scale b: the powers at the two terms, 2 in a right one.

    `distance` is the power of b that divides the squared distance of the locations, `ratio` that
    of s/b in the scale's term; `factor` the weight of the first over that of the second. `least`
    is b over the scale that the prior's layers give: √½ or √2 where a half is missing.
    """

    latent: Latent
    distance: int
    ratio: int
    factor: float
    at: Span | None
    least: float = 1.0

    @property
    def exact(self) -> bool:
        """Whether this is the KL to a normal prior."""
        powers = self.distance == 2 and self.ratio == 2
        return powers and abs(self.factor - 1) < EXACT and self.least == 1

    @property
    def slip(self) -> str:
        """Which slip it is; empty where it is right, or weighed in a way that may be meant."""
        if self.ratio != 2:
            return "root" if self.ratio == 1 else "fourth power"
        if self.distance != 2:
            return "not squared" if self.distance == 1 else "not divided"
        if self.least != 1:
            return "no half" if self.least < 1 else "one half more"
        return "weight" if any(abs(self.factor / n - 1) < EXACT for n in (2.0, 0.5)) else ""


def learned_prior(
    subject: Subject,
    anatomy: Anatomy,
    of: Divergence,
    seed: int,
    rewind: Callable[[], None],
) -> LearnedPrior | None:
    """Compare the terms of a KL to a learned prior; None where they are not those of any."""
    first = of.settings[0]
    probe = Probe(subject, anatomy, of.latent, seed, rewind)
    again = probe.measure(first.head, reach=2.0)
    moved = (again.location - first.location).double().flatten()
    known = (len(first.pulls), len(again.pulls), len(first.slopes), len(of.settings[1].slopes))
    if set(known) != {moved.numel()} or not probe.apart or bool((moved == 0).any()):
        return None
    curvature = (again.pulls - first.pulls) / moved
    if bool((curvature <= 0).any()) or not torch.allclose(again.slopes, first.slopes, rtol=LEARNED):
        return None
    for ratio in (2, 1, 4):
        found = _scale(of, ratio)
        if found is None:
            continue
        weight, scale = found
        for distance in (2, 1, 0):
            factors = curvature * scale**distance / weight
            if spread(factors) < LEARNED:
                factor = float(factors.mean())
                least = 1.0
                if distance == ratio == 2 and abs(factor - 1) < EXACT:
                    least = _least(anatomy, scale.reshape(first.location.shape))
                return LearnedPrior(of.latent, distance, ratio, factor, of.at, least)
    return None


def _least(anatomy: Anatomy, scale: Tensor) -> float:
    """The KL's b over the prior's scale as it was computed: √½, √2, or 1 where that is b itself.

    A loss cannot tell N(a, b²) from N(a, 2b²) with a half missing. The model can: it holds b, its
    square, inverse or logarithm as a tensor, or, if not, one of them of √2 or √½ times b.
    """
    flow, loss = anatomy.flow, loss_value(anatomy)
    behind, seen = flow.ancestors(loss), set[float]()
    for value in anatomy.recording.values:
        if value.index not in behind:
            continue
        made = value.tensor.detach().double()
        if not value.tensor.is_floating_point() or not _spans(made, scale):
            continue
        logs = [made, *([made.log()] if bool((made > 0).all()) else [])]
        for log in (factor * log for log in logs for factor in (1.0, 0.5, -1.0, -0.5)):
            apart = scale.log() - log
            off = float(apart.mean())
            if float((apart - off).abs().max()) < LEARNED:
                seen.add(off)
    if any(abs(off) < LEARNED for off in seen):
        return 1.0
    halves = (off for off in seen if abs(abs(off) - 0.5 * math.log(2)) < LEARNED)
    return next((math.exp(off) for off in halves), 1.0)


def _spans(made: Tensor, scale: Tensor) -> bool:
    """Whether a tensor has one number for each element, or for each of a column."""
    return made.shape == scale.shape or (
        made.dim() > 0 and made.shape == scale.shape[-made.dim() :]
    )


def _scale(of: Divergence, power: int) -> tuple[float, Tensor] | None:
    """The weight and the prior's scales for which the gradient at log s is w ((s/b)^power - 1)."""
    low, high = of.settings
    a, b = low.scale**power, high.scale**power
    if abs(a - b) < EXACT:
        return None
    weights = -(low.slopes * b - high.slopes * a) / (b - a)
    weight = float(weights.mean())
    if weight <= 0 or spread(weights) > LEARNED:
        return None
    size = low.slopes / weight + 1
    if bool((size <= 0).any()):
        return None
    scale = (a / size) ** (1 / power)
    return (weight, scale) if spread(scale) > _APART else None
