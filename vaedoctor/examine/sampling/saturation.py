"""How much of a head sits where a clamp has no gradient."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ..anatomy.anatomy import Anatomy
from ..anatomy.heads import path_of
from ..runs.recording import Op

CLAMPS = frozenset(
    "clamp clamp_ clip clip_ clamp_min clamp_max clamp_min_ clamp_max_ hardtanh hardtanh_".split()
)


@dataclass(frozen=True, slots=True)
class Clamped:
    """One clamp on a posterior parameter and the share of its values outside the bounds."""

    op: Op
    path: str
    share: float
    low: float | None
    high: float | None


def clamps(anatomy: Anatomy) -> Iterator[Clamped]:
    """Every clamp between the encoder and a sampler's location or scale."""
    flow = anatomy.flow
    operands = [v for found in anatomy.latents for v in (found.loc, found.scale) if v is not None]
    behind = flow.ancestors(*operands) if operands else set()
    for op in flow.recording.ops:
        if op.name not in CLAMPS or not op.makes or op.out.index not in behind:
            continue
        if not flow.posterior(op.reads[0]):
            continue
        low, high = _bounds(op)
        value = op.reads[0].tensor.detach() if not op.inplace else None
        if value is None or not value.numel():
            continue
        outside = value.new_zeros(value.shape, dtype=torch.bool)
        if low is not None:
            outside |= value < low
        if high is not None:
            outside |= value > high
        yield Clamped(op, path_of(op), float(outside.float().mean()), low, high)


def _bounds(op: Op) -> tuple[float | None, float | None]:
    plain = [a for a in op.args[1:] if not isinstance(a, Tensor)]
    low = op.kwargs.get("min", op.kwargs.get("min_val"))
    high = op.kwargs.get("max", op.kwargs.get("max_val"))
    if op.name.startswith("clamp_min"):
        low = plain[0] if plain else low
    elif op.name.startswith("clamp_max"):
        high = plain[0] if plain else high
    else:
        low = plain[0] if plain else low
        high = plain[1] if len(plain) > 1 else high
    return _number(low), _number(high)


def _number(bound: object) -> float | None:
    return float(bound) if isinstance(bound, (int, float)) else None
