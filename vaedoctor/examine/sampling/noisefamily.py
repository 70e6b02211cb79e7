"""Is the noise that the loss's KL takes for Gaussian Gaussian? Its family, mean and spread."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ...finding import Span
from ...rule import Unavailable
from ...subject.subject import Subject
from ..anatomy.anatomy import Anatomy
from ..anatomy.geometry import NORMAL
from ..anatomy.latents import Latent
from ..objective.divergence import EXACT
from ..objective.probe import AFFINE, Probe
from ..runs.flow import Flow
from ..runs.recording import Op

FAMILIES = AFFINE | {"laplace", "logistic", "gumbel"}
MOST = 3  # latents that are looked at
SHIFT = 0.2  # of a standard deviation: a clamped tail or a rounding moves the mean less
SPREAD = 0.15  # of a standard deviation
FEW = 16  # numbers: as many of a centred draw are of one sign once in 2^15
LEVEL = 0.5  # inside the support of every draw that makes Laplace or logistic noise


@dataclass(frozen=True, slots=True)
class Misfit:
    """Noise that is not standard normal although the isolated KL is a Gaussian's.

    `kind` is "family", "shape" (Gaussian noise bent on its way), "moments", or "one-sided" where
    no KL was found that could say what the noise is to be.
    """

    latent: Latent
    kind: str
    drawn: str
    mean: float
    std: float
    smallest: float
    largest: float
    at: Span | None


def misfits(
    subject: Subject,
    anatomy: Anatomy,
    seed: int,
    rewind: Callable[[], None],
    known: Callable[[Latent], bool],
) -> Iterator[Misfit]:
    """Every sampler with another noise than the KL in the loss takes it to be.

    `known` says of a latent that the loss scores it by a normal density, whatever the prior.
    """
    told: set[Span] = set()
    for latent in anatomy.sampled[:MOST]:
        noise = _noise(anatomy.flow, latent)
        found = _suspect(latent, noise) if noise is not None else None
        if found is None or noise is None:
            continue
        kind, at = found
        run = (subject, anatomy, latent, seed, rewind)
        if not _taken_for_gaussian(run, known, bent=kind != "moments"):
            continue
        if at in told:  # one line that draws at every step, or for every level
            continue
        if at is not None:
            told.add(at)
        drawn, values = latent.draw.name, noise.double()
        low, high = float(values.min()), float(values.max())
        moments = _declared(latent) if kind == "moments" else _moments(values)
        yield Misfit(latent, kind, drawn, *moments, low, high, at)


def _taken_for_gaussian(
    run: tuple[Subject, Anatomy, Latent, int, Callable[[], None]],
    known: Callable[[Latent], bool],
    *,
    bent: bool,
) -> bool:
    """Whether the loss scores a latent by a Gaussian's KL, a critic of the sample apart."""
    for critics in (False, True):
        with suppress(Unavailable):
            probe = Probe(*run, families=FAMILIES, critics=critics)
            if _gaussian(probe, bent=bent) or (not critics and known(probe.latent)):
                return True
    return False


def one_sided(anatomy: Anatomy) -> Iterator[Misfit]:
    """Uniform noise that only ever adds to a learned location, scaled by a learned scale.

    It needs no loss: whatever the KL will be, no Gaussian's noise has one sign.
    """
    told: set[Span] = set()
    for latent in anatomy.sampled[:MOST]:
        op, noise = latent.draw.op, _noise(anatomy.flow, latent)
        if op is None or noise is None or latent.family != "uniform" or not _two_heads(latent):
            continue
        values = noise.double()
        certain = noise is op.noise and op.name in ("rand", "rand_like")
        if not (certain or values.numel() >= FEW) or bool((values < 0).any()) or op.span in told:
            continue
        if op.span is not None:
            told.add(op.span)
        low, high = float(values.min()), float(values.max())
        yield Misfit(latent, "one-sided", latent.draw.name, *_moments(values), low, high, op.span)


def _two_heads(latent: Latent) -> bool:
    """Whether location and scale are learned, each by a layer or a part of one."""
    loc, scale = latent.loc_head, latent.scale_head
    return loc is not None and scale is not None and loc.value is not scale.value


def _noise(flow: Flow, latent: Latent) -> Tensor | None:
    """The noise as it meets the encoder's output; None where it is not one draw's alone."""
    draw = latent.draw
    if draw.op is None or draw.op.noise is None or draw.op is latent.meeting:
        return None
    carried = [v for v in latent.meeting.reads if flow.noise[v.index] and not flow.posterior(v)]
    if len(carried) != 1 or flow.noise[carried[0].index] != 1 << draw.bit:
        return None
    if carried[0] is draw.value:
        return draw.op.noise
    return carried[0].tensor.detach()


