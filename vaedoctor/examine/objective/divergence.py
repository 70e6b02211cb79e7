"""The KL, isolated: what is left of the loss when the decoder is held fixed.

The outputs of the first layers after the sample are replaced by constants, so the loss depends on
the posterior's parameters through KL-like terms only, even when the user returns one total. The
two heads are forced to known values and the noise to +1 and -1: the mean of the two runs has the
gradient of the exact KL to N(0, I) whether the loss computes it in closed form or by one sample
(the terms that are odd in the noise cancel, and eps² = 1).

With the sampler's own location m = (z₊ + z₋)/2 and scale s = (z₊ - z₋)/2 the reference is
K = ½ Σ (m² + s² - log s²) (Kingma and Welling 2014, appendix B), so that any parametrisation is
compared with what is really sampled: `weight` is dL/dm over dK/dm, `ratios` dL/dh over
weight · dK/dh at two values of the scale head, 1 for every exact Gaussian KL.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from ...finding import Number, Span
from ...rule import Unavailable
from ...subject.subject import Subject
from ..anatomy.anatomy import Anatomy
from ..anatomy.latents import Latent
from ..anatomy.moves import inputs_of
from ..anatomy.pinning import loss_value
from ..runs.flow import PAIRWISE, RESHAPES, SLICES
from .locationscale import LocationScale
from .probe import Probe, Setting
from .quotients import EVEN, spread

EXACT = 0.02  # |R - 1| of an exact KL in float32 stays far below; the mildest known slip gives .42
LEARNED = 5e-3  # the same, of a prior whose every element differs
FAR = 10.0  # far outside any free-bits zone: 50 nats a unit

MEANINGS: dict[str, Callable[[Tensor], Tensor]] = {
    "exp(h / 2)": lambda h: (0.5 * h).exp(),
    "exp(h)": torch.exp,
    "exp(h / 4)": lambda h: (0.25 * h).exp(),
    "exp(-h / 2)": lambda h: (-0.5 * h).exp(),
    "exp(-h)": lambda h: (-h).exp(),
    "softplus(h)": F.softplus,
    "softplus(h) ** 0.5": lambda h: F.softplus(h).sqrt(),
    "h": lambda h: h,
    "h ** 0.5": lambda h: h.clamp_min(0).sqrt(),
    "sigmoid(h)": torch.sigmoid,
}
"""Standard deviations that a scale head `h` may stand for."""


@dataclass(frozen=True, slots=True)
class Divergence(LocationScale):
    """The isolated KL of one latent at two settings of its scale head.

    `rows` is the batch size, `units` the latent's elements a row; `meaning` names the standard
    deviation that the loss's gradient does fit when it does not fit the sampler's; `aside` says
    that a term in which the sample meets further draws was held too: a discrepancy, or log p;
    `third` is a setting between the two, measured where they fit a prior of another width.
    """

    latent: Latent
    rows: int
    units: int
    settings: tuple[Setting, Setting]
    far: float
    meaning: str
    meant: tuple[float, float]
    clamped: Span | None
    at: Span | None
    sampled_at: Span | None
    scale_at: Span | None
    aside: bool = False
    third: Setting | None = None

    @property
    def missing(self) -> bool:
        """Whether the loss has no gradient at location or scale, near the prior and far from it."""
        silent = all(s.weight == 0 and not bool((s.gradient != 0).any()) for s in self.settings)
        return silent and self.far == 0

    @property
    def entropy_only(self) -> bool:
        """Whether all that is left of the KL is -Σ log s: no prior pulls the location or scale."""
        low, high = self.settings
        pulls = [low.weight, high.weight, self.far]
        if self.aside or max(map(abs, pulls)) > EVEN * abs(low.entropy):
            return False
        return low.entropy * high.entropy > 0 and (
            abs(low.entropy - high.entropy) < EXACT * abs(low.entropy)
        )

    @property
    def connected(self) -> bool:
        """Whether autograd knows a way from the loss to the location, be its gradient 0 or not."""
        return any(s.connected for s in self.settings)

    @property
    def reversed(self) -> bool:
        """Whether location and scale both enter as in KL(p || q), element by element.

        That has the pull w (m - a)/s² at the location, so that pull times s² is the same at both
        scales, and w (1 - c/s²) at log s: a scale that is read upside down gives the second alone,
        a distance divided by the posterior's variance the first.
        """
        if self.standard:
            return False
        low, high = self.settings
        if all(s.weight != 0 and s.reverse < EVEN for s in self.settings):
            pulled = (low.weight * low.scale**2 + high.weight * high.scale**2) / 2
            found = self._by_inverse()
            return found is None or (
                spread(found) < LEARNED and abs(float(found.mean()) / pulled - 1) < EXACT
            )
        if self.gaussian[0] != "reverse" or self.gaussian[1] <= 0:
            return False
        if low.pulls.numel() == 0 or low.pulls.shape != high.pulls.shape:
            return True
        apart = (low.pulls * low.scale**2 - high.pulls * high.scale**2).abs().max()
        return float(apart) < EXACT * float(low.pulls.abs().max()) * low.scale**2

    def _by_inverse(self) -> Tensor | None:
        """The w of every element for which the gradient at log s is w (1 - c/s²), if measured."""
        low, high = self.settings
        a, b = low.scale**2, high.scale**2
        if low.slopes.shape != high.slopes.shape or low.slopes.numel() < 2 or abs(a - b) < EXACT:
            return None
        return (low.slopes * a - high.slopes * b) / (a - b)

    @property
    def gaussian(self) -> tuple[str, float]:
        """Which way the KL to some other Gaussian is taken, and its weight a row.

        The gradient at log s is w (s²/b² - 1) for KL(q || p), and w (1 - c/s²) for the reverse,
        with b and c of each element: w is the same for all where the elements of b, or c, differ.
        """
        low, high = self.settings
        a, b = low.scale**2, high.scale**2
        reverse = self._by_inverse()
        if reverse is None:
            return "", 0.0
        forward = -(low.slopes * b - high.slopes * a) / (b - a)
        even = spread(forward) < LEARNED, spread(reverse) < LEARNED
        if even == (True, False) and spread(reverse) > EXACT:
            return "forward", float(forward.mean()) * self.rows
        if even == (False, True) and spread(forward) > EXACT:
            return "reverse", float(reverse.mean()) * self.rows
        return "", 0.0

    @property
    def pull(self) -> float:
        """How strongly the loss pulls the location, on average, at the first setting."""
        return float(self.settings[0].pulls.abs().mean())

    @property
    def bent(self) -> str:
        """As what the location enters, where the scale's term is that of a KL to N(0, I).

        That term says that the prior has a second derivative of 1 everywhere, so that the location
        has to enter by its square: a pull of one size is no KL's.
        """
        if self.standard or any(s.slopes.numel() < 2 or s.pulls.numel() < 2 for s in self.settings):
            return ""
        forms = set()
        weights = []
        for s in self.settings:
            unit = s.scale**2 - 1
            if spread(s.slopes) > EVEN or abs(unit) < EXACT or not bool((s.pulls != 0).all()):
                return ""
            weights.append(float(s.slopes.mean()) / unit)
            signs = s.location.double().flatten().sign()
            by_size, plain = s.pulls.double() * signs, s.pulls
            forms.add("|mu|" if spread(by_size) < EVEN else "mu" if spread(plain) < EVEN else "")
        even = weights[0] != 0 and abs(weights[0] - weights[1]) < EXACT * abs(weights[0])
        return forms.pop() if even and len(forms) == 1 else ""

    @property
    def weight(self) -> float:
        """The KL's weight in the loss, per row."""
        return sum(s.weight for s in self.settings) / 2 * self.rows

    @property
    def standard(self) -> bool:
        """Whether the location term is that of a KL to N(0, I): one weight for all elements."""
        low, high = self.settings
        size = max(abs(low.weight), abs(high.weight))
        even = all(s.spread < EVEN for s in self.settings)
        return size > 0 and even and abs(low.weight - high.weight) < EVEN * size

    @property
    def ratios(self) -> tuple[float, float]:
        """R at the two settings: (1, 1) when the loss means the scale that is sampled."""
        return self.settings[0].ratio, self.settings[1].ratio

    @property
    def exact(self) -> bool:
        """Whether the scale term too is that of the sampler's own KL to N(0, I)."""
        return all(abs(r - 1) < EXACT for r in self.ratios)

    @property
    def width(self) -> float | None:
        """The standard deviation w of a prior N(0, w² I) that the scale term fits, if any does.

        With the location's weight as unit the gradient at log s is s² - w²; a w² of 0, ½ or 2 is
        that of a forgotten logarithm, or of one with the wrong factor. Two scales that are each
        other's inverse cannot tell s² from -1/s²: a third has to agree.
        """
        (low, high), (r, t) = self.settings, self.ratios
        a, b = low.scale**2, high.scale**2
        if not self.judgeable or abs(a - b) < EXACT:
            return None
        by_low, by_high = r * (a - 1), t * (b - 1)
        slope = (by_low - by_high) / (a - b)
        squared = a - by_low
        slip = squared < EVEN or abs(squared - 2) < EXACT or abs(squared - 0.5) < EXACT / 2
        if slip or abs(slope - 1) > EXACT:
            return None
        c = self.third.scale**2 if self.third is not None else 1.0
        agrees = self.third is None or abs(self.third.ratio * (c - 1) - (c - squared)) < EXACT * c
        return math.sqrt(squared) if agrees else None

    @property
    def prior(self) -> str:
        """The prior that the KL is measured against."""
        return "N(0, I)"

    @property
    def reverse_evidence(self) -> dict[str, Number]:
        """The measurement behind `reversed`."""
        low, high = self.settings
        return {
            "weights at the two scales": [low.weight, high.weight],
            "scales": [low.scale, high.scale],
        }

    @property
    def judgeable(self) -> bool:
        """Whether the scale term is one function of the scale, as any KL to N(0, I) is."""
        return self.standard and all(s.ratio_spread < EXACT for s in self.settings)


