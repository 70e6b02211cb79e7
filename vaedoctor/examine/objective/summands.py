"""Where in the user's sum a term joins the rest of the loss, and where its sign is turned."""

from __future__ import annotations

from collections.abc import Iterator, Set
from dataclasses import dataclass

from torch import Tensor

from ...finding import Span
from ..anatomy.anatomy import Anatomy
from ..anatomy.decoders import predictions
from ..anatomy.latents import ADDS, MULS, Latent
from ..anatomy.pinning import first_layers, loss_value
from ..runs.callers import placed
from ..runs.flow import CUTS, RESHAPES, Flow
from ..runs.recording import Op, Value

THROUGH = RESHAPES | {"mean", "sum", "neg", "stack", "cat"}
SUBTRACTS = frozenset("sub sub_ subtract __isub__".split())
REVERSED = frozenset(["rsub", "__rsub__"])


@dataclass(frozen=True, slots=True)
class Joined:
    """A term of the loss, the operation that adds it to the rest, and how often its sign turns."""

    term: Value
    to: Op | None
    turns: int


def joined(anatomy: Anatomy, latent: Latent, *roots: Value, bounds: bool = False) -> Joined | None:
    """The largest value computed from the posterior's `roots` and from no reconstruction.

    Walks from the loss through sums, means and constant factors, and with `bounds` through the
    `logsumexp` of several samples, which keeps signs alone; None where the loss is no such sum.
    """
    flow = anatomy.flow
    loss = anatomy.recording.loss
    value = anatomy.recording.value_of(loss) if isinstance(loss, Tensor) else None
    reaches, compared = flow.descendants(*roots), predictions(anatomy)
    judged = flow.descendants(*compared) if compared else frozenset()
    through = THROUGH | ADDS | MULS | ({"logsumexp"} if bounds else frozenset())
    return _walk(flow, value, reaches, judged, through) or _walk(
        flow, value, reaches, _decoded(anatomy, latent), through
    )


def _walk(
    flow: Flow, value: Value | None, reaches: Set[int], decoded: Set[int], through: Set[str]
) -> Joined | None:
    """From a value that knows the reconstruction down to one that does not."""
    turns, last = 0, None
    while value is not None and value.index in decoded:
        op = value.op
        if op is None or op.name not in through:
            return None
        parents = [p for p in flow.parents(value) if p.index in reaches]
        alone = [p for p in parents if p.index not in decoded]
        if op.name in MULS and len([p for p in op.reads if p.index in reaches]) > 1:
            return None
        if len(alone or parents) != 1:
            return None
        step = (alone or parents)[0]
        turns += turns_sign(op, step)
        value, last = step, op
    if value is None or value.index not in reaches:
        return None
    return Joined(value, last, turns)


def beside(anatomy: Anatomy, location: Value, scale: Value, decoded: Set[int]) -> list[Op]:
    """What makes the terms of the loss that act on the posterior and are no part of its KL.

    A layer reads the location, as a classifier's does, and nothing the scale; or the sample meets
    draws that reach no decoder, of the prior in a discrepancy (MMD), beside a term on the heads.
    `decoded` are the values that know a decoder's output, whose sums are taken apart.
    """
    flow, loss = anatomy.flow, anatomy.recording.loss
    value = anatomy.recording.value_of(loss) if isinstance(loss, Tensor) else None
    if value is None:
        return []
    samples = [x.z for x in anatomy.latents]
    terms = [v for v in _terms(flow, value, decoded) if v.index not in decoded]
    by_layer, scales = _read_by_layers(flow, location, samples, decoded), flow.descendants(scale)
    drawn, own = flow.descendants(*samples), 0
    for x in samples:
        own |= flow.noise[x.index]

    def reads_heads(term: Value) -> bool:
        return not flow.ancestors(term, stop=samples).isdisjoint((location.index, scale.index))

    apart = [v for v in terms if v.index in by_layer and v.index not in scales]
    if any(reads_heads(v) for v in terms if v not in apart):
        apart += [
            v
            for v in terms
            if v.index in drawn and flow.noise[v.index] & ~own and not reads_heads(v)
        ]
    return [v.op for v in apart if v.op is not None]


