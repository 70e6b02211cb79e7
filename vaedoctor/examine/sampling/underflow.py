"""Samplers whose scale has run out of digits, and scales that a distribution refuses."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ...finding import Span
from ...subject.trials.witness import local_values
from ..anatomy.anatomy import Anatomy
from ..anatomy.heads import Head, head
from ..anatomy.latents import Latent
from ..runs.flow import Flow
from ..runs.recording import Op, Recording, Value

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


@dataclass(frozen=True, slots=True)
class Refused:
    """A scale with zeros that the distribution itself refused, and where it was made."""

    zeros: int
    count: int
    at: Span | None


@dataclass(frozen=True, slots=True)
class Negative:
    """A scale of negative entries that a distribution refused, and the layer it comes from."""

    negatives: int
    count: int
    smallest: float
    distribution: str
    head: Head | None


def _refused_scale(recording: Recording) -> tuple[Tensor, str] | None:
    """The scale because of which the step raised, and the distribution; None where it is NaN."""
    text = str(recording.error)
    if "parameter scale" not in text or "GreaterThan(lower_bound=0.0)" not in text:
        return None
    scale = next((v["value"] for v in local_values(recording.error) if "value" in v), None)
    if not isinstance(scale, Tensor) or bool(scale.isnan().any()):
        return None
    name = re.search(r"of distribution (\w+)", text)
    return scale, name[1] if name is not None else "the distribution"


def negative(recording: Recording) -> Negative | None:
    """The scale, computed from data by learned weights, that is negative somewhere and refused."""
    scale, name = _refused_scale(recording) or (None, "")
    if scale is None or not bool((scale < 0).any()):
        return None
    value, flow = recording.value_of(scale), Flow(recording)
    if value is None or not flow.posterior(value):
        return None
    found = scale.detach()
    count = int((found < 0).sum())
    return Negative(count, found.numel(), float(found.min()), name, head(flow, value))


def refused(recording: Recording) -> Refused | None:
    """The scale because of which the step raised: nowhere negative or NaN, but zero somewhere."""
    scale, _ = _refused_scale(recording) or (None, "")
    if scale is None or not bool((scale >= 0).all()) or not bool((scale == 0).any()):
        return None
    value = recording.value_of(scale)
    tiny = torch.finfo(scale.dtype).tiny
    op = _maker_of_zeros(Flow(recording), value, tiny) if value is not None else None
    if op is not None and not all(bool(torch.isfinite(v.tensor).all()) for v in op.reads):
        return None  # VAE801 tells where the infinity begins
    return Refused(int((scale == 0).sum()), scale.numel(), op.span if op is not None else None)
