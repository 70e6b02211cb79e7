"""How KL and reconstruction scale with the batch: both weights at the batch and at half of it.

Where the reconstruction fits no plain likelihood its gradient at the first rows is compared with
itself: x_hat and what feeds the decoder are put back, in half the batch, to what they were. What
half of the batch does not tell, as beside padding or a density over the batch, is asked of a batch
that holds every row twice.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ...finding import Span
from ...rule import Unavailable
from ...subject.subject import Batch, Subject
from ..anatomy.anatomy import Anatomy, anatomize
from ..anatomy.decoders import predictions
from ..anatomy.latents import Latent
from ..anatomy.moves import inputs_of
from ..anatomy.pinning import first_layers
from ..runs.edits import Edit
from ..runs.flow import Flow
from ..runs.recording import Value
from ..runs.repeat import repeat
from ..runs.step import run_recorded
from .correlated import is_correlated, matrix_kl
from .density import Density, density
from .discrete import discrete_kl, is_discrete
from .divergence import Divergence, isolate, one_setting
from .doubling import Twice, times
from .flowkl import FlowKL
from .laplace import is_laplace, laplace_kl
from .likelihood import Likelihood, likelihood, pulled
from .pulls import Pull
from .quotients import EVEN

FEW = 4  # rows: of as many half is still a batch
_POWER = 0.05  # of the exponent


@dataclass(frozen=True, slots=True)
class Reduction:
    """Exponents of 1/B: 0 where a term is summed over the batch, 1 where it is averaged.

    `outweighs` is the KL's weight over the reconstruction's at this batch; `averaged` says that
    what the batch does not explain of it is a mean over the features. None and False where the
    reconstruction's weight is not known.
    """

    kl: int
    reconstruction: int
    outweighs: float | None
    averaged: bool
    at: Span | None


def batch_reduction(
    subject: Subject,
    whole: Anatomy,
    full: Pull,
    recon: Likelihood | None,
    seed: int,
    rewind: Callable[[], None],
) -> Reduction | None:
    """Compare the weights at half the batch; None where they cannot be measured there.

    `full` is the KL of one of the latents that are sampled in the run of `whole`. A batch of one to
    three rows is doubled instead: half of it may be too few for a normalisation.
    """
    few = full.rows < FEW
    found = None
    if weight_of(full) and not (few if recon is None else recon.weight == 0):
        other = replace(subject, batch=(doubled if few else halved)(subject.batch, full.rows))
        recording = run_recorded(other, seed=seed)
        try:
            anatomy = anatomize(recording, Flow(recording)) if recording.error is None else None
            scored = None
            with suppress(Unavailable):  # before the buffers that its graph reads are put back
                scored = likelihood(anatomy) if anatomy is not None and recon is not None else None
            rewind()
            if anatomy is not None:
                found = _exponents(other, anatomy, scored, whole, full, recon, seed, rewind)
        finally:
            recording.release()
    return found or _repeated(subject, whole, full, seed, rewind)


def _repeated(
    subject: Subject, whole: Anatomy, full: Pull, seed: int, rewind: Callable[[], None]
) -> Reduction | None:
    """The exponents by a batch of repeated rows; None where they cannot be measured there."""
    if not isinstance(full, Divergence | Density | FlowKL) or full.missing:
        return None
    other = replace(subject, batch=doubled(subject.batch, full.rows))
    recording = run_recorded(other, seed=seed)
    rewind()
    try:
        anatomy = anatomize(recording, Flow(recording)) if recording.error is None else None
        if anatomy is None or len(anatomy.latents) != len(whole.latents):
            return None
        which = next(i for i, x in enumerate(whole.sampled) if x is full.latent)
        run = Twice(subject, whole, other, anatomy, seed, rewind)
        kl, recon = run.kl(which), run.reconstruction()
    except Unavailable:
        return None
    finally:
        recording.release()
    exponents = [_exponent(n, 2) if n else None for n in (kl, recon)]
    of_kl, of_recon = exponents
    if of_kl is None or of_recon is None:
        return None
    return Reduction(of_kl, of_recon, None, False, full.at)


def _exponents(
    resized: Subject,
    anatomy: Anatomy,
    there: Likelihood | None,
    whole: Anatomy,
    full: Pull,
    recon: Likelihood | None,
    seed: int,
    rewind: Callable[[], None],
) -> Reduction | None:
    which = next(i for i, x in enumerate(whole.sampled) if x is full.latent)
    if [v.shape for v in inputs_of(anatomy.recording)][:1] == [()] or len(anatomy.sampled) <= which:
        return None
    rows = 2 * full.rows if full.rows < FEW else full.rows // 2
    try:
        latent, scored = anatomy.sampled[which], isinstance(full, Density)
        run = (resized, anatomy, latent, seed, rewind)
        kl = (_scored(*run) if scored else _weight(*run)) / rows
        if recon is None:
            times = _pulled_more(resized, anatomy, whole, rows, seed, rewind)
        else:
            times = there.weight / rows * full.rows / recon.weight if there is not None else 0.0
    except Unavailable:
        return None
    if kl == 0 or times == 0:
        return None
    weight = weight_of(full)
    share = rows / full.rows
    of_kl, of_recon = _exponent(kl * full.rows / weight, share), _exponent(times, share)
    if of_kl is None or of_recon is None:
        return None
    if recon is None:
        return Reduction(of_kl, of_recon, None, False, full.at)
    outweighs = weight / recon.weight
    averaged = recon.averaged(outweighs / full.rows ** (of_recon - of_kl))
    return Reduction(of_kl, of_recon, outweighs, averaged, full.at)


def _pulled_more(
    half: Subject,
    anatomy: Anatomy,
    whole: Anatomy,
    rows: int,
    seed: int,
    rewind: Callable[[], None],
) -> float:
    """How many times more the loss pulls each x_hat of the first rows; 0 where not all alike."""
    before, x_hat, here = pulled(whole), whole.x_hat, anatomy.x_hat
    if before is None or x_hat is None or here is None or here.op is None:
        return 0.0
    if here.shape != (rows, *x_hat.shape[1:]) or not bool((before.gradient != 0).any()):
        return 0.0
    leaf = x_hat.tensor.detach()[:rows].clone().requires_grad_(True)
    edits: dict[int | tuple[int, int], Edit] = {}
    for one, other in zip(_fed(whole), _fed(anatomy), strict=False):
        if other.shape != (rows, *one.shape[1:]):
            return 0.0
        edits[other.place] = _put_back(one.tensor.detach()[:rows])
    edits[here.place] = lambda t: leaf.clone()
    made = repeat(half, anatomy.recording, seed=seed, edits=edits, keep=(), rewind=rewind)
    if not made.same or not isinstance(made.loss, Tensor) or not made.loss.requires_grad:
        return 0.0
    (now,) = torch.autograd.grad(made.loss.sum(), [leaf], allow_unused=True)
    if now is None:
        return 0.0
    then = before.gradient[:rows]
    return times(now, then)


def _put_back(kept: Tensor) -> Edit:
    return lambda t: kept.clone()


def _fed(anatomy: Anatomy) -> list[Value]:
    """What the first layers behind the samples make of them."""
    compared = predictions(anatomy)
    pins = [op for x in anatomy.sampled for op in first_layers(anatomy.flow, x.z, *compared)]
    return [v for op in pins for v in op.makes]


def weight_of(pull: Pull) -> float:
    """The weight a row of a KL to N(0, I), or to a Gaussian that is learned; 0 of another."""
    if pull.standard:
        return pull.weight
    if isinstance(pull, Divergence) and pull.gaussian[0] == "forward":
        return pull.gaussian[1]
    return 0.0


def by_rows(times: float, of: Pull) -> bool:
    """Whether a KL weighs as many times another as there are rows, or that part of it."""
    return any(abs(times / n - 1) < EVEN for n in (of.rows, 1 / of.rows))


def one_weight(full: Pull, recon: Likelihood) -> float | None:
    """The KL's weight over the reconstruction's where it is 1 or a half, else None.

    A half is that of a squared error without its own half. With four rows or more neither can come
    from one term's being averaged over them and the other's not.
    """
    if full.rows < FEW or recon.weight == 0:
        return None
    ratio = weight_of(full) / recon.weight
    return ratio if min(abs(ratio - 1), abs(ratio - 0.5)) < EVEN else None


def _weight(
    subject: Subject, anatomy: Anatomy, latent: Latent, seed: int, rewind: Callable[[], None]
) -> float:
    """The weight a row of one latent's KL; 0 where it has none for all elements."""
    if is_discrete(anatomy, latent):
        found = discrete_kl(subject, anatomy, latent, seed, rewind)
        return found.weight if found.standard else 0.0
    if is_laplace(latent):
        isolated = laplace_kl(subject, anatomy, latent, seed, rewind)
        return isolated.weight if isolated.standard else 0.0
    if is_correlated(latent):
        found_by_matrix = matrix_kl(subject, anatomy, latent, seed, rewind)
        return found_by_matrix.weight if found_by_matrix.standard else 0.0
    setting = one_setting(subject, anatomy, latent, seed, rewind)
    rows = inputs_of(anatomy.recording)[0].shape[0]
    if setting.spread <= EVEN:
        return setting.weight * rows
    return weight_of(isolate(subject, anatomy, latent, seed, rewind))


