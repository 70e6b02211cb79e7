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


def wrong_call(anatomy: Anatomy, latent: Latent, at: Span | None) -> Span | None:
    """The call that leads to a line of log q where the same function is right about log p."""
    flow, z = anatomy.flow, latent.z
    heads = {h.value.index for h in (latent.loc_head, latent.scale_head) if h is not None}

    def own(op: Op) -> bool:
        return not heads.isdisjoint(flow.ancestors(op.out, stop=[z]))

    ops = [op for op in anatomy.recording.ops if op.makes]
    found = next((op for op in ops if op.span == at and own(op)), None)
    if found is None or len(found.frames) < 2 or not is_shared(flow, found.frames[0].code):
        return None
    after = flow.descendants(z)
    for call in _calls(ops, found.frames[0].code):
        made = call[-1].out
        if made.index not in after or own(call[-1]) or made.edge is None or z.edge is None:
            continue
        (slope,) = torch.autograd.grad(
            made.tensor.sum(), [z.edge], allow_unused=True, retain_graph=True
        )
        if slope is not None and torch.allclose(slope, -z.tensor.detach(), EVEN, EVEN):
            return found.frames[1].span
    return None


def _calls(ops: list[Op], function: CodeType) -> Iterator[list[Op]]:
    """The operations of every call of a function, by the line that calls it."""

    def caller(op: Op) -> tuple[CodeType, int] | None:
        inside = op.frames[:1] and op.frames[0].code is function and len(op.frames) > 1
        return (op.frames[1].code, op.frames[1].instruction) if inside else None

    for key, group in itertools.groupby(ops, caller):
        if key is not None:
            yield list(group)
