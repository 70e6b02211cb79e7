"""Heads: the layer whose output a location or scale is, and the module that it belongs to."""

from __future__ import annotations

from dataclasses import dataclass

from ..runs.flow import JOINS, SLICES, Flow
from ..runs.recording import Op, Value

_MOST_MERGES = 100  # deep enough for any normalisation, and no deep recursion


@dataclass(frozen=True, slots=True)
class Head:
    """Where a posterior parameter leaves the encoder: the raw value and the layer that made it."""

    value: Value
    op: Op
    path: str


def head(flow: Flow, value: Value) -> Head | None:
    """Walk back from a sampler's operand through elementwise and shape operations to its layer.

    Of a chunked, split or sliced layer the head is the part, not the whole.
    """
    return _head(flow, value, {})


def _head(flow: Flow, value: Value, known: dict[int, Head | None]) -> Head | None:
    part: Value | None = None
    while value.op is not None:
        op = value.op
        parents = {p.index: p for p in flow.parents(value) if flow.data[p.index]}
        if flow.layer(op):
            return Head(part or value, op, path_of(op))
        if part is not None and op.name in JOINS and len(parents) < len(op.reads):
            return Head(part, op, path_of(op))  # the part may be the constant that was joined
        if len(parents) != 1:
            common = _common_head(flow, list(parents.values()), known) if part is None else None
            return common or Head(part or value, op, path_of(op))
        if op.name in SLICES:
            part = part or value
        (parent,) = parents.values()
        if not flow.learned[parent.index]:  # its weights came with a condition: `adj @ (h @ w)`
            return Head(part or value, op, path_of(op))
        value = parent
    return None


def _common_head(flow: Flow, values: list[Value], known: dict[int, Head | None]) -> Head | None:
    """The one head behind several values, as in `logits - logits.logsumexp(-1)`."""
    for value in values:
        if value.index not in known and len(known) < _MOST_MERGES:
            known[value.index] = None  # counts while it is looked for
            known[value.index] = _head(flow, value, known)
    heads = [known.get(v.index) for v in values]
    first = heads[0] if heads else None
    if first is None or any(h is None or h.value is not first.value for h in heads):
        return None
    return first if flow.layer(first.op) else None


def path_of(op: Op) -> str:
    """The path of the innermost module that was running, as in `encoder.linear_mu`."""
    return next((c.path for c in op.call.chain() if c.path), "") if op.call else ""
