"""How far half precision moves the KL of a trained posterior: beside float64, on the same noise."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from ..subject.subject import Subject
from .anatomy import Anatomy
from .latents import Latent
from .precision import HalfPrecision, replay, run_in
from .recording import Recording
from .step import run_recorded

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


def lost_digits(
    subject: Subject, anatomy: Anatomy, seed: int, rewind: Callable[[], None]
) -> LostDigits | None:
    """The worst of the half precisions where its error is large; None for untrained posteriors."""
    latent = next((x for x in anatomy.sampled if x.loc is not None and x.scale is not None), None)
    recording = anatomy.recording
    if latent is None or latent.family != "gaussian":
        return None
    known = _kl(recording, recording, latent)
    types = {p.dtype for p in subject.model.parameters() if p.is_floating_point()}
    if known is None or known < TRAINED or types != {torch.float32}:
        return None
    double = _kl(run_in(subject, recording, torch.float64, seed), recording, latent)
    rewind()
    if double is None:
        return None
    found = []
    for dtype in (torch.float16, torch.bfloat16):
        with torch.autocast("cpu", dtype=dtype):
            run = run_recorded(subject, seed=seed, kind=HalfPrecision, edits=replay(recording))
        half = _kl(run, recording, latent)
        rewind()
        if half is not None:
            name = str(dtype).removeprefix("torch.")
            found.append(LostDigits(latent, name, half, double))
    worst = max(found, key=lambda d: d.error, default=None)
    return worst if worst is not None and worst.error > LARGE else None


def _kl(run: Recording, recording: Recording, latent: Latent) -> float | None:
    """The exact KL of a run's posterior to N(0, I), a row; None where the run went another way."""
    assert latent.loc is not None
    assert latent.scale is not None
    if run.error is not None or len(run.ops) != len(recording.ops):
        return None
    loc, scale = (run.values[v.index].tensor for v in (latent.loc, latent.scale))
    if loc.shape != latent.loc.shape or scale.shape != latent.scale.shape or not loc.dim():
        return None
    m, s = loc.detach().double(), scale.detach().double()
    if m.shape != s.shape or bool((s <= 0).any()):
        return None
    nats = 0.5 * (m.square() + s.square() - 1 - s.square().log())
    total = float(nats.sum()) / m.shape[0]
    return total if total == total and total < float("inf") else None
