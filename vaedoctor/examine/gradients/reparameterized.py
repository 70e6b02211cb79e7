"""Whether the gradient passes each latent: from the decoder through the draw to the heads."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..anatomy.anatomy import Anatomy
from ..anatomy.decoders import predictions
from ..anatomy.latents import ADDS, Latent
from ..runs.flow import Flow
from ..runs.gradients import Arrives, gradient_between, kind_of
from ..runs.recording import Value
from .cuts import Cut, cut_between

CHOICES = frozenset({"gumbel", "categorical", "bernoulli"})
IMPLICIT = frozenset({"dirichlet", "gamma"})
"""Drawn by rejection, with the gradient of Figurnov et al. (2018) in `rsample`."""

REPARAMETERIZABLE = frozenset({"gaussian", "laplace", "logistic", "uniform"})


@dataclass(frozen=True, slots=True)
class Reparameterization:
    """How the gradient passes one latent: from what enters the next layer back to each head."""

    latent: Latent
    entry: Value
    loc: Arrives | None
    scale: Arrives | None
    cut: Cut | None
    scored: bool = False

    @property
    def relaxed(self) -> bool:
        """Whether this is a category, which a relaxation would make differentiable."""
        return self.latent.family in CHOICES and self.latent.scale is None

    @property
    def implicit(self) -> bool:
        """Whether `rsample` differentiates the draw though it is by rejection."""
        return self.latent.family in IMPLICIT

    @property
    def judged(self) -> bool:
        """Whether a reparameterised draw exists for the family, and the sample is used.

        Of a category or a draw by rejection only where an operation cuts the gradient and no term
        of the loss scores it.
        """
        known = self.latent.family in REPARAMETERIZABLE
        cut = (self.relaxed or self.implicit) and (
            (self.cut is not None and not self.scored) or self.passes
        )
        return self.latent.reaches and (known or cut)

    @property
    def passes(self) -> bool:
        """Whether a nonzero gradient arrives wherever the sampler has a posterior operand."""
        return all(a in (None, Arrives.YES) for a in (self.loc, self.scale))

    @property
    def layers(self) -> list[str]:
        """Tokens of the layers that make the heads."""
        heads = (self.latent.loc_head, self.latent.scale_head)
        return [f"layer:{h.path}" for h in heads if h is not None]


def entry_of(flow: Flow, latent: Latent, x_hat: Value | None) -> Value:
    """The value in which a sample enters the first layer after it (the sample itself if none)."""
    goal = flow.ancestors(x_hat) if x_hat is not None else None
    value = latent.z
    seen: set[int] = set()
    ahead = [latent.z]
    while ahead:
        value = ahead.pop(0)
        if value.index in seen:
            continue
        seen.add(value.index)
        for op in flow.consumers.get(value.index, ()):
            if goal is not None and not any(m.index in goal for m in op.makes):
                continue
            if flow.layer(op):
                return value
            ahead.extend(op.makes)
        ahead.extend(
            flow.recording.values[entry]
            for entry, origins in flow.carried.items()
            if value in origins
        )
    return latent.z if x_hat is None or latent.z.index == x_hat.index else value


def _root(flow: Flow, operand: Value | None) -> Value | None:
    """The nearest ancestor of a sampler's operand that carries a gradient."""
    value = operand
    while value is not None and not value.requires_grad:
        parents = [p for p in flow.parents(value) if flow.posterior(p)]
        value = parents[0] if parents else None
    return value


def _arrivals(entry: Value, roots: list[Value]) -> dict[int, Arrives]:
    found = gradient_between([entry], roots)
    return {v.index: kind_of(gradient) for v, gradient in zip(roots, found, strict=True)}