def _suspect(latent: Latent, noise: Tensor) -> tuple[str, Span | None] | None:
    """What speaks against standard normal noise, and where."""
    op = latent.draw.op
    if op is None or op.noise is None:
        return None
    if latent.family != "gaussian":
        return ("family", op.span) if latent.family in FAMILIES else None
    mean, std = _declared(latent)
    if abs(mean) > SHIFT or abs(std - 1) > SPREAD:
        return "moments", op.span
    drawn, made = op.noise.double().flatten(), noise.double().flatten()
    if drawn.shape != made.shape or drawn.numel() < 8:
        return None
    # A multiple is the scale's matter (VAE303); what is bent or shifted is not a multiple.
    factor = float((made * drawn).sum() / drawn.square().sum())
    rest = made - factor * drawn
    if float(rest.abs().max()) <= 1e-4 * float(made.abs().max()):
        return None
    (was, spread), (now, kept) = _moments(drawn), _moments(made)
    chance = 0.0
    if latent.draw.name not in NORMAL:  # made Gaussian on the way: its own moments are to fit
        was, spread, chance = 0.0, 1.0, 4 / math.sqrt(made.numel())
    if abs(now - was) > SHIFT + chance or abs(kept / spread - 1) > SPREAD + chance:
        return "shape", _bent_at(latent) or op.span
    return None


def _bent_at(latent: Latent) -> Span | None:
    """The operation that made the noise what it is where it meets the encoder's output."""
    for value in latent.meeting.reads:
        if value.op is not None and value is not latent.draw.value and value is not latent.scale:
            behind: Op | None = value.op
            while behind is not None and behind is not latent.draw.op:
                before = [v.op for v in behind.reads if v.op is not None]
                if latent.draw.op in before:
                    return value.op.span
                behind = before[0] if before else None
    return None


def _moments(values: Tensor) -> tuple[float, float]:
    return float(values.mean()), float(values.std())


def _declared(latent: Latent) -> tuple[float, float]:
    """Mean and standard deviation that a draw names as numbers: `normal_(0, 0.1)`."""
    op = latent.draw.op
    if op is None or op.name not in ("normal", "normal_"):
        return 0.0, 1.0
    given = op.args[1:] if op.name == "normal_" else op.args
    mean = _number(op.kwargs.get("mean", given[0] if given else 0.0))
    std = _number(op.kwargs.get("std", given[1] if len(given) > 1 else 1.0))
    return (0.0, 1.0) if mean is None or std is None else (mean, std)


def _number(given: Any) -> float | None:
    """A number, also one that fills a tensor; None where there are several."""
    if isinstance(given, Tensor):
        first = given.detach().flatten()[:1]
        return float(first) if len(first) and bool((given == first).all()) else None
    return float(given) if isinstance(given, (int, float)) else None


def _gaussian(probe: Probe, *, bent: bool) -> bool:
    """Whether the KL is that of a Gaussian with the sampler's location and scale.

    To N(0, I), or in closed form to another Gaussian, such as a learned prior.

    The noise is forced to two sizes n: a KL in closed form does not see them, an estimate by one
    sample of a *Gaussian* density grows by ½(n₂² - n₁²)(s² - 1) a unit, of another by something
    else.
    """
    heads = (1.0, -1.0) if probe.signed else (2.0, 0.5)
    if probe.latent.family != "gaussian" and all(_closed(probe, head) for head in heads):
        return True
    if probe.latent.family != "gaussian" and _closed_to_another(probe, *heads):
        return True
    if probe.latent.family not in AFFINE:
        return False
    settings = [probe.measure(h) for h in heads]
    low, high = (s.weight for s in settings)
    even = all(s.spread < EXACT and abs(s.ratio - 1) < EXACT for s in settings)
    if low == 0 or not even or abs(low - high) > EXACT * abs(low):
        return False
    return not bent or _blind_or_gaussian(probe, heads[0], low)


def _blind_or_gaussian(probe: Probe, head: float, weight: float) -> bool:
    mu, h = probe.leaves(head, 1.0)
    means = []
    for level in (1.0, 2.0):
        runs = [probe.run_at(mu, h, sign * level) for sign in (1.0, -1.0)]
        means.append(sum(float(loss.detach()) for loss, _ in runs) / 2)
        scale = (runs[0][1] - runs[1][1]).detach().double() / (2 * level)
    grown = means[1] - means[0]
    expected = weight * float((1.5 * (scale.square() - 1)).sum())
    size = abs(weight) * scale.numel()
    return abs(grown) < EXACT * size or abs(grown - expected) < EXACT * size


