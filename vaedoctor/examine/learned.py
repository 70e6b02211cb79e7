"""The KL to a Gaussian prior that is learned, N(a, b²): whether location and scale agree about b.

With decoder and prior held, KL(q || p) has the gradient w (s²/b² - 1) at log s and the second
derivative w/b² at the location, b of each element. Two settings of the scale give w and b, two
of the location the second derivative: for a KL the two are one. They are not where a square or a
division is forgotten, and what was forgotten is read off the form that does fit every element.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..finding import Span
from ..subject.subject import Subject
from .anatomy import Anatomy
from .divergence import EXACT, LEARNED, Divergence
from .latents import Latent
from .probe import Probe, spread

_APART = 0.05  # the priors' own scales have to differ by more than that to tell the forms apart


@dataclass(frozen=True, slots=True)
class LearnedPrior:
    """What the KL makes of the prior's scale b: the powers at the two terms, 2 in a right one.

    `distance` is the power of b that divides the squared distance of the locations, `ratio` that
    of s/b in the scale's term; `factor` the weight of the first over that of the second.
    """

    latent: Latent
    distance: int
    ratio: int
    factor: float
    at: Span | None

    @property
    def exact(self) -> bool:
        """Whether this is the KL to a normal prior."""
        return self.distance == 2 and self.ratio == 2 and abs(self.factor - 1) < EXACT

    @property
    def slip(self) -> str:
        """What is wrong with it; empty where it is right, or weighed in a way that may be meant."""
        if self.ratio == 1:
            return "the scale's term of the KL has the ratio of the scales where its square belongs"
        if self.ratio == 4:
            return "the scale's term of the KL squares the ratio of the two variances"
        if self.distance == 1:
            return "the KL divides the means' squared distance by the prior's scale, not its square"
        if self.distance == 0:
            return (
                "the KL does not divide the squared distance of the means by the prior's variance"
            )
        halved = next((n for n in (2.0, 0.5) if abs(self.factor / n - 1) < EXACT), 0)
        return f"the means weigh {halved:g} times as much in the KL as the scales" if halved else ""


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
                return LearnedPrior(of.latent, distance, ratio, factor, of.at)
    return None


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
