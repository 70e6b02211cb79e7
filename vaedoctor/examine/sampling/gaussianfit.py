"""Whether the loss takes a noise for Gaussian, by how it depends on location and scale."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..anatomy.pinning import held_to
from ..objective.divergence import EXACT
from ..objective.probe import AFFINE, Probe
from ..runs.edits import Edits

LEVEL = 0.5  # inside the support of every draw that makes Laplace or logistic noise


def fits_a_gaussian(probe: Probe, *, bent: bool) -> bool:
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


def scored_as_noise(probe: Probe) -> bool:
    """Whether the loss holds log q as -½ n² - log s of the noise n itself, as before a flow.

    The sample is held, the noise forced to 0, 1 and 2; both terms have to have one weight.
    """
    scale, z = probe.latent.scale, probe.latent.z.tensor.detach()
    mu, h = probe.leaves(1.0 if probe.signed else 2.0, 1.0)
    if scale is None or scale.shape != z.shape or mu is h:
        return False
    hold: Edits = {x.z.place: held_to(z) for x in probe.alike if x.z.shape == z.shape}
    runs = [probe.forced(mu, h, level, scale, more=hold) for level in (0.0, 1.0, 2.0)]
    still, one, two = (float(run.loss.detach().sum()) for run in runs)
    weight = 2 * (still - one) / z.numel()
    if weight <= 0 or abs(two - still - 4 * (one - still)) > EXACT * abs(one - still):
        return False
    if not runs[0].loss.requires_grad:
        return False
    (given,) = torch.autograd.grad(runs[0].loss.sum(), [h], allow_unused=True)
    (own,) = torch.autograd.grad(runs[1].tensors[scale.index].log().sum(), [h], allow_unused=True)
    return given is not None and own is not None and torch.allclose(given, -weight * own, EXACT)


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
