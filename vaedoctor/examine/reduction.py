"""How KL and reconstruction scale with the batch: both weights at the batch and at half of it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from ..finding import Span
from ..rule import Unavailable
from ..subject.subject import Batch, Subject
from .anatomy import Anatomy, anatomize, inputs_of
from .density import Density, density
from .discrete import discrete_kl, is_discrete
from .divergence import isolate, one_setting
from .flow import Flow
from .latents import Latent
from .likelihood import Likelihood, likelihood
from .probe import EVEN
from .pulls import Pull
from .recording import Recording
from .step import run_recorded


@dataclass(frozen=True, slots=True)
class Reduction:
    """Exponents of 1/B: 0 where a term is summed over the batch, 1 where it is averaged.

    `outweighs` is the KL's weight over the reconstruction's at this batch; `averaged` says that
    what the batch does not explain of it is a mean over the features.
    """

    kl: int
    reconstruction: int
    outweighs: float
    averaged: bool
    at: Span | None


def batch_reduction(
    subject: Subject,
    full: Pull,
    which: int,
    recon: Likelihood,
    seed: int,
    rewind: Callable[[], None],
) -> Reduction | None:
    """Compare the weights at half the batch; None where they cannot be measured there.

    `full` is the KL of the latent at `which` of those that are sampled.
    """
    if full.rows < 4 or not full.standard or recon.weight == 0:
        return None
    half = replace(subject, batch=halved(subject.batch, full.rows))
    recording = run_recorded(half, seed=seed)
    rewind()
    try:
        return _exponents(half, recording, full, which, recon, seed, rewind)
    finally:
        recording.release()


def _exponents(
    half: Subject,
    recording: Recording,
    full: Pull,
    which: int,
    recon: Likelihood,
    seed: int,
    rewind: Callable[[], None],
) -> Reduction | None:
    if recording.error is not None:
        return None
    anatomy = anatomize(recording, Flow(recording))
    if [v.shape for v in inputs_of(recording)][:1] == [()] or len(anatomy.sampled) <= which:
        return None
    other, rows = likelihood(anatomy), full.rows // 2
    try:
        latent, scored = anatomy.sampled[which], isinstance(full, Density)
        run = (half, anatomy, latent, seed, rewind)
        kl = (_scored(*run) if scored else _weight(*run)) / rows
    except Unavailable:
        return None
    if other is None or kl == 0 or other.weight == 0:
        return None
    of_kl = _exponent(kl, full.weight / full.rows)
    of_recon = _exponent(other.weight / rows, recon.weight / full.rows)
    outweighs = full.weight / recon.weight
    averaged = recon.averaged(outweighs / full.rows ** (of_recon - of_kl))
    return Reduction(of_kl, of_recon, outweighs, averaged, full.at)


def one_weight(full: Pull, recon: Likelihood) -> float | None:
    """The KL's weight over the reconstruction's where it is 1 or a half, else None.

    A half is that of a squared error without its own half. With four rows or more neither can come
    from one term's being averaged over them and the other's not.
    """
    if full.rows < 4 or not full.standard or recon.weight == 0:
        return None
    ratio = full.weight / recon.weight
    return ratio if min(abs(ratio - 1), abs(ratio - 0.5)) < EVEN else None


def _weight(
    subject: Subject, anatomy: Anatomy, latent: Latent, seed: int, rewind: Callable[[], None]
) -> float:
    """The weight a row of one latent's KL; 0 where it has none for all elements."""
    if is_discrete(latent):
        found = discrete_kl(subject, anatomy, latent, seed, rewind)
        return found.weight if found.standard else 0.0
    setting = one_setting(subject, anatomy, latent, seed, rewind)
    rows = inputs_of(anatomy.recording)[0].shape[0]
    return setting.weight * rows if setting.spread <= EVEN else 0.0


def _scored(
    subject: Subject, anatomy: Anatomy, latent: Latent, seed: int, rewind: Callable[[], None]
) -> float:
    """The weight a row of log q; 0 where it cannot be read."""
    isolated = isolate(subject, anatomy, latent, seed, rewind)
    found = density(subject, anatomy, isolated, seed, rewind)
    return found.weight if found is not None and found.standard else 0.0


def _exponent(half: float, full: float) -> int:
    return round(math.log2(abs(half / full)))


def halved(batch: Batch, rows: int) -> Batch:
    """The first half of the rows of every item that has them on its first axis."""

    def cut(item: Any) -> Any:
        if isinstance(item, Tensor):
            return item[: rows // 2] if item.shape[:1] == (rows,) else item
        if isinstance(item, dict):
            return {k: cut(v) for k, v in item.items()}
        if isinstance(item, (list, tuple)) and not hasattr(item, "_fields"):
            return type(item)(cut(v) for v in item)
        return item

    args, kwargs = tuple(cut(a) for a in batch.args), {k: cut(v) for k, v in batch.kwargs.items()}
    return replace(batch, args=args, kwargs=kwargs)
