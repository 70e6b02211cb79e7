"""The KL to a Gaussian prior that is learned, N(a, b²): whether location and scale agree about b.

With decoder and prior held, KL(q || p) has the gradient w (s²/b² - 1) at log s and the second
derivative w/b² at the location, b of each element. Two settings of the scale give w and b, two
of the location the second derivative: for a KL the two are one. They are not where a square or a
division is forgotten, and what was forgotten is read off the form that does fit every element.

A ratio that is upside down has the powers of s/b negative; a distance that is divided by the
posterior's variance has the pull w d/s², and w (s²/b² - d²/s² - 1) at log s.

The prior's own gradient at log b is w (1 - (s² + (m - a)²)/b²): the 1 is that of its logarithm,
which the posterior knows nothing of. It is 2 where b stands for b² in all but the logarithm, -1
where the logarithm is subtracted. Where the distance is multiplied by b² of the ratio, a sign of
the log-variance is turned in one of the two.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

import torch
from torch import Tensor

from ...finding import Number, Span
from ...rule import Unavailable
from ...subject.subject import Subject
from ..anatomy.anatomy import Anatomy, anatomize
from ..anatomy.decoders import predictions
from ..anatomy.latents import Latent
from ..anatomy.pinning import loss_value
from ..runs.flow import Flow
from ..runs.shifted import shifted
from ..runs.step import run_recorded
from . import priorscale
from .divergence import EXACT, FAR, LEARNED, Divergence, isolate
from .probe import Probe
from .quotients import spread

_APART = 0.05  # the priors' own scales have to differ by more than that to tell the forms apart

_DISTANCES = {2: (2, 1, 0, -2), 4: (4, 2, 1, 0), -2: (-2, 2)}
"""Powers of b that may divide the squared distance, by that of the scales' ratio."""


@dataclass(frozen=True, slots=True)
class LearnedPrior:
    """What the KL makes of the prior's scale b: the powers at the two terms, 2 in a right one.

    `distance` is the power of b that divides the squared distance of the locations, `ratio` that
    of s/b in the scale's term; `factor` the weight of the first over that of the second. `least`
    is b over the scale that the prior's layers give: √½ or √2 where a half is missing. `logarithm`
    is the weight of log b beside the rest in what the prior itself is taught. `known` says that a
    tensor holds the b of a KL that means a power of the sampler's scale; `own` that the squared
    distance is divided by the posterior's variance. `twin` is the power of b where one line
    makes what both scales come from, and the sampler's is made of it with 1. `linear` says that the
    locations are pulled with one strength, wherever they are.
    """

    latent: Latent
    distance: int
    ratio: int
    factor: float
    at: Span | None
    least: float = 1.0
    logarithm: float = 1.0
    sampled_at: Span | None = None
    known: bool = False
    own: bool = False
    twin: float = 1.0
    linear: bool = False

    @property
    def exact(self) -> bool:
        """Whether this is the KL to a normal prior."""
        powers = self.distance == 2 and self.ratio == 2 and not self.linear
        alike = abs(self.factor - 1) < EXACT and abs(self.logarithm - 1) < EXACT
        return powers and alike and self.least == self.twin == 1

    @property
    def powers(self) -> dict[str, Number]:
        """The powers at the two terms, as a report names them."""
        return {
            "power of the prior's scale": self.distance,
            "power of the scales' ratio": self.ratio,
        }

    @property
    def misread(self) -> float:
        """The power of the sampler's scale that is the standard deviation in the KL; 0 if none."""
        power = self.ratio / 2
        fits = self.distance == self.ratio != 2 and abs(self.factor * power - 1) < EXACT
        return power if fits and self.known else 0.0

    @property
    def slip(self) -> str:
        """Which slip it is; empty where it is right, or weighed in a way that may be meant."""
        if self.misread:
            return ""
        if self.own:
            return "own variance"
        if self.linear:
            return "linear"
        if self.ratio < 0:
            fits = self.distance == 2 and abs(abs(self.factor) - 1) < EXACT
            return "upside down" if fits else ""
        if self.ratio != 2:
            return "root" if self.ratio == 1 else "fourth power"
        if self.distance == -2:
            return "multiplied" if abs(self.factor - 1) < EXACT else ""
        if self.distance != 2:
            return "not squared" if self.distance == 1 else "not divided"
        if self.least != 1:
            return "no half" if self.least < 1 else "one half more"
        if self.twin != 1:
            return "twin"
        if any(abs(self.logarithm - n) < EXACT for n in (2.0, 0.5, 0.0)):
            return "logarithm"
        if abs(self.logarithm + 1) < EXACT:
            return "turned"
        return "weight" if any(abs(self.factor / n - 1) < EXACT for n in (2.0, 0.5)) else ""