def isolate(
    subject: Subject,
    anatomy: Anatomy,
    latent: Latent,
    seed: int,
    rewind: Callable[[], None],
    *,
    reach: float = 1.0,
) -> Divergence:
    """Measure the KL of one latent. Raises Unavailable with the reason where that cannot be."""
    probe = Probe(subject, anatomy, latent, seed, rewind)
    low, high = (1.0, -1.0) if probe.signed else (2.0, 0.5)
    settings = (probe.measure(high, reach=reach), probe.measure(low, reach=reach))
    if probe.signed and any(abs(s.scale**2 - 1) < EXACT for s in settings):
        low, high = 2.0, -0.5  # a scale of 1 has no slope that could tell anything
        settings = (probe.measure(high, reach=reach), probe.measure(low, reach=reach))
    if probe.signed and not settings[0].finite and settings[1].finite:
        low, high = 2.0, 0.5  # a precision, by hand
        settings = (probe.measure(high, reach=reach), probe.measure(low, reach=reach))
    if not all(s.finite for s in settings):
        raise Unavailable("the loss is not finite where the posterior is forced")
    far = 0.0
    if reach == 1.0 and all(s.weight <= 0 for s in settings):
        far = probe.measure(high, reach=FAR).weight
    meaning, meant = _meaning(settings) if probe.apart else ("", (0.0, 0.0))
    inputs = [v.shape for v in inputs_of(anatomy.recording) if v.shape]
    rows = inputs[0][0] if inputs else 1
    units = latent.z.tensor.numel() // max(1, rows * probe.samples)
    scale = latent.scale.op if latent.scale is not None else None
    made = scale if latent.scale is not probe.h and not _shared(anatomy, latent) else None
    raw = scale is None or scale.name in RESHAPES | SLICES or anatomy.flow.layer(scale)
    if scale is not None and scale.name in PAIRWISE:
        raw = False  # the line that makes the distribution
    found = Divergence(
        latent,
        rows,
        units,
        settings,
        far,
        meaning,
        meant,
        probe.clamped,
        probe.at,
        (made or latent.meeting).span,
        latent.meeting.span if raw or scale is None else scale.span,
        probe.judged_aside,
    )
    if found.width is None:
        return found
    return replace(found, third=probe.measure(0.75 * high + 0.25 * low, reach=reach))


