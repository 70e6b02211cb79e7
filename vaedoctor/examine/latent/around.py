"""Where x comes in around the latent, and whether the loss sets it beside x_hat at all."""

from __future__ import annotations

from collections.abc import Set

from torch import Tensor

from ..anatomy.anatomy import Anatomy
from ..anatomy.latents import ADDS, MULS, Latent
from ..runs.flow import JOINS, RESHAPES, SLICES, Flow
from ..runs.recording import Op, Value


def compared(anatomy: Anatomy, latents: list[Latent]) -> bool:
    """Whether the loss sets what it makes of x_hat beside something of x but for its codes."""
    flow, x_hat, loss = anatomy.flow, anatomy.x_hat, anatomy.recording.loss
    end = anatomy.recording.value_of(loss) if isinstance(loss, Tensor) else None
    if end is None or x_hat is None:
        return True
    parts = parts_of(flow, x_hat, flow.ancestors(end))
    after = flow.descendants(*parts) & flow.ancestors(end)
    x = anatomy.x  # which a flow stretches, part by part: that is no comparison
    part = x is not None and x_hat.tensor.numel() < x.tensor.numel()
    own = {v.index for v in parts}
    heads = [h.value for f in latents for h in (f.loc_head, f.scale_head) if h is not None]
    coded = flow.descendants(*(f.z for f in latents), *heads)
    return any(
        any(
            r.index not in after | coded
            and (flow.data[r.index] or flow.given[r.index])
            and not (op.name in ADDS and _is_term(anatomy, r))
            and not (part and op.name in MULS)
            for r in op.reads
        )
        for op in flow.recording.ops
        if op.name not in JOINS
        and any(m.index in after - own for m in op.makes)
        and any(r.index in after for r in op.reads)
    )


def _is_term(anatomy: Anatomy, value: Value) -> bool:
    """Whether a value is one computed number a row, of many in x, as a log-determinant is."""
    rows, x = value.shape[:1], anatomy.x
    return value.op is not None and x is not None and value.shape == rows != x.shape


def parts_of(flow: Flow, x_hat: Value, scored: Set[int]) -> list[Value]:
    """x_hat, or the steps that it was joined of where the loss reads those alone."""
    if x_hat.index in scored or x_hat.op is None or x_hat.op.name not in JOINS | RESHAPES:
        return [x_hat]
    return [part for v in flow.parents(x_hat) for part in parts_of(flow, v, scored)]


def turned(flow: Flow, latents: list[Latent], merge: Op) -> bool:
    """Whether a draw of another family is turned to its location by arithmetic before any layer.

    As a direction on the sphere is, by a reflection.
    """
    if merge.name not in ADDS | MULS or any(found.family == "gaussian" for found in latents):
        return False
    way = flow.descendants(*(found.z for found in latents)) & flow.ancestors(merge.out)
    return not any(flow.layer(op) for op in flow.recording.ops if op.makes and op.out.index in way)


def narrow(flow: Flow, held: list[Value], merge: Op | None, x: Value) -> bool:
    """Whether what comes around codes is less than they are: a speaker's vector beside phonemes."""
    if merge is None:
        return True
    after, from_x = flow.descendants(*held), flow.descendants(x)
    around = [v for v in merge.reads if v.index in from_x and v.index not in after]
    return max(v.tensor.numel() for v in around) < held[0].tensor.numel()


def merge_of(flow: Flow, held: list[Value], x_hat: Value, x: Value) -> Op | None:
    """The first operation on the way from a sample to x_hat that also reads what came around it.

    What another sample takes up on its own way is that sample's, not the decoder's.
    """
    if (late := _at_last_step(flow, held, x_hat, x)) is not None:
        return late
    own = {v.index for v in held}
    after = flow.descendants(*held) & flow.ancestors(x_hat, stop=held)
    from_x = flow.descendants(x)
    for op in flow.recording.ops:
        if not any(m.index in after - own for m in op.makes):
            continue
        through = [v for v in op.reads if v.index in after]
        around = [v for v in op.reads if v.index in from_x and v.index not in after]
        if through and around:
            return op
    return None


def _at_last_step(flow: Flow, held: list[Value], x_hat: Value, x: Value) -> Op | None:
    """Of a series, where the last step's x meets what the steps before left; None of no series.

    The memory takes up every x together with its sample, and is not the place.
    """
    loss = flow.recording.loss
    end = flow.recording.value_of(loss) if isinstance(loss, Tensor) else None
    scored = flow.ancestors(end) if end is not None else frozenset[int]()
    steps = parts_of(flow, x_hat, scored - {x_hat.index})
    if len(steps) < 2:
        return None
    behind = flow.ancestors(steps[-1], stop=held)
    cut = [v for op in flow.consumers.get(x.index, ()) if op.name in SLICES for v in op.makes]
    late = [v for v in cut if v.index in behind]
    if not late:
        return None
    way = flow.descendants(late[-1]) & behind
    for op in flow.recording.ops:
        beside = [v for v in op.reads if v.index not in way]
        other = any(flow.data[v.index] or flow.noise[v.index] for v in beside)
        if other and len(beside) < len(op.reads) and any(m.index in way for m in op.makes):
            return op
    return None
