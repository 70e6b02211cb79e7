"""The KL of a Laplace latent to Laplace(0, p), isolated as in `divergence.py`.

With the decoder held, heads and noise forced, and the sampler's own location m and scale b, the KL
is |m|/p + b/p exp(-|m|/b) - log b but for constants; an estimate by one sample, averaged over noise
of both signs, has (|z₊| + |z₋|) / 2p in the place of the first two. The gradient at the location
gives w/p, the same for all elements where the prior is one of these, and what is left of the
gradient at the scale has to be -w/b with one w for all elements too. The KL the other way round is
log b + |m|/b + exp(-|m|)/b: one weight for both of its gradients, near the prior and far from it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ...finding import Number, Span
from ...rule import Unavailable
from ...subject.subject import Subject
from ..anatomy.anatomy import Anatomy
from ..anatomy.latents import Latent
from ..anatomy.moves import inputs_of
from ..runs.recording import Value
from .divergence import EXACT, FAR
from .locationscale import LocationScale
from .probe import Probe
from .quotients import EVEN, pulled_back, spread

NEAR = 3.0  # of the location: further than one scale away, where one sample's |z| has a slope
LEVEL = 1 - math.exp(-1)  # of a uniform draw on (-1, 1): one scale from the location


@dataclass(frozen=True, slots=True)
class LaplaceKL(LocationScale):
    """What the loss makes of one Laplace latent.

    `pulls` is the weight a row of the location's term at two settings of the scale head, `logs`
    that of the logarithm; `far` the first of them far from the prior. NaN where it is uneven.
    """

    latent: Latent
    rows: int
    units: int
    pulls: tuple[float, float]
    logs: tuple[float, float]
    far: float
    missing: bool
    connected: bool
    at: Span | None
    sampled_at: Span | None
    clamped: Span | None = None
    reversed: bool = False
    backs: tuple[float, float, float] = (math.nan, math.nan, math.nan)

    @property
    def reverse_evidence(self) -> dict[str, Number]:
        """The measurement behind `reversed`."""
        return {"weights of KL(p || q) near and far from the prior": list(self.backs)}

    @property
    def located(self) -> bool:
        """Whether the location's term is that of a KL to a Laplace distribution around 0."""
        low, high = self.pulls
        size = max(abs(low), abs(high))
        return size > 0 and abs(low - high) < EXACT * size and abs(self.far - low) < EXACT * size

    @property
    def exact(self) -> bool:
        """Whether the scale's term belongs to the same KL, whatever the prior's own scale."""
        low, high = self.logs
        one = self.located and abs(low - high) < EXACT * max(abs(low), abs(high))
        return one and low * self.pulls[0] > 0

    @property
    def standard(self) -> bool:
        """Whether this is the KL to Laplace(0, 1), with some weight."""
        return self.exact and abs(self.logs[0] / self.pulls[0] - 1) < EXACT

    @property
    def weight(self) -> float:
        """The KL's weight a row."""
        return sum(self.pulls) / 2

    @property
    def prior(self) -> str:
        """The prior that the KL is measured against."""
        return "Laplace(0, 1)"


def is_laplace(latent: Latent) -> bool:
    """Whether a latent is location + scale * Laplace noise."""
    return latent.family == "laplace" and latent.loc is not None and latent.scale is not None


def laplace_probe(
    subject: Subject, anatomy: Anatomy, latent: Latent, seed: int, rewind: Callable[[], None]
) -> Probe:
    """Where to force a Laplace latent's heads and noise. Raises Unavailable with the reason."""
    probe = Probe(subject, anatomy, latent, seed, rewind, families={"laplace"})
    if not probe.apart or latent.draw.op is None:
        raise Unavailable("location and scale of the Laplace latent cannot be forced apart")
    probe.noise = [(x.draw.value, 1.0) for x in probe.alike]
    return probe


def laplace_kl(
    subject: Subject, anatomy: Anatomy, latent: Latent, seed: int, rewind: Callable[[], None]
) -> LaplaceKL:
    """Measure the KL of one Laplace latent. Raises Unavailable with the reason."""
    probe = laplace_probe(subject, anatomy, latent, seed, rewind)
    high, low = (1.0, -1.0) if probe.signed else (2.0, 0.5)
    first, second = (measure(probe, head, NEAR) for head in (high, low))
    far = measure(probe, high, FAR)
    inputs = [v.shape for v in inputs_of(anatomy.recording) if v.shape]
    rows = inputs[0][0] if inputs else 1
    silent = all(s.silent for s in (first, second, far))
    return LaplaceKL(
        latent,
        rows,
        latent.z.tensor.numel() // max(1, rows),
        (first.pull * rows, second.pull * rows),
        (first.log * rows, second.log * rows),
        far.pull * rows,
        silent,
        any(s.connected for s in (first, second, far)),
        probe.at,
        latent.meeting.span,
        probe.clamped,
        _one_weight(first.back, second.back, far.back),
        (first.back * rows, second.back * rows, far.back * rows),
    )


