"""The KL of a posterior behind a flow, where the loss fits a change of variables exactly."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ...finding import Span
from ...subject.subject import Subject
from ..anatomy.anatomy import Anatomy
from ..anatomy.latents import Latent
from .divergence import FAR, Divergence
from .leastsquares import CLOSE
from .locationscale import LocationScale
from .transport import Transport, transports

_FURTHER = (FAR, 4.0)  # of the location: a flow that is saturated has no determinant to weigh


@dataclass(frozen=True, slots=True)
class FlowKL(LocationScale):
    """Such a KL to N(0, I): its weight a row, near the prior and far from it."""

    latent: Latent
    rows: int
    units: int
    weight: float
    far: float
    at: Span | None
    sampled_at: Span | None
    clamped: Span | None = None
    connected: bool = True
    missing: bool = False
    reversed: bool = False

    @property
    def standard(self) -> bool:
        """Whether it has some weight."""
        return self.weight != 0

    @property
    def prior(self) -> str:
        """The prior that the KL is measured against."""
        return "N(0, I) behind the flow"


def flow_kl(
    subject: Subject,
    anatomy: Anatomy,
    of: Divergence,
    found: Transport,
    seed: int,
    rewind: Callable[[], None],
) -> FlowKL | None:
    """The KL that a flow's transport is; None where its parts do not make one.

    One that pushes away is measured again where no capacity is left.
    """
    if not _whole(found):
        return None
    near = far = found.weight
    if near < 0:
        again = (
            t
            for reach in _FURTHER
            for t in transports(subject, anatomy, seed, rewind, reach=reach)
            if t.latent is found.latent and _whole(t)
        )
        far = next((t.weight for t in again), 0.0)
    made = (near * of.rows, far * of.rows, of.at, of.sampled_at)
    return FlowKL(of.latent, of.rows, of.units, *made)


def _whole(t: Transport) -> bool:
    parts = (t.log_det + 1, t.prior - 1, t.prior_before)
    return t.instead is None and not t.missing and all(abs(p) < CLOSE for p in parts)