def _scored(
    subject: Subject, anatomy: Anatomy, latent: Latent, seed: int, rewind: Callable[[], None]
) -> float:
    """The weight a row of log q; 0 where it cannot be read."""
    isolated = isolate(subject, anatomy, latent, seed, rewind)
    found = density(subject, anatomy, isolated, seed, rewind)
    return found.weight if found is not None and found.standard else 0.0


def _exponent(times: float, share: float) -> int | None:
    """Of 1/B, where a share of the batch has `times` the weight of the whole; None if of no power.

    A mean over what a mask leaves is none: half of the rows do not hold half of that.
    """
    power = -math.log(abs(times)) / math.log(share)
    return round(power) if abs(power - round(power)) < _POWER else None


def halved(batch: Batch, rows: int) -> Batch:
    """The first half of the rows of every item that has them on its first axis."""
    return _resized(batch, rows, lambda item: item[: rows // 2])


def doubled(batch: Batch, rows: int) -> Batch:
    """Every row twice, of every item that has them on its first axis."""
    return _resized(batch, rows, lambda item: torch.cat([item, item]))


def _resized(batch: Batch, rows: int, change: Callable[[Tensor], Tensor]) -> Batch:
    return batch.mapped(lambda item: change(item) if item.shape[:1] == (rows,) else item)