def _shared(anatomy: Anatomy, latent: Latent) -> bool:
    """Whether the loss reads the sampler's scale too: then its use is wrong, not its making."""
    flow, loss, scale = anatomy.flow, loss_value(anatomy), latent.scale
    if scale is None:
        return False
    terms = flow.ancestors(loss, stop=[latent.z]) - flow.ancestors(latent.z)
    readers = flow.consumers.get(scale.index, ())
    return any(m.index in terms for op in readers for m in op.makes)


def one_setting(
    subject: Subject,
    anatomy: Anatomy,
    latent: Latent,
    seed: int,
    rewind: Callable[[], None],
) -> Setting:
    """The KL at one value of the scale head: enough for its weight."""
    probe = Probe(subject, anatomy, latent, seed, rewind)
    return probe.measure(1.0 if probe.signed else 2.0)


def _meaning(settings: tuple[Setting, Setting]) -> tuple[str, tuple[float, float]]:
    """The standard deviation of the head that the loss's gradient fits at both settings."""
    for name, scale in MEANINGS.items():
        fits, values = True, []
        for s in settings:
            std, slope = _meant(scale, s.head)
            if s.weight == 0 or not math.isfinite(slope) or slope == 0:
                fits = False
                break
            ratio = float(s.gradient.mean()) / (s.weight * slope)
            fits &= abs(ratio - 1) < EXACT
            values.append(std)
        if fits:
            return name, (values[0], values[1])
    return "", (0.0, 0.0)


@functools.cache
def _meant(scale: Callable[[Tensor], Tensor], head: float) -> tuple[float, float]:
    """The standard deviation that a head stands for, and the slope of the KL there."""
    h = torch.full((), head, dtype=torch.float64, requires_grad=True)
    std = scale(h)
    (slope,) = torch.autograd.grad(0.5 * std**2 - std.abs().log(), h)
    return float(std.detach()), float(slope)