def _one_weight(*weights: float) -> bool:
    """Whether several weights are the same, and positive; NaN is none."""
    return weights[0] > 0 and all(abs(w / weights[0] - 1) < EXACT for w in weights)


@dataclass(frozen=True, slots=True)
class Setting:
    """The weights of a location's term and of a logarithm, an element, and of the reverse KL."""

    pull: float
    log: float
    silent: bool
    connected: bool
    back: float = math.nan


def measure(probe: Probe, forced: float, reach: float, term: Value | None = None) -> Setting:
    """What the loss, or a term of it, makes of one value of the scale head."""
    mu, h = probe.leaves(forced, reach)
    loc, scale = probe.latent.loc, probe.latent.scale
    assert loc is not None
    assert scale is not None
    keep = (loc, scale) if term is None else (loc, scale, term)
    runs = [probe.forced(mu, h, level, *keep) for level in levels(probe)]
    above, below = (run.tensors[probe.latent.z.index] for run in runs)
    m, b = (runs[0].tensors[v.index] for v in (loc, scale))
    if not torch.allclose((above + below) / 2, m.expand_as(above), atol=1e-4):
        raise Unavailable("the sampler is not location + scale * noise")
    if not bool((b > 0).all()):
        raise Unavailable("the Laplace latent's scale is not positive")
    made = [run.loss if term is None else run.tensors[term.index] for run in runs]
    loss = torch.stack([m.sum() for m in made]).mean()
    given = pulled_back(loss, mu, h)
    if all(g is None or not bool((g != 0).any()) for g in given):
        return Setting(0.0, 0.0, True, given[0] is not None)
    by_mu, by_h = (
        torch.zeros_like(t) if g is None else g for g, t in zip(given, (mu, h), strict=True)
    )
    back = (b.log() + m.abs() / b + (-m.abs()).exp() / b).sum()  # KL(p || q)
    backs = [
        _even(g, r)
        for g, r in zip((by_mu, by_h), pulled_back(back, mu, h), strict=True)
        if r is not None
    ]
    one = len(backs) == 2 and _one_weight(*backs)
    weight = backs[0] if one else math.nan
    closed = (m.abs() + b * (-m.abs() / b).exp()).sum()
    drawn = (above.abs() + below.abs()).sum() / 2
    logs = -b.log().sum()
    for whole in (closed, drawn):
        ref_mu, ref_h = (
            g if g is not None else torch.zeros_like(mu) for g in pulled_back(whole, mu, h)
        )
        (_, log_h) = pulled_back(logs, mu, h)
        if log_h is None or bool((log_h == 0).any()):
            break
        pull = _even(by_mu, ref_mu)
        if math.isfinite(pull):
            left = (by_h.double() - pull * ref_h.double()) / log_h.double()
            log = float(left.mean())
            even = float((left - log).abs().max()) < EVEN * max(abs(pull), abs(log))
            return Setting(pull, log if even else math.nan, False, True, weight)
    return Setting(math.nan, math.nan, False, True, weight)


def levels(probe: Probe) -> tuple[float, float]:
    """A uniform draw's values that lie one scale above and one below the location."""
    op = probe.latent.draw.op
    positive = op is not None and op.noise is not None and bool((op.noise >= 0).all())
    return (0.5 + LEVEL / 2, 0.5 - LEVEL / 2) if positive else (LEVEL, -LEVEL)


def _even(given: Tensor, reference: Tensor) -> float:
    """One factor for all elements between two gradients; NaN where there is none."""
    known = reference.abs() > EVEN * reference.abs().max()
    if not bool(known.any() & (given != 0).any()) or bool(
        (given[~known].abs() > EVEN * given.abs().max()).any()
    ):
        return math.nan
    factors = given[known].double() / reference[known].double()
    return float(factors.mean()) if spread(factors) < 10 * EVEN else math.nan
