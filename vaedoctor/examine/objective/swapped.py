"""Where the two distributions of a KL change places: inside a function of the user's, or at a call.

A function that computes KL(first || second) of its parameters in their order is right, and who
calls it with the prior first is not. Which parameter an operand is, is read off the source.
"""

from __future__ import annotations

import itertools
from types import CodeType

from ...finding import Span
from ..anatomy.anatomy import Anatomy
from ..anatomy.decoders import predictions
from ..anatomy.latents import Latent
from ..runs.naming import parameter_of
from ..runs.recording import Op, Value


def called_at(anatomy: Anatomy, latent: Latent, at: Span | None) -> Span | None:
    """The call that hands the prior over before the posterior; None where no call does.

    `at` is a line of a KL that is computed from the prior to the posterior. Other terms that the
    same function computes, of the reconstruction, say nothing of the order.
    """
    flow = anatomy.flow
    heads = {h.value.index for h in (latent.loc_head, latent.scale_head) if h is not None}

    def own(value: Value) -> bool:
        """Whether it is made of the posterior, not of its sample as an upper prior is."""
        return not heads.isdisjoint(flow.ancestors(value, stop=[latent.z]))

    ops = anatomy.recording.ops
    found = next((op for op in ops if op.span == at and op.makes and own(op.out)), None)
    if found is None or len(found.frames) < 2:
        return None
    function, caller = found.frames[0].code, found.frames[1]
    places: dict[bool, set[int]] = {True: set(), False: set()}
    inner, compared = _one_call(ops, found, function), predictions(anatomy)
    decoded = flow.descendants(*compared) if compared else frozenset()
    made = [m for op in inner for m in op.makes if own(m) and m.index not in decoded]
    term = flow.ancestors(*made)
    for op in inner:
        for value in op.reads if any(m.index in term for m in op.makes) else ():
            inside = value.op is not None and _runs(value.op, function)
            if not inside and (place := parameter_of(op, value)) is not None:
                places[own(value)].add(place)
    posterior, prior = places[True], places[False]
    return caller.span if prior and posterior and max(prior) < min(posterior) else None


def _one_call(ops: list[Op], found: Op, function: CodeType) -> list[Op]:
    """The operations around one that belong to the same call of a function."""
    before = itertools.takewhile(lambda op: _runs(op, function), reversed(ops[: found.index]))
    after = itertools.takewhile(lambda op: _runs(op, function), ops[found.index :])
    return [*before, *after]


def _runs(op: Op, function: CodeType) -> bool:
    return any(frame.code is function for frame in op.frames)
