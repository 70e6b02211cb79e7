"""How large the gradients of encoder and decoder are, relative to their weights."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median

from torch import nn

from ..finding import Span
from ..rule import Unavailable
from .anatomy import Anatomy
from .census import defined_at
from .gradients import Gradients


@dataclass(frozen=True, slots=True)
class GradientScale:
    """Median ratio of gradient norm to weight norm in the layers before and after the sample."""

    encoder: float
    decoder: float
    smallest: str
    largest: str
    at: Span | None

    @property
    def ratio(self) -> float:
        """Encoder over decoder."""
        return self.encoder / self.decoder


def gradient_scale(anatomy: Anatomy, gradients: Gradients, model: nn.Module) -> GradientScale:
    """Measure every weight matrix; raises Unavailable where one side has no nonzero gradient."""
    flow = anatomy.flow
    heads = [found.loc for found in anatomy.latents if found.loc is not None]
    if not heads:
        raise Unavailable("no sampled latent separates encoder from decoder")
    before = flow.ancestors(*heads)
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
        defined_at(model, smallest.rpartition(".")[0] or smallest),
    )