@dataclass(frozen=True, slots=True)
class Learned:
    """A KL to another prior than N(0, I): its weight a row, 0 where not known, and its terms."""

    weight: float
    prior: LearnedPrior | None


def learned(
    subject: Subject,
    anatomy: Anatomy,
    of: Divergence,
    seed: int,
    rewind: Callable[[], None],
) -> Learned:
    """Compare the terms of a KL to a learned prior.

    Priors that all start at one scale are given unlike ones for a while.
    """
    found = _learned(subject, anatomy, of, seed, rewind)
    weights = {} if found.weight or found.prior else _of_the_prior(anatomy)
    if not weights:
        return found
    with shifted(weights.values(), rewind) as again:
        run = run_recorded(subject, seed=seed)
        again()
        if run.error is not None or len(run.values) != len(anatomy.recording.values):
            return found
        moved = anatomize(run, Flow(run, anatomy.flow.carried, anatomy.flow.outside))
        for latent in moved.latents:
            if latent.z.index == of.latent.z.index:
                apart = isolate(subject, moved, latent, seed, again)
                return _learned(subject, moved, apart, seed, again)
    return found


def _learned(
    subject: Subject, anatomy: Anatomy, of: Divergence, seed: int, rewind: Callable[[], None]
) -> Learned:
    run = subject, anatomy, of, seed, rewind
    return Learned(_weight(*run), _compared(*run))


def _weight(
    subject: Subject, anatomy: Anatomy, of: Divergence, seed: int, rewind: Callable[[], None]
) -> float:
    """A negative one is measured again far from the prior, where no capacity is left."""
    way, weight = of.gaussian
    if way != "forward" or weight >= 0:
        return weight if way == "forward" else 0.0
    with suppress(Unavailable):
        far = isolate(subject, anatomy, of.latent, seed, rewind, reach=FAR).gaussian
        return max(weight, far[1]) if far[0] == "forward" else 0.0
    return 0.0


def _of_the_prior(anatomy: Anatomy) -> dict[int, Tensor]:
    """The parameters that the loss is made of, and neither x_hat nor any sample or posterior is."""
    flow = anatomy.flow
    ends = [v for x in anatomy.latents for v in (x.z, x.loc, x.scale) if v is not None]
    others = flow.ancestors(*ends, *predictions(anatomy))
    behind = flow.ancestors(loss_value(anatomy)) - others
    return {
        id(v.tensor): v.tensor
        for v in anatomy.recording.values
        if v.index in behind and v.source == "parameter" and v.tensor.requires_grad
    }


def _compared(
    subject: Subject,
    anatomy: Anatomy,
    of: Divergence,
    seed: int,
    rewind: Callable[[], None],
) -> LearnedPrior | None:
    first = of.settings[0]
    probe = Probe(subject, anatomy, of.latent, seed, rewind)
    again = probe.measure(first.head, reach=2.0)
    moved = (again.location - first.location).double().flatten()
    known = (len(first.pulls), len(again.pulls), len(first.slopes), len(of.settings[1].slopes))
    if set(known) != {moved.numel()} or not probe.apart or bool((moved == 0).any()):
        return None
    curvature = (again.pulls - first.pulls) / moved
    if torch.allclose(again.pulls, first.pulls, rtol=EXACT):
        return _unbent(of)
    if bool((curvature <= 0).any()):
        return None
    if not torch.allclose(again.slopes, first.slopes, rtol=LEARNED):
        return _own_variance(of, curvature)
    for ratio in (2, 1, 4, -2):
        found = _scale(of, ratio)
        if found is None:
            continue
        weight, scale = found
        for distance in _DISTANCES.get(ratio, (2, 1, 0)):
            factors = curvature * scale**distance / weight
            if spread(factors) < LEARNED:
                factor = float(factors.mean())
                least = logarithm = twin = 1.0
                at = of.at
                if distance == ratio != 2:
                    b = (scale ** (ratio / 2)).reshape(first.location.shape)
                    held = any(abs(m.off) < LEARNED for m in priorscale.held_by(anatomy, b))
                    made_of = (of.latent, distance, ratio, factor, of.at)
                    return LearnedPrior(*made_of, sampled_at=of.sampled_at, known=held)
                if distance == ratio == 2 and abs(factor - 1) < EXACT:
                    made = list(priorscale.held_by(anatomy, scale.reshape(first.location.shape)))
                    least = priorscale.least(made)
                    if least == 1:
                        twin, at = priorscale.twin(anatomy, of, scale.reshape(first.location.shape))
                        logarithm = _logarithm(probe, of, made, weight, scale)
                made_of = (of.latent, distance, ratio, factor, at)
                return LearnedPrior(*made_of, least, logarithm, twin=twin)
    return None


