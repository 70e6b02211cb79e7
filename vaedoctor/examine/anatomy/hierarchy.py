"""How several latents hang together, and how many samples of one are drawn."""

from __future__ import annotations

from collections.abc import Iterator, Set
from typing import TYPE_CHECKING

from ...finding import Span
from .anatomy import Anatomy
from .latents import Latent
from .pinning import loss_value

if TYPE_CHECKING:
    from ..examination import Examination


def structure(anatomy: Anatomy, latents: list[Latent]) -> tuple[str, str] | None:
    """The word for several latents (`hierarchical`, `sequence`) and what shows it."""
    x = anatomy.x
    steps = set(x.shape[:2]) if x is not None and len(x.shape) > 1 else set()
    # Of a loop that scores each step, x_hat may be one step alone.
    every = [_place(f) for f in anatomy.latents]
    places = [_place(f) for f in latents]
    most = max((every.count(p) for p in places), default=0)
    if most > 2 and steps & {most - 1, most, most + 1}:
        return "sequence", f"{most} samples come from one line, a latent a step"
    if len(latents) > 1:
        flow = anatomy.flow
        for later in latents:
            heads = [v for v in (later.loc, later.scale) if v is not None]
            behind = flow.ancestors(*heads)
            above = [f for f in latents if f is not later and f.z.index in behind]
            if above:
                word = "sequence" if places.count(places[0]) == len(places) > 2 else "hierarchical"
                shown = f"the posterior of one of {len(latents)} samples is computed from another"
                return word, shown
        return "", f"{len(latents)} samples, none of which is computed from another"
    latent = latents[0] if latents else None
    if latent is None or x is None or len(x.shape) < 2 or len(latent.z.shape) != 3:
        return None
    if latent.z.shape[:2] == x.shape[:2] and len(x.shape) in (2, 3) and x.shape[1] > 1:
        return "sequence", f"one draw holds a latent for each of {x.shape[1]} steps"
    return None


def _place(latent: Latent) -> tuple[Span | None, str]:
    """The line of a draw and the layer that makes its location."""
    path = latent.loc_head.path if latent.loc_head is not None else ""
    return latent.draw.op.span if latent.draw.op else None, path


def samples(examination: Examination, latents: list[Latent]) -> tuple[str, str, str] | None:
    """Several samples of one posterior: how many, and whether the bound joins them as IWAE does."""
    for latent in latents[:1]:
        head = latent.loc_head
        if latent.loc is None or head is None or not head.value.tensor.numel():
            continue
        count, rest = divmod(latent.z.tensor.numel(), head.value.tensor.numel())
        extra = len(latent.z.shape) > len(head.value.shape)
        if rest or count < 2 or not extra or latent.family == "dirichlet":  # parts of one draw
            continue
        joined = [a for a in examination.aggregations if a.samples == count]
        shown = f"{count} samples of each row's posterior"
        if joined:
            return f"iwae ({count} samples)", "high", f"{shown}, joined by a log-mean-exp"
        return f"{count} samples", "high", shown
    return None


def carries(anatomy: Anatomy, latent: Latent, others: list[Latent]) -> bool:
    """Whether x reaches x_hat, or the prior of another, through a latent, around all of the others.

    Where it does not, the others bound what the latent can tell: a noisy layer of the decoder, or
    noise in front of a posterior, needs no KL of its own. Where it makes another's prior, the KL of
    that one bounds nothing.
    """
    flow, x_hat = anatomy.flow, anatomy.x_hat
    apart = [x.z for x in others if x.z is not latent.z]
    if x_hat is None:
        return True
    made = [v for x in others for v in (x.loc, x.scale) if v is not None]
    decoded = flow.ancestors(x_hat, stop=apart)
    scored = flow.ancestors(loss_value(anatomy), stop=[*apart, *made, x_hat])
    if latent.z.index not in decoded | scored:
        return False
    behind = flow.ancestors(latent.z, stop=apart)
    return any(anatomy.recording.values[i].source == "input" for i in behind)


def unscored(anatomy: Anatomy) -> list[Latent]:
    """Upper latents whose location and scale the loss sees by the sample alone.

    An upper latent is drawn from the sample of a lower one and makes its prior. A KL reads its
    location and scale too, by a formula or by the density of the sample. A prior that is sampled
    on its way down is no such latent: what it makes is not compared with what it came from.
    """
    return [latent for latent, scored in _uppers(anatomy) if not scored]


def uppers(anatomy: Anatomy) -> list[Latent]:
    """Upper latents beside the decoder whose location and scale the loss does read."""
    return [latent for latent, scored in _uppers(anatomy) if scored]


def _uppers(anatomy: Anatomy) -> Iterator[tuple[Latent, bool]]:
    flow, end = anatomy.flow, loss_value(anatomy)
    for latent in anatomy.affine if anatomy.sampled else []:
        heads = _heads(latent)
        beside = flow.ancestors(end, stop=[latent.z])
        if not heads or latent.reaches or latent.z.index not in beside:
            continue
        after = flow.descendants(latent.z)
        layers = (op for op in anatomy.recording.ops if flow.layer(op) and op.makes)
        made = [m for op in layers if any(v.index in after for v in op.reads) for m in op.makes]
        behind = flow.ancestors(latent.z)
        if anatomy.x_hat is not None and anatomy.x_hat.index in behind:
            continue  # the reconstruction encoded once more
        lower = [x for x in anatomy.sampled if x.z.index in behind]
        if not beside & heads and latent.z.index in flow.ancestors(end, stop=made):
            continue  # a loss that reads the sample bare may match it to its prior
        if any(_met(anatomy, x, after) for x in lower):
            yield latent, bool(beside & heads)


def _heads(latent: Latent) -> set[int]:
    known = [h for h in (latent.loc_head, latent.scale_head) if h is not None]
    return {h.value.index for h in known} if len(known) == 2 else set()


def _met(anatomy: Anatomy, lower: Latent, after: Set[int]) -> bool:
    """Whether what follows from an upper sample meets the posterior of a lower latent."""
    flow, heads = anatomy.flow, _heads(lower)
    for op in anatomy.recording.ops:
        inside = [v.index in after for v in op.reads]
        if not any(inside) or all(inside):
            continue
        others = [v for v, known in zip(op.reads, inside, strict=True) if not known]
        if any(heads & flow.ancestors(v, stop=[lower.z]) for v in others):
            return True
    return False
