"""How large the gradients of encoder and decoder are, relative to their weights."""

from __future__ import annotations

import math
from collections.abc import Set
from dataclasses import dataclass
from statistics import median

import torch

from ..finding import Span
from ..rule import Unavailable
from .anatomy import Anatomy
from .gradients import Gradients


@dataclass(frozen=True, slots=True)
class GradientScale:
    """Median ratio of gradient norm to weight norm in the layers before and after the sample.

    `by_layer` holds the ratio of each weight matrix, in the order in which the step met them.
    """

    encoder: float
    decoder: float
    smallest: str
    largest: str
    by_layer: tuple[tuple[str, float], ...] = ()

    @property
    def ratio(self) -> float:
        """Encoder over decoder."""
        return self.encoder / self.decoder


def gradient_scale(anatomy: Anatomy, gradients: Gradients) -> GradientScale:
    """Measure every weight matrix; raises Unavailable where one side has no nonzero gradient."""
    before = _encoder(anatomy)
    sides: dict[bool, dict[str, float]] = {True: {}, False: {}}
    for name, value in gradients.values.items():
        gradient = gradients.by_name.get(name)
        if gradient is None or value.tensor.dim() < 2:
            continue
        size, weight = float(gradient.norm()), float(value.tensor.detach().norm())
        if size > 0 and weight > 0 and size != float("inf") and size == size:
            sides[value.index in before][name] = size / weight
    if not sides[True] or not sides[False]:
        raise Unavailable("encoder or decoder has no weight matrix with a nonzero gradient")
    encoder = sides[True]
    smallest, largest = min(encoder, key=encoder.__getitem__), max(encoder, key=encoder.__getitem__)
    return GradientScale(
        median(encoder.values()),
        median(sides[False].values()),
        smallest,
        largest,
        tuple(
            (name, sides[side][name])
            for name in gradients.values
            for side in (True, False)
            if name in sides[side]
        ),
    )


def _encoder(anatomy: Anatomy) -> Set[int]:
    operands = ((found.loc, found.scale) for found in anatomy.affine)
    heads = [v for pair in operands for v in pair if v is not None]
    if not heads:
        raise Unavailable("no sampled latent separates encoder from decoder")
    return anatomy.flow.ancestors(*heads)


@dataclass(frozen=True, slots=True)
class Steepest:
    """The encoder's lines at which the gradient loses, and gains, the most on its way back."""

    shrinks_at: Span | None = None
    grows_at: Span | None = None


def steepest(anatomy: Anatomy, gradients: Gradients) -> Steepest:
    """Ask the gradient at every value of the encoder."""
    flow, encoder = anatomy.flow, _encoder(anatomy)
    values = [v for v in flow.recording.values if v.index in encoder and v.edge is not None]
    if gradients.loss is None or not values:
        return Steepest()
    edges = [v.edge for v in values if v.edge is not None]
    found = torch.autograd.grad(gradients.loss, edges, allow_unused=True, retain_graph=True)
    size = {
        v.index: float(g.norm() / g.numel() ** 0.5)
        for v, g in zip(values, found, strict=True)
        if g is not None and g.numel()
    }
    gain: dict[Span, float] = {}
    for op in flow.recording.ops:
        made = max((size.get(m.index, 0.0) for m in op.makes), default=0.0)
        read = [size[v.index] for v in op.reads if v.index in size and flow.data[v.index]]
        if op.span is not None and made > 0 and read and max(read) > 0:
            gain[op.span] = gain.get(op.span, 0.0) + math.log(max(read) / made)
    if not gain:
        return Steepest()
    return Steepest(min(gain, key=gain.__getitem__), max(gain, key=gain.__getitem__))
