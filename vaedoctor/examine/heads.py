"""Are location and scale two things? Equal values, or overlapping parts of one tensor."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ..finding import Span
from .anatomy import Anatomy
from .latents import Head
from .recording import Op

_MOST = 1 << 22


@dataclass(frozen=True, slots=True)
class Identical:
    """A location and a scale head that are one tensor: `shared` is the share of equal entries."""

    loc: Head
    scale: Head
    at: Span | None
    shared: float

    @property
    def halves(self) -> bool:
        """Whether both are parts of what one layer gives, and more of it is there."""
        one = self.loc.op is self.scale.op
        whole = self.loc.op.out.tensor.numel() if one and self.loc.op.makes else 0
        return whole > max(h.value.tensor.numel() for h in (self.loc, self.scale))


def identical_heads(anatomy: Anatomy) -> Iterator[Identical]:
    """Pairs of heads that are bit-equal or overlap in storage."""
    pairs = [(found.loc_head, found.scale_head) for found in anatomy.latents]
    if anatomy.unsampled is not None:
        pairs.append((anatomy.unsampled.loc_head, anatomy.unsampled.scale_head))
    for loc, scale in pairs:
        if loc is None or scale is None:
            continue
        shared = _shared(loc, scale)
        if shared > 0:
            makers = [h.value.op or h.op for h in (loc, scale)]
            maker = max(makers, key=lambda op: op.index)
            yield Identical(loc, scale, _called_at(maker, loc, scale), shared)


def _called_at(op: Op, loc: Head, scale: Head) -> Span | None:
    """The line of an operation; of a layer that is called twice, its second call."""
    calls = [h.op.call for h in (loc, scale)]
    if loc.op is not scale.op and all(calls) and op is max(loc.op, scale.op, key=_index):
        first, second = calls
        if first is not None and second is not None and first.module is second.module:
            return op.call.span if op.call is not None and op.call.span is not None else op.span
    return op.span


def _index(op: Op) -> int:
    return op.index


def _shared(loc: Head, scale: Head) -> float:
    if loc.value is scale.value:
        return 1.0
    a, b = loc.value.tensor.detach(), scale.value.tensor.detach()
    equal = a.shape == b.shape and bool(torch.equal(a, b))
    # Two zero-initialised heads are equal at step 0 without being one head.
    if equal and bool((a != a.flatten()[0]).any()):
        return 1.0
    return _overlap(a, b)


def _overlap(a: Tensor, b: Tensor) -> float:
    """The share of the entries of `a` that lie in the memory of `b` as well."""
    storage = a.untyped_storage()
    if storage.data_ptr() != b.untyped_storage().data_ptr() or a.dtype != b.dtype:
        return 0.0
    size = storage.nbytes() // a.element_size()
    if size > _MOST:
        return 0.0
    where = torch.arange(size)
    mine = where.as_strided(a.shape, a.stride(), a.storage_offset()).flatten()
    theirs = where.as_strided(b.shape, b.stride(), b.storage_offset()).flatten()
    return float(torch.isin(mine, theirs).float().mean())