def _read_by_layers(
    flow: Flow, location: Value, samples: list[Value], decoded: Set[int]
) -> frozenset[int]:
    """All that is computed from layers that read the location, around sampler and decoder."""
    apart = flow.ancestors(*samples) | decoded
    reads = flow.descendants(location)
    made = [
        m
        for op in flow.recording.ops
        if op.makes and op.out.index in reads and flow.layer(op)
        if not any(v.index in apart for v in op.makes)
        for m in op.makes
    ]
    return flow.descendants(*made) if made else frozenset()


def _terms(flow: Flow, value: Value, decoded: Set[int]) -> Iterator[Value]:
    """The terms of a sum as far as the reconstruction is part of it."""
    op = value.op
    if op is None or value.index not in decoded or op.name not in THROUGH | ADDS | MULS:
        yield value
        return
    for parent in flow.parents(value):
        yield from _terms(flow, parent, decoded)


def term_at(anatomy: Anatomy, latent: Latent, *roots: Value) -> Span | None:
    """The line of the term that acts on the posterior beside the reconstruction."""
    found = joined(anatomy, latent, *(roots or _heads(latent)))
    return found.term.op.span if found is not None and found.term.op is not None else None


def joins_at(anatomy: Anatomy, latent: Latent) -> Span | None:
    """The sum in which the term on the posterior joins the rest: where its weight belongs."""
    found = joined(anatomy, latent, *_heads(latent))
    return found.to.span if found is not None and found.to is not None else None


def coefficients(anatomy: Anatomy, latent: Latent) -> Iterator[float]:
    """What the term on the posterior is multiplied by before it joins the rest: 0.5, 0.5 * 4, ...

    From the outermost factor inwards as far as one value is made of another; only positive ones.
    """
    flow = anatomy.flow
    found = joined(anatomy, latent, *_heads(latent))
    reaches, product = flow.descendants(*_heads(latent)), 1.0
    value = found.term if found is not None else None
    while value is not None and value.op is not None and value.op.name in THROUGH | MULS:
        parents = [p for p in flow.parents(value) if p.index in reaches]
        if len(parents) != 1:
            return
        for factor in _constants(value.op, parents[0]) if "mul" in value.op.name else ():
            if factor <= 0:
                return
            product *= factor
            yield product
        (value,) = parents


def left_out_at(anatomy: Anatomy, latent: Latent) -> Span | None:
    """Where what is computed from location and scale, as a KL is, ends without reaching the loss.

    That is its last operation, if it comes after the loss's own: a total that is made later is
    itself the line to change.
    """
    flow, loss = anatomy.flow, loss_value(anatomy)
    if latent.loc is None or latent.scale is None or latent.loc_head is latent.scale_head:
        return None
    made = flow.ancestors(latent.z, *predictions(anatomy)) | flow.ancestors(loss)
    both = flow.descendants(*_heads(latent)[:1]) & flow.descendants(*_heads(latent)[1:])
    both -= flow.descendants(*predictions(anatomy))
    ends = [
        op
        for op in anatomy.recording.ops
        if op.makes
        and op.name not in CUTS
        and op.out.index in both - made
        and _number_a_row(latent, op.out)
    ]
    later = ends and (loss.op is None or ends[-1].index > loss.op.index)
    return ends[-1].span if later else None


def cut_at(anatomy: Anatomy, latent: Latent) -> Span | None:
    """Where a location or scale loses its gradient on its way to the loss around the sample."""
    flow = anatomy.flow
    way = flow.descendants(*_heads(latent)) & flow.ancestors(loss_value(anatomy), stop=[latent.z])
    cuts = (op for op in anatomy.recording.ops if op.name in CUTS and op.makes)
    return next((op.span for op in cuts if op.out.index in way), None)


def _number_a_row(latent: Latent, value: Value) -> bool:
    return not value.shape or value.shape == latent.z.shape[:1]


