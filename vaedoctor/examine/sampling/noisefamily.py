"""Is the noise that the loss's KL takes for Gaussian Gaussian? Its family, mean and spread."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ...finding import Span
from ...rule import Unavailable
from ...subject.subject import Subject
from ..anatomy.anatomy import Anatomy
from ..anatomy.geometry import NORMAL
from ..anatomy.latents import Latent
from ..objective.probe import AFFINE, Probe
from ..runs.flow import Flow
from ..runs.recording import Op
from .gaussianfit import fits_a_gaussian, scored_as_noise

FAMILIES = AFFINE | {"laplace", "logistic", "gumbel"}
MOST = 3  # latents that are looked at
SHIFT = 0.2  # of a standard deviation: a clamped tail or a rounding moves the mean less
SPREAD = 0.15  # of a standard deviation
FEW = 16  # numbers: as many of a centred draw are of one sign once in 2^15


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


def bent(anatomy: Anatomy) -> bool:
    """Whether a sampler that is called Gaussian has other noise than a standard normal's."""
    latents = [x for x in anatomy.sampled[:MOST] if x.family == "gaussian"]
    noises = [(x, _noise(anatomy.flow, x)) for x in latents]
    return any(noise is not None and _suspect(x, noise) is not None for x, noise in noises)


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
            if fits_a_gaussian(probe, bent=bent) or (not critics and known(probe.latent)):
                return True
            if bent and not critics and scored_as_noise(probe):
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
        return "shape", bent_at(latent) or op.span
    return None


def bent_at(latent: Latent) -> Span | None:
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