def _closed(probe: Probe, head: float) -> bool:
    """Of noise whose size is not known beforehand: a KL that sees no noise, and fits."""
    mu, h = probe.leaves(head, 1.0)
    losses = [
        float(probe.run_at(mu, h, level)[0].detach()) for level in (-LEVEL, LEVEL, 1.5 * LEVEL)
    ]
    latent = probe.latent
    if latent.scale is None or latent.loc is None:
        return False
    made = probe.forced(mu, h, LEVEL, latent.loc, latent.scale)
    if not made.loss.requires_grad:
        return False
    if max(losses) - min(losses) > 1e-5 * max(1.0, abs(losses[0])):
        return False
    loc, scale = made.tensors[latent.loc.index], made.tensors[latent.scale.index]
    return _fits(made.loss.sum(), loc, scale, mu, h)


def _closed_to_another(probe: Probe, high: float, low: float) -> bool:
    """Whether the loss is w · Σ(½ ((m - b)² + s²) / p² - log s), for any prior N(b, p²).

    Its slopes at location and scale give w and p for each unit; w is one number for all.
    """
    mu, h = probe.leaves(high, 1.0)
    if mu is h:
        return False
    first, noisy = _slopes(probe, mu, h, LEVEL), _slopes(probe, mu, h, -LEVEL)
    other = _slopes(probe, (mu.detach() + 1).requires_grad_(True), h, LEVEL)
    wide = _slopes(probe, mu, probe.leaves(low, 1.0)[1], LEVEL)
    if first is None or noisy is None or other is None or wide is None:
        return False
    precision = (other.by_loc - first.by_loc) / (other.loc - first.loc)
    weights = torch.stack([precision * x.scale**2 - x.by_scale * x.scale for x in (first, wide)])
    size = float(weights.abs().mean())
    still = float((noisy.loss - first.loss).abs()) <= 1e-5 * max(1.0, float(first.loss.abs()))
    apart = float((wide.by_loc - first.by_loc).abs().max()) < EXACT * float(
        first.by_loc.abs().max()
    )
    even = float(weights.max() - weights.min()) < EXACT * size
    return size > 0 and bool((precision > 0).all()) and still and apart and even


@dataclass(frozen=True, slots=True)
class _Slopes:
    loss: Tensor
    loc: Tensor
    scale: Tensor
    by_loc: Tensor
    by_scale: Tensor


def _slopes(probe: Probe, mu: Tensor, h: Tensor, level: float) -> _Slopes | None:
    """The loss's gradient at the sampler's location and scale, by way of the heads."""
    latent = probe.latent
    if latent.loc is None or latent.scale is None:
        return None
    made = probe.forced(mu, h, level, latent.loc, latent.scale)
    loc, scale = made.tensors[latent.loc.index], made.tensors[latent.scale.index]
    if not (made.loss.requires_grad and loc.requires_grad and scale.requires_grad):
        return None
    pairs = ((made.loss, mu), (made.loss, h), (loc, mu), (scale, h))
    found = [
        torch.autograd.grad(of.sum(), at, allow_unused=True, retain_graph=True)[0]
        for of, at in pairs
    ]
    if loc.shape != mu.shape or scale.shape != h.shape or any(g is None for g in found):
        return None
    by_mu, by_h, loc_by_mu, scale_by_h = (g.detach().double() for g in found)
    if bool((loc_by_mu == 0).any()) or bool((scale_by_h == 0).any()):
        return None
    return _Slopes(
        made.loss.detach().double().sum(),
        loc.detach().double(),
        scale.detach().double(),
        by_mu / loc_by_mu,
        by_h / scale_by_h,
    )


def _fits(loss: Tensor, loc: Tensor, scale: Tensor, mu: Tensor, h: Tensor) -> bool:
    """Whether the gradient at both heads is that of w · ½ Σ(m² + s² - log s²)."""
    if mu is h or bool((scale <= 0).any()):
        return False
    reference = 0.5 * (loc.square() + scale.square() - scale.square().log()).sum()
    given = torch.autograd.grad(loss, (mu, h), allow_unused=True, retain_graph=True)
    wanted = torch.autograd.grad(reference, (mu, h), allow_unused=True)
    if any(g is None for g in (*given, *wanted)):
        return False
    a = torch.cat([g.double().flatten() for g in given])
    b = torch.cat([g.double().flatten() for g in wanted])
    weight = float((a * b).sum() / b.square().sum())
    return weight != 0 and float((a - weight * b).norm()) < EXACT * float(a.norm())
