"""Where code would have to change to mend what is wrong with a look-up of codes."""

from __future__ import annotations

from types import CodeType

from ...finding import Span
from ..anatomy.anatomy import Anatomy
from ..runs.flow import Flow
from ..runs.recording import Op, Value


def handed_on(anatomy: Anatomy, read: Op) -> Span | None:
    """Where what a look-up or a rounding reads goes to the decoder without the gradient.

    That is where a vector is joined to it again; or what the function that compares it for the
    loss does with it first after that, before a layer; or the look-up itself.
    """
    flow, x_hat = anatomy.flow, anatomy.x_hat
    if x_hat is None or not read.makes:
        return read.span
    way = _until_a_layer(flow, read, flow.ancestors(x_hat))
    codes = flow.descendants(read.out)
    joined = [op for op in way if any(_beside(flow, v, codes) for v in op.reads)]
    if joined:
        return joined[-1].span or read.span
    compared = [
        op
        for op in anatomy.recording.ops
        if op.index > read.index
        and any(_beside(flow, v, codes) for v in op.reads)
        and any(v.index in codes for v in op.reads)
    ]
    later = [op for op in way if compared and op.index > compared[-1].index]
    same = later and _function(later[0]) is _function(compared[-1])
    return later[0].span if same else read.span


def _function(op: Op) -> CodeType | None:
    return op.frames[0].code if op.frames else None


def _until_a_layer(flow: Flow, read: Op, behind: frozenset[int]) -> list[Op]:
    """The operations on the way from what is read to x_hat, in order, before any layer."""
    waiting, found = list(read.makes), dict[int, Op]()
    while waiting:
        for op in flow.consumers.get(waiting.pop().index, ()):
            ahead = any(m.index in behind for m in op.makes)
            if ahead and op.index not in found and not flow.layer(op):
                found[op.index] = op
                waiting.extend(op.makes)
    return [found[i] for i in sorted(found)]


def _beside(flow: Flow, value: Value, codes: frozenset[int]) -> bool:
    """Whether a value is the encoder's, and no code."""
    return flow.posterior(value) and value.index not in codes
