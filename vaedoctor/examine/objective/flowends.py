"""Where a flow behind a sample ends: values of its shape that the loss may score."""

from __future__ import annotations

from torch import Tensor

from ...finding import Span
from ..anatomy.anatomy import Anatomy
from ..anatomy.latents import Latent
from ..runs.flow import Flow
from ..runs.recording import Value


def flow_ends(anatomy: Anatomy, latent: Latent) -> list[Value]:
    """Values that may be a flow's output, the likeliest first; empty where there is no flow.

    On the way to the decoder: values that all of x_hat's dependence on the sample passes, and
    that the loss reads beside it. Beside that way: a module's outputs, as of a flow prior.
    """
    flow, loss = anatomy.flow, anatomy.recording.loss
    last = flow.recording.value_of(loss) if isinstance(loss, Tensor) else None
    if last is None or anatomy.x_hat is None:
        return []
    judged, decoded = flow.ancestors(last), flow.ancestors(anatomy.x_hat)
    chain = passed_by_all(flow, latent.z, anatomy.x_hat)
    leaks = [
        op.index
        for op in flow.recording.ops
        if op.makes
        and not any(m.index in decoded for m in op.makes)
        and any(m.index in judged for m in op.makes)
    ]
    read = [v for v in chain if any(op.index in leaks for op in flow.consumers.get(v.index, ()))]
    inner = _inner(flow, latent, chain, leaks)
    aside = [
        v
        for call in flow.recording.calls
        for v in call.outputs
        if v.shape == latent.z.shape
        and v.index in judged - decoded
        and latent.z.index in flow.ancestors(v)
    ]
    return list(dict.fromkeys([*reversed(read), *inner, *reversed(aside)]))


def passed_by_all(flow: Flow, z: Value, end: Value) -> list[Value]:
    """Values of the sample's shape through which everything passes on its way to the end."""
    way = flow.descendants(z) & flow.ancestors(end)
    alike = [
        v
        for v in flow.recording.values
        if v.index in way and v.shape == z.shape and v is not z and v is not end
    ]
    return [v for v in alike[:200] if z.index not in flow.ancestors(end, stop=[v])]


def _inner(flow: Flow, latent: Latent, chain: list[Value], leaks: list[int]) -> list[Value]:
    """The first common value after all that the loss reads of the inside of a flow."""
    after = flow.descendants(latent.z)
    inside = [
        i
        for i in leaks
        for op in [flow.recording.ops[i]]
        if any(v.index in after and v is not latent.z and v not in chain for v in op.reads)
    ]
    for v in chain:
        known = [i for i in inside if flow.recording.ops[i].reads[0].index < v.index]
        if known and v.op is not None and flow.learned[v.index]:
            return [v]
    return []


def scored_before_at(anatomy: Anatomy, latent: Latent, end: Value) -> Span | None:
    """Where the first sample is read beside the flow, which ends at `end`, without its location."""
    flow, z0 = anatomy.flow, latent.z
    taken = flow.ancestors(end)
    for op in flow.consumers.get(z0.index, ()):
        if not op.makes or op.out.edge is None or op.out.index in taken:
            continue
        beside = [v.index for v in op.reads if v is not z0]
        if flow.ancestors(z0).isdisjoint(beside):
            return op.span
    return None
