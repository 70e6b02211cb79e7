"""The steps of a flow, from the sample on: which module made each, and at which line."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

from ...finding import Span
from ..anatomy.heads import path_of
from ..runs.flow import Flow
from ..runs.recording import Value


@dataclass(frozen=True, slots=True)
class Step:
    """One part of a flow, from one value to the next: what it is called, and where it ends."""

    before: Value
    after: Value
    path: str
    at: Span | None


def steps_of(chain: list[Value]) -> list[Step]:
    """The steps between the values of a chain, by the modules that ran them; one where none did."""
    found: list[Step] = []
    for before, after in itertools.pairwise(chain):
        assert after.op is not None
        path = path_of(after.op)
        call = (
            next((c for c in after.op.call.chain() if c.path == path), None)
            if path and after.op.call
            else None
        )
        at = call.span if call is not None else after.op.span
        if found and path == found[-1].path:
            before = found.pop().before
        found.append(Step(before, after, path, at))
    return found


def integrated(flow: Flow, sample: Value, number: Value) -> bool:
    """Whether a number is a trace that a continuous flow integrates, exact or estimated.

    It is made of gradients that the model takes itself, or of probes that it draws, and comes near
    to the log-determinant of the solver's own steps only as these become small (Grathwohl et al.,
    FFJORD, 2019).
    """
    if flow.noise[number.index] & ~flow.noise[sample.index]:
        return True
    way = flow.descendants(sample) & (flow.ancestors(number) | {number.index})
    return any(op.name == "grad" and op.out.index in way for op in flow.recording.ops if op.makes)
