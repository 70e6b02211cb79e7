"""How far half precision moves the KL of a trained posterior: beside float64, on the same noise."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from ...subject.subject import Subject
from ..anatomy.anatomy import Anatomy
from ..anatomy.latents import Latent
from ..runs.recording import Recording
from .halves import HalfRun
from .precision import run_in

TRAINED = 1.0  # nats a row: an untrained posterior lies next to the prior, where digits cancel
LARGE = 0.01  # of the KL


@dataclass(frozen=True, slots=True)
class LostDigits:
    """The KL to N(0, I) of one latent in half precision and in float64, in nats a row."""

    latent: Latent
    dtype: str
    half: float
    double: float

    @property
    def error(self) -> float:
        """Relative to the KL in float64."""
        return abs(self.half - self.double) / self.double


def judged(subject: Subject, anatomy: Anatomy) -> Latent | None:
    """The latent to judge: a Gaussian one with a trained posterior, of a model in float32."""
    latent = next((x for x in anatomy.sampled if x.loc is not None and x.scale is not None), None)
    if latent is None or latent.family != "gaussian":
        return None
    assert latent.loc is not None
    assert latent.scale is not None
    known = _kl(latent.loc.tensor, latent.scale.tensor, latent)
    types = {p.dtype for p in subject.model.parameters() if p.is_floating_point()}
    trained = known is not None and known >= TRAINED
    return latent if trained and types == {torch.float32} else None


def lost_digits(
    subject: Subject,
    recording: Recording,
    latent: Latent,
    runs: Iterable[HalfRun],
    seed: int,
    rewind: Callable[[], None],
) -> LostDigits | None:
    """The worst of the half precisions where its error is large, beside float64."""
    assert latent.loc is not None
    assert latent.scale is not None
    known = _kl(latent.loc.tensor, latent.scale.tensor, latent)
    halves = {run.dtype: half for run in runs if (half := _of(run, latent)) is not None}
    if known is None or all(abs(half - known) <= LARGE * known for half in halves.values()):
        return None
    wide = run_in(subject, recording, torch.float64, seed)
    same = wide.error is None and len(wide.ops) == len(recording.ops)
    loc, scale = latent.loc.index, latent.scale.index
    double = _kl(wide.values[loc].tensor, wide.values[scale].tensor, latent) if same else None
    wide.release()
    rewind()
    if double is None:
        return None
    names = {dtype: str(dtype).removeprefix("torch.") for dtype in halves}
    found = [LostDigits(latent, names[dtype], half, double) for dtype, half in halves.items()]
    worst = max(found, key=lambda d: d.error)
    return worst if worst.error > LARGE else None


def _of(run: HalfRun, latent: Latent) -> float | None:
    """The KL in half precision; None where the run went another way."""
    assert latent.loc is not None
    assert latent.scale is not None
    loc, scale = (run.tensors.get(v.index) for v in (latent.loc, latent.scale))
    return _kl(loc, scale, latent) if loc is not None and scale is not None else None


def _kl(loc: Tensor, scale: Tensor, latent: Latent) -> float | None:
    """The exact KL of a posterior to N(0, I), a row; None where it cannot be had."""
    assert latent.loc is not None
    assert latent.scale is not None
    if tuple(loc.shape) != latent.loc.shape or tuple(scale.shape) != latent.scale.shape:
        return None
    m, s = loc.detach().double(), scale.detach().double()
    if not m.dim() or m.shape != s.shape or bool((s <= 0).any()):
        return None
    nats = 0.5 * (m.square() + s.square() - 1 - s.square().log())
    total = float(nats.sum()) / m.shape[0]
    return total if total == total and total < float("inf") else None
