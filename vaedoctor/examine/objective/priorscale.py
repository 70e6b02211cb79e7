"""What the model computes that holds the scale of a learned prior, or of the sampler."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor

from ...finding import Span
from ..anatomy.anatomy import Anatomy
from ..anatomy.pinning import loss_value
from ..runs.recording import Value
from .divergence import LEARNED, Divergence

_POWERS = (1.0, 0.5, -1.0, -0.5, 0.25, -0.25)  # of b, its square, and one taken for its square


@dataclass(frozen=True, slots=True)
class Made:
    """A value of the model of which log b is `power` times the logarithm, or itself, and `off`."""

    value: Value
    power: float
    off: float
    logged: bool


def twin(anatomy: Anatomy, of: Divergence, scale: Tensor) -> tuple[float, Span | None]:
    """The power of b where one and the same line makes what b and the sampler's scale come from.

    A function or class makes the two of them alike; 1 where they are made with one power. With the
    place where b is made of it, or else the KL's.
    """
    if of.latent.scale is None:
        return 1.0, of.at
    own = [m for m in held_by(anatomy, of.latent.scale.tensor.detach().double()) if _exactly(m)]
    made = [m for m in held_by(anatomy, scale, (*_POWERS, 2.0, -2.0)) if _exactly(m)]
    found = {
        theirs.power / mine.power
        for theirs in made
        for mine in own
        if theirs.logged == mine.logged and _of_one_line(theirs.value, mine.value)
    }
    power = found.pop() if len(found) == 1 else 1.0
    held = (m.value.op for m in made if m.power == 1 and not m.logged and power != 1)
    return power, next((op.span for op in held if op is not None), of.at)


def _exactly(made: Made) -> bool:
    return abs(made.off) < LEARNED


def _of_one_line(one: Value, other: Value) -> bool:
    if one is other or one.op is None or other.op is None:
        return False
    return one.op.name == other.op.name and one.op.span is not None and one.op.span == other.op.span


def held_by(anatomy: Anatomy, scale: Tensor, powers: tuple[float, ...] = _POWERS) -> Iterator[Made]:
    """The values behind the loss that hold b up to a factor: b, its square, inverse, logarithm."""
    behind = anatomy.flow.ancestors(loss_value(anatomy))
    for value in anatomy.recording.values:
        if value.index not in behind:
            continue
        made = value.tensor.detach().double()
        if not value.tensor.is_floating_point() or not _spans(made, scale):
            continue
        logs = [(made, True), *([(made.log(), False)] if bool((made > 0).all()) else [])]
        for log, logged in logs:
            for power in powers:
                apart = scale.log() - power * log
                off = float(apart.mean())
                if float((apart - off).abs().max()) < LEARNED:
                    yield Made(value, power, off, logged)


def least(made: list[Made]) -> float:
    """The KL's b over the prior's scale as it was computed: √½, √2, or 1 where that is b itself.

    A loss cannot tell N(a, b²) from N(a, 2b²) with a half missing. The model can: it holds b, its
    square, inverse or logarithm as a tensor, or, if not, one of them of √2 or √½ times b.
    """
    seen = {m.off for m in made}
    if any(abs(off) < LEARNED for off in seen):
        return 1.0
    halves = (off for off in seen if abs(abs(off) - 0.5 * math.log(2)) < LEARNED)
    return next((math.exp(off) for off in halves), 1.0)


def _spans(made: Tensor, scale: Tensor) -> bool:
    """Whether a tensor has one number for each element, or for each of a column."""
    return made.shape == scale.shape or (
        made.dim() > 0 and made.shape == scale.shape[-made.dim() :]
    )
