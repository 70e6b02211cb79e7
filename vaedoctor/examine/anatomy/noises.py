"""The distribution that is sampled, told by its quantiles: the noise is set, the sample is read.

With the draw set to its own quantiles at 10, 25, 50, 75 and 90 % an affine sampler returns those
of its distribution, up to location and scale; ratios of their distances tell which it is.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from statistics import NormalDist, median
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ...rule import Unavailable
from ..runs.edits import Edits, filled
from ..runs.repeat import repeat
from .latents import Latent

if TYPE_CHECKING:
    from ..examination import Examination

LEVELS = (0.1, 0.25, 0.5, 0.75, 0.9)
CLOSE = 0.02
_NORMAL = frozenset("randn randn_like normal normal_ numpy".split())
_UNIFORM = frozenset("rand rand_like uniform_".split())

QUANTILES: dict[str, Callable[[float], float]] = {
    "gaussian": NormalDist().inv_cdf,
    "laplace": lambda p: math.copysign(math.log(1 - 2 * abs(p - 0.5)), p - 0.5),
    "logistic": lambda p: math.log(p / (1 - p)),
    "uniform": lambda p: p,
    "cauchy": lambda p: math.tan(math.pi * (p - 0.5)),
    "gumbel": lambda p: -math.log(-math.log(p)),
    "exponential": lambda p: -math.log(1 - p),
}


def shape_of(values: list[float]) -> tuple[float, float]:
    """Two ratios of distances between quantiles: of tail to shoulder, of upper to lower side."""
    low, _, middle, shoulder, high = values
    return (high - middle) / (shoulder - middle), (high - middle) / (middle - low)


def nearest(values: list[float]) -> str:
    """The distribution whose quantiles have the same shape, mirrored or not; "" if none."""
    for mirrored in (values, [-v for v in reversed(values)]):
        tail, sides = shape_of(mirrored)
        for name, quantile in QUANTILES.items():
            known = shape_of([quantile(p) for p in LEVELS])
            if abs(tail - known[0]) < CLOSE and abs(sides - known[1]) < CLOSE:
                return name
    return ""


def distribution(examination: Examination, latent: Latent) -> tuple[str, str, str]:
    """The name of a latent's distribution, how sure it is, and what shows it.

    Raises `Unavailable` where the noise cannot be set.
    """
    flow = examination.anatomy.flow
    operands = [v for v in (latent.loc, latent.scale) if v is not None]
    known_noise = 1 << latent.draw.bit
    for operand in operands:
        known_noise |= flow.noise[operand.index]
    if flow.noise[latent.z.index] & ~known_noise and latent.draw.name in _NORMAL:
        shown = f"`{latent.draw.name}` is multiplied by another draw before it meets the scale"
        return "student-t (scale mixture)", "medium", shown
    if latent.draw.name in _NORMAL and _is_affine(latent):
        shown = f"the sample is location + scale × `{latent.draw.name}`, to the last digit"
        return "gaussian", "high", shown
    values = _quantiles(examination, latent)
    known = nearest(values)
    if not known:
        return (
            latent.family,
            "medium",
            f"the sample of `{latent.draw.name}` has the quantiles of no location-scale family",
        )
    tail, _ = shape_of(values)
    shown = f"the sample is location + scale × noise: its 90 % quantile lies {tail:.2f} times"
    return known, "high", f"{shown} as far out as its 75 % quantile, as of a {known}"


def _is_affine(latent: Latent) -> bool:
    """Whether the recorded numbers say so: z = location ± scale × noise."""
    if latent.loc is None or latent.scale is None:
        return False
    loc, scale = latent.loc.tensor.detach(), latent.scale.tensor.detach()
    eps, z = latent.draw.value.tensor.detach(), latent.z.tensor.detach()
    try:
        moved = scale * eps
        size = float((moved.abs().mean() + loc.abs().mean()).clamp_min(1e-12))
        return any(
            sum_.shape == z.shape and float((z - sum_).abs().max()) < 1e-5 * max(size, 1.0)
            for sum_ in (loc + moved, loc - moved)
        )
    except RuntimeError:
        return False


def _quantiles(examination: Examination, latent: Latent) -> list[float]:
    """The sample's median element at each level, over rows and units that move at all."""
    name, op = latent.draw.name, latent.draw.op
    if op is None or op is latent.meeting or name not in _NORMAL | _UNIFORM:
        raise Unavailable(f"`{name}` draws from the posterior directly")
    given = latent.draw.value.tensor
    signed = name in _UNIFORM and op.noise is not None and bool((op.noise < 0).any())
    found: list[Tensor] = []
    for p in LEVELS:
        level = NormalDist().inv_cdf(p) if name in _NORMAL else 2 * p - 1 if signed else p
        edits: Edits = {latent.draw.value.place: filled(level)}
        made = repeat(
            examination.subject,
            examination.recording,
            seed=examination.seed,
            edits=edits,
            keep=[latent.z],
            rewind=examination.rewind,
            grad=False,
        )
        z = made.tensors.get(latent.z.index)
        if not made.same or z is None or z.shape != latent.z.shape or not given.numel():
            raise Unavailable("the step cannot be repeated with its noise set")
        found.append(z.detach().double().flatten())
    stacked = torch.stack(found)
    moving = (stacked[-1] - stacked[0]).abs() > 1e-6
    if not bool(moving.any()):
        raise Unavailable("the sample does not move with its noise")
    rising = stacked * torch.sign(stacked[-1] - stacked[0])
    shapes = [row.tolist() for row in rising[:, moving].T[:64]]
    tails = [shape_of(s) for s in shapes if s[3] != s[2] and s[2] != s[0]]
    if not tails:
        raise Unavailable("the sample does not move evenly with its noise")
    middle = median(t for t, _ in tails)
    return min((s for s in shapes if s[3] != s[2] and s[2] != s[0]),
               key=lambda s: abs(shape_of(s)[0] - middle))  # fmt: skip