def turned_at(anatomy: Anatomy, latent: Latent) -> Span | None:
    """Where a term whose sign is wrong in the loss got it: in its sum with the rest, or before."""
    found = joined(anatomy, latent, *_heads(latent), bounds=True)
    if found is None:
        return None
    flow, heads = anatomy.flow, {v.index for v in _heads(latent)}
    whole = heads.isdisjoint(flow.ancestors(found.term, stop=[latent.z]))  # log p, beside log q
    op = found.to if found.turns % 2 or whole else _turning(flow, found.term, latent)
    return placed(anatomy.flow, op)


def reconstruction_turned_at(anatomy: Anatomy, kl_too: bool) -> Span | None:
    """Where the sign of the reconstruction term is turned, if the loss is a plain sum.

    In its sum with the rest, or before, as a sign of the whole is right for the rest. `kl_too` says
    that the rest has the wrong sign as well: then it is the sum that lacks one. Where nothing turns
    it the term lacks a sign, and is told itself.
    """
    flow, loss = anatomy.flow, anatomy.recording.loss
    value = anatomy.recording.value_of(loss) if isinstance(loss, Tensor) else None
    compared = predictions(anatomy)
    reaches = flow.descendants(*compared) if compared else frozenset()
    turned = join = term = None
    while value is not None and value.op is not None and value.index in reaches:
        op = value.op
        parents = [p for p in flow.parents(value) if p.index in reaches]
        if op.name not in THROUGH | ADDS | MULS or len(parents) != 1:
            break
        others = [v for v in op.reads if v is not parents[0] and flow.data[v.index]]
        if op.name in MULS and others:
            break
        if others and join is None:
            join, turned = op, turned if kl_too else None
            term = _innermost(parents[0]) if any(flow.learned[v.index] for v in others) else None
        if turned is None and not (join and kl_too) and turns_sign(op, parents[0]):
            turned = op
        (value,) = parents
    found = (turned or join) if kl_too else (turned or term)
    return placed(anatomy.flow, found)


def _innermost(value: Value) -> Op | None:
    """What is summed or averaged into a value within the function that does so."""
    op = value.op
    while op is not None and op.name in RESHAPES | {"sum", "mean"} and op.frames:
        inner = op.reads[0].op if op.reads else None
        if inner is None or not inner.frames or inner.frames[0].code is not op.frames[0].code:
            break
        op = inner
    return op


def _turning(flow: Flow, term: Value, latent: Latent) -> Op | None:
    """The operation inside a term that turns its sign; its innermost reduction where none does."""
    reaches = flow.descendants(*_heads(latent))
    value, last = term, term.op
    while value.op is not None and value.op.name in THROUGH | MULS:
        parents = [p for p in flow.parents(value) if p.index in reaches]
        if len(parents) != 1:
            break
        last = value.op
        if turns_sign(last, parents[0]):
            return last
        (value,) = parents
    return last


def _heads(latent: Latent) -> list[Value]:
    return [h.value for h in (latent.loc_head, latent.scale_head) if h is not None]


def _decoded(anatomy: Anatomy, latent: Latent) -> frozenset[int]:
    """Everything computed from what the decoders make."""
    flow, compared = anatomy.flow, predictions(anatomy)
    pins = first_layers(flow, latent.z, *compared) if compared else []
    return flow.descendants(*compared, *(v for op in pins for v in op.makes))


def turns_sign(op: Op, operand: Value) -> bool:
    """Whether an operation turns the sign of one operand."""
    if op.name == "neg":
        return True
    if op.name in SUBTRACTS:
        return op.reads[0] is not operand
    if op.name in REVERSED:
        return op.reads[0] is operand
    if op.name in MULS:
        return any(n < 0 for n in _constants(op, operand))
    return False


def _constants(op: Op, operand: Value) -> Iterator[float]:
    for argument in op.args:
        if isinstance(argument, (int, float)):
            yield float(argument)
        elif isinstance(argument, Tensor) and argument is not operand.tensor:
            yield float(argument.detach().double().mean())
