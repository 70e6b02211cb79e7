"""Whether a density's function is right, and it is what one call hands over that is wrong.

A function that gives the density of N(0, 1) where another call asks for log p of the sample has
the right formula: the gradient at the sample is its negative.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from types import CodeType

import torch

from ...finding import Span
from ..anatomy.anatomy import Anatomy
from ..anatomy.latents import Latent
from ..runs.callers import is_shared
from ..runs.recording import Op
from .quotients import EVEN


def call_of(anatomy: Anatomy, latent: Latent, at: Span | None) -> Span | None:
    """The call that leads to a line of a posterior's term in a function that others call too."""
    found = _in_shared(anatomy, latent, at)
    return found.frames[1].span if found is not None else None


def wrong_call(anatomy: Anatomy, latent: Latent, at: Span | None) -> Span | None:
    """The call that leads to a line of log q where the same function is right about log p."""
    flow, z = anatomy.flow, latent.z
    found = _in_shared(anatomy, latent, at)
    if found is None:
        return None
    after, ops = flow.descendants(z), [op for op in anatomy.recording.ops if op.makes]
    for call in _calls(ops, found.frames[0].code):
        made, own = call[-1].out, _is_own(anatomy, latent, call[-1])
        if made.index not in after or own or made.edge is None or z.edge is None:
            continue
        (slope,) = torch.autograd.grad(
            made.tensor.sum(), [z.edge], allow_unused=True, retain_graph=True
        )
        if slope is not None and torch.allclose(slope, -z.tensor.detach(), EVEN, EVEN):
            return found.frames[1].span
    return None


def _in_shared(anatomy: Anatomy, latent: Latent, at: Span | None) -> Op | None:
    """The operation of the posterior's own term at a place inside a function with other callers."""
    ops = (op for op in anatomy.recording.ops if op.makes and op.span == at)
    found = next((op for op in ops if _is_own(anatomy, latent, op)), None)
    if found is None or len(found.frames) < 2:
        return None
    return found if is_shared(anatomy.flow, found.frames[0].code) else None


def _is_own(anatomy: Anatomy, latent: Latent, op: Op) -> bool:
    heads = {h.value.index for h in (latent.loc_head, latent.scale_head) if h is not None}
    return not heads.isdisjoint(anatomy.flow.ancestors(op.out, stop=[latent.z]))


def _calls(ops: list[Op], function: CodeType) -> Iterator[list[Op]]:
    """The operations of every call of a function, by the line that calls it."""

    def caller(op: Op) -> tuple[CodeType, int] | None:
        inside = op.frames[:1] and op.frames[0].code is function and len(op.frames) > 1
        return (op.frames[1].code, op.frames[1].instruction) if inside else None

    for key, group in itertools.groupby(ops, caller):
        if key is not None:
            yield list(group)
