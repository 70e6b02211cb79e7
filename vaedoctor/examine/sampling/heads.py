"""Are location and scale two things? Equal values, or overlapping parts of one tensor."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ...finding import Span
from ..anatomy.anatomy import Anatomy
from ..anatomy.heads import Head, head, path_of
from ..anatomy.latents import Latent
from ..runs.flow import SLICES, Flow
from ..runs.recording import Op, Value

_MOST = 1 << 22


@dataclass(frozen=True, slots=True)
class Identical:
    """A location and a scale head that are one tensor: `shared` is the share of equal entries.

    `layers` are the nearest layers behind it.
    """

    loc: Head
    scale: Head
    at: Span | None
    shared: float
    layers: tuple[Op, ...]

    @property
    def halves(self) -> bool:
        """Whether both are parts of what one layer gives, and more of it is there."""
        one = self.loc.op is self.scale.op
        whole = self.loc.op.out.tensor.numel() if one and self.loc.op.makes else 0
        return whole > max(h.value.tensor.numel() for h in (self.loc, self.scale))


def identical_heads(anatomy: Anatomy) -> Iterator[Identical]:
    """Pairs of heads that are bit-equal or overlap in storage."""
    unsampled, told = anatomy.unsampled, set[Span]()
    if unsampled is not None:
        yield from _identical(anatomy.flow, unsampled.loc_head, unsampled.scale_head)
    for latent in anatomy.latents:
        if latent.family == "uniform":  # a sampler that rejects reads its one parameter twice
            continue
        found = list(_identical(anatomy.flow, latent.loc_head, latent.scale_head))
        for pair in _merged(anatomy.flow, latent) if not found else ():
            found += _identical(anatomy.flow, *pair)
        for identical in found:
            if identical.at is None or identical.at not in told:  # experts of one class, steps
                yield identical
            told.update([identical.at] if identical.at is not None else [])


def _identical(flow: Flow, loc: Head | None, scale: Head | None) -> Iterator[Identical]:
    shared = _shared(loc, scale) if loc is not None and scale is not None else 0.0
    if loc is not None and scale is not None and shared > 0:
        maker = max((h.value.op or h.op for h in (loc, scale)), key=lambda op: op.index)
        layers = tuple(h.op for h in fronts(flow, loc.value))
        yield Identical(loc, scale, _called_at(maker, loc, scale), shared, layers)


def _merged(flow: Flow, latent: Latent) -> Iterator[tuple[Head, Head]]:
    """What location and scale are merged from in an expert that gives both the same.

    An expert is what one module holds. Two calls that each give a location and a scale are none.
    """
    heads = (latent.loc_head, latent.scale_head)
    if latent.loc is None or latent.scale is None or all(h and flow.layer(h.op) for h in heads):
        return
    spreads, centres = (_by_module(fronts(flow, v)) for v in (latent.scale, latent.loc))
    for module in sorted(spreads.keys() & centres.keys()):
        known = {h.value.index for h in spreads[module]}
        (scale, *others), locations = spreads[module], centres[module]
        own = [h for h in locations if h.value.index not in known]
        if own and all(_shared(h, scale) == 1 for h in (*others, *locations)):
            yield own[0], scale


def _by_module(found: Iterable[Head]) -> dict[str, list[Head]]:
    members: dict[str, list[Head]] = {}
    for front in found:
        members.setdefault(front.path.rpartition(".")[0], []).append(front)
    return members


def fronts(flow: Flow, value: Value) -> Iterator[Head]:
    """The nearest layers behind a value on every way, of a layer that is split its parts."""
    waiting, seen = [value], set[int]()
    while waiting:
        now = waiting.pop()
        if now.index in seen or now.op is None or not flow.posterior(now):
            continue
        seen.add(now.index)
        if flow.layer(now.op):
            yield Head(now, now.op, path_of(now.op))
            continue
        if now.op.name in SLICES:
            found = head(flow, now)
            if found is not None and flow.layer(found.op):
                yield Head(now, found.op, found.path)
                continue
        waiting += flow.parents(now)


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