def reparameterization(anatomy: Anatomy, latent: Latent) -> Reparameterization | None:
    """Differentiate what enters the decoder at the sampler's location and scale.

    None where the encoder carries no gradient at all (frozen, or cut before the heads).
    """
    flow = anatomy.flow
    entry = entry_of(flow, latent, anatomy.x_hat if latent.reaches else None)
    loc, scale = _root(flow, latent.loc), _root(flow, latent.scale)
    if loc is None and scale is None:
        return None
    roots = [v for v in (loc, scale) if v is not None]
    arrives = _arrivals(entry, roots)
    lost = [v for v in roots if arrives[v.index] is not Arrives.YES]
    cut = cut_between(flow, lost[0], entry) if lost else None
    if cut is None and any(arrives[v.index] is Arrives.ZERO for v in lost):
        entry = latent.z  # what follows the sample saturates: no cut
        arrives = _arrivals(entry, roots)
    if not lost and latent.reaches and latent.family in REPARAMETERIZABLE:
        cut = _cut_behind(anatomy, latent, entry, roots)
        arrives |= {v.index: Arrives.NONE for v in roots if cut is not None}
    return Reparameterization(
        latent,
        entry,
        arrives[loc.index] if loc is not None else None,
        arrives[scale.index] if scale is not None else None,
        cut,
        _scored(anatomy, latent, loc) or _taught(anatomy, latent, loc),
    )


def _cut_behind(anatomy: Anatomy, latent: Latent, entry: Value, roots: list[Value]) -> Cut | None:
    """What cuts all that is decoded off the posterior, behind layers that the sample enters first.

    A flow's layers, say, whose output is detached before the decoder: a term of the loss may still
    give the sample a gradient.
    """
    flow = anatomy.flow
    decoded = flow.descendants(latent.z)
    made = [v for v in predictions(anatomy) if v.index in decoded and v.edge is not None]
    none = made and all(set(_arrivals(v, roots).values()) == {Arrives.NONE} for v in made)
    cut = cut_between(flow, entry, made[0]) if none else None
    return cut if cut is not None and _layers_learn(anatomy, latent, cut) else None


def _layers_learn(anatomy: Anatomy, latent: Latent, cut: Cut) -> bool:
    """Whether the loss teaches the layers from the sample to a cut; else VAE601 tells of them."""
    flow, loss = anatomy.flow, anatomy.recording.loss
    between = flow.ancestors(*cut.op.reads, *cut.op.makes) - flow.ancestors(latent.z)
    edges = [
        v.edge
        for v in flow.recording.values
        if v.index in between and v.source == "parameter" and v.edge is not None
    ]
    if not isinstance(loss, Tensor) or not loss.requires_grad or not edges:
        return False
    found = torch.autograd.grad(loss.sum(), edges, allow_unused=True, retain_graph=True)
    return all(g is not None for g in found)


def _taught(anatomy: Anatomy, latent: Latent, logits: Value | None) -> bool:
    """Whether x_hat teaches the logits of a drawn category on another way than the draw.

    What a decoder draws from its own logits, to go on with it, needs no teaching.
    """
    drawn = latent.family in CHOICES - {"gumbel"} and latent.scale is None
    if not drawn or logits is None or anatomy.x_hat is None:
        return False
    others = {x.z.index for x in anatomy.latents if x is not latent}
    if others & anatomy.flow.ancestors(logits):
        return True
    head = latent.loc_head.value if latent.loc_head is not None else logits
    made = [v for v in (logits, head) if v.requires_grad]
    return Arrives.YES in _arrivals(anatomy.x_hat, made).values()


def _scored(anatomy: Anatomy, latent: Latent, logits: Value | None) -> bool:
    """Whether the loss joins the sample with its logits beside x_hat, as a score function does."""
    flow, x_hat, loss = anatomy.flow, anatomy.x_hat, anatomy.recording.loss
    end = anatomy.recording.value_of(loss) if isinstance(loss, Tensor) else None
    if logits is None or x_hat is None or end is None:
        return True
    terms = flow.ancestors(end) - flow.ancestors(x_hat)
    head = latent.loc_head.value if latent.loc_head is not None else logits
    drawn, given = flow.descendants(latent.z), flow.descendants(logits, head)
    return any(
        any(v.index in drawn for v in op.reads)
        and any(v.index in given and v.index not in drawn for v in op.reads)
        for op in anatomy.recording.ops
        if op.makes and op.out.index in terms and op.name not in ADDS
    )