def _logarithm(
    probe: Probe, of: Divergence, made: list[priorscale.Made], weight: float, scale: Tensor
) -> float:
    """The weight of log b in the prior's own gradient; 1 where that is no KL's, or not known.

    Read at the first value that holds b: all that the loss makes of b comes from it.
    """
    first = of.settings[0]
    held = next((m for m in made if m.value.shape == first.location.shape), None)
    if held is None or held.value.op is None or not held.value.requires_grad:
        return 1.0
    mu, h = probe.leaves(first.head, 1.0)
    slopes = torch.zeros_like(scale)
    for level in (1.0, -1.0):
        run = probe.forced(mu, h, level, held.value)
        given = run.tensors[held.value.index]
        if not given.requires_grad or not run.loss.requires_grad:
            return 1.0
        (slope,) = torch.autograd.grad(run.loss.sum(), [given], allow_unused=True)
        if slope is None:
            return 1.0
        by_log = slope if held.logged else slope * given.detach()
        slopes += by_log.double().flatten() / held.power / 2
    far = first.pulls.double() * scale**2 / weight  # m - a
    apart = (first.scale**2 + far**2) / scale**2
    columns = torch.stack([torch.ones_like(apart), -apart], 1)
    one, rest = torch.linalg.lstsq(columns, slopes.unsqueeze(1)).solution.flatten().tolist()
    left = float((columns @ slopes.new_tensor([one, rest]) - slopes).abs().max())
    if rest <= 0 or left > LEARNED * float(slopes.abs().max()):
        return 1.0
    return float(one / rest)


def _scale(of: Divergence, power: int) -> tuple[float, Tensor] | None:
    """The weight and the prior's scales for which the gradient at log s is w ((s/b)^power - 1).

    A negative power has a negative weight, or the sign of the ratio's term turned.
    """
    high, low = sorted(of.settings, key=lambda s: -s.scale)  # the larger loses fewer digits below
    a, b = low.scale**power, high.scale**power
    if abs(a - b) < EXACT:
        return None
    weights = -(low.slopes * b - high.slopes * a) / (b - a)
    weight = float(weights.mean())
    if weight == 0 or (weight < 0 < power) or spread(weights) > LEARNED:
        return None
    size = high.slopes / weight + 1
    if power < 0 < weight:
        size = -size
    if bool((size <= 0).any()):
        return None
    scale = (b / size) ** (1 / power)
    return (weight, scale) if spread(scale) > _APART else None


def _unbent(of: Divergence) -> LearnedPrior | None:
    """A KL whose scales' term is right, and whose locations' distance lacks its square."""
    found, pulls = _scale(of, 2), of.settings[0].pulls
    if found is None or bool((pulls == 0).any()):
        return None
    weight, scale = found
    factors = (pulls * scale**2 / weight).abs()
    if spread(factors) > LEARNED:
        return None
    return LearnedPrior(of.latent, 2, 2, float(factors.mean()), of.at, linear=True)


def _own_variance(of: Divergence, curvature: Tensor) -> LearnedPrior | None:
    """A KL whose squared distance is divided by the posterior's variance; None where it is not."""
    weights = curvature * of.settings[0].scale ** 2
    if spread(weights) > LEARNED or any(s.pulls.shape != curvature.shape for s in of.settings):
        return None
    weight = float(weights.mean())
    far = [s.pulls * s.scale**2 / weight for s in of.settings]
    left = [
        (s.slopes / weight + (d / s.scale) ** 2 + 1) / s.scale**2
        for s, d in zip(of.settings, far, strict=True)
    ]  # 1/b²
    alike = all(torch.allclose(p, q, rtol=LEARNED) for p, q in (far, left))
    if not alike or bool((left[0] <= 0).any()):
        return None
    return LearnedPrior(of.latent, 0, 2, 1.0, of.at, own=True)
