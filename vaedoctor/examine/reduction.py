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
from .anatomy import anatomize, inputs_of
from .divergence import EVEN, Divergence, one_setting
from .flow import Flow
from .likelihood import Likelihood, likelihood
from .recording import Recording
from .step import run_recorded


@dataclass(frozen=True, slots=True)
class Reduction:
    """Exponents of 1/B: 0 where a term is summed over the batch, 1 where it is averaged."""

    kl: int
    reconstruction: int
    at: Span | None


def batch_reduction(
    subject: Subject,
    full: Divergence,
    recon: Likelihood,
    seed: int,
    rewind: Callable[[], None],
) -> Reduction | None:
    """Compare the weights at half the batch; None where they cannot be measured there."""
    if full.rows < 4 or not full.standard or recon.weight == 0:
        return None
    half = replace(subject, batch=halved(subject.batch, full.rows))
    recording = run_recorded(half, seed=seed)
    rewind()
    try:
        return _exponents(half, recording, full, recon, seed, rewind)
    finally:
        recording.release()


def _exponents(
    half: Subject,
    recording: Recording,
    full: Divergence,
    recon: Likelihood,
    seed: int,
    rewind: Callable[[], None],
) -> Reduction | None:
    if recording.error is not None:
        return None
    anatomy = anatomize(recording, Flow(recording))
    if [v.shape for v in inputs_of(recording)][:1] == [()] or not anatomy.sampled:
        return None
    other = likelihood(anatomy)
    try:
        kl = one_setting(half, anatomy, anatomy.sampled[0], seed, rewind)
    except Unavailable:
        return None
    if other is None or kl.weight == 0 or kl.spread > EVEN or other.weight == 0:
        return None
    rows = full.rows // 2
    return Reduction(
        _exponent(kl.weight, full.weight / full.rows),
        _exponent(other.weight / rows, recon.weight / full.rows),
        full.at,
    )


def one_weight(full: Divergence, recon: Likelihood) -> float | None:
    """The KL's weight over the reconstruction's where it is 1 or a half, else None.

    A half is that of a squared error without its own half. With four rows or more neither can come
    from one term's being averaged over them and the other's not.
    """
    if full.rows < 4 or not full.standard or recon.weight == 0:
        return None
    ratio = full.weight / recon.weight
    return ratio if min(abs(ratio - 1), abs(ratio - 0.5)) < EVEN else None


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
