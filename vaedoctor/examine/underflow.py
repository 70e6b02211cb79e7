"""Samplers whose scale has run out of digits."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from .anatomy import Anatomy
from .flow import Flow
from .latents import Latent
from .recording import Op, Value

_SHRINK = frozenset(
    "exp exp_ exp2 relu relu_ sigmoid softplus clamp clamp_ clamp_min hardtanh threshold sqrt "
    "square pow mul mul_ abs tanh div leaky_relu elu".split()
)
_BOUNDS = frozenset(
    "relu relu_ clamp clamp_ clamp_min hardtanh threshold abs leaky_relu elu tanh".split()
)


@dataclass(frozen=True, slots=True)
class Underflow:
    """A sampler's scale with entries that are exactly zero or denormal."""

    latent: Latent
    zeros: int
    denormals: int
    count: int
    op: Op | None

    @property
    def vanished(self) -> bool:
        """Whether a positive function has run out of digits, rather than a bound been met."""
        return self.op is not None and self.op.name not in _BOUNDS


def underflows(anatomy: Anatomy) -> Iterator[Underflow]:
    """Samplers whose scale has underflowed. A mask that switches a unit off is none."""
    for latent in anatomy.latents:
        if latent.scale is None or not latent.scale.tensor.is_floating_point():
            continue
        scale = latent.scale.tensor.detach()
        tiny = torch.finfo(scale.dtype).tiny
        zeros = int((scale == 0).sum())
        denormals = int(((scale != 0) & (scale.abs() < tiny)).sum())
        if not zeros + denormals:
            continue
        op = _maker_of_zeros(anatomy.flow, latent.scale, tiny)
        if op is not None:
            yield Underflow(latent, zeros, denormals, scale.numel(), op)


def _maker_of_zeros(flow: Flow, value: Value, tiny: float) -> Op | None:
    """The operation whose operands are all away from zero while its result is not."""
    while value.op is not None:
        op = value.op
        parents = [p for p in flow.parents(value) if p.tensor.is_floating_point()]
        small = [p for p in parents if bool((p.tensor.detach().abs() < tiny).any())]
        if not small:
            return op if op.name in _SHRINK else None  # `tril` and its kin write zeros on purpose
        learned = [p for p in small if flow.learned[p.index]]
        if len(learned) < len(small):
            return None  # multiplied by a mask
        if flow.layer(op):
            return op
        value = learned[0]
    return None
