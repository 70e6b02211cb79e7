"""A flow's log-determinant against the Jacobian of what the flow did, row by row."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ...finding import Span
from ..anatomy.anatomy import Anatomy
from ..anatomy.latents import Latent
from ..anatomy.pinning import loss_value
from ..runs.flow import RESHAPES, Flow
from ..runs.recording import Call, Op, Value

_JOINS = frozenset("add add_ __iadd__ __radd__ stack cat sum".split())

MOST_UNITS = 64
ROWS = 4
CLOSE = 1e-3


@dataclass(frozen=True, slots=True)
class LogDet:
    """One flow step: the determinants it reports and those that its Jacobian has.

    `factor` is reported over true, the same for all rows; `pull` the sign of the loss's gradient
    at what is reported, 0 where there is none; `used_at` the sum in which what all steps report
    meets the rest of the loss.
    """

    path: str
    reported: list[float]
    true: list[float]
    factor: float
    pull: int
    at: Span | None
    used_at: Span | None


def log_dets(anatomy: Anatomy) -> Iterator[LogDet]:
    """Every module that turns a sample into another of its shape and returns a number a row."""
    flow, recording = anatomy.flow, anatomy.recording
    latents = (latent.z.shape for latent in anatomy.sampled)
    shapes: set[tuple[int, ...]] = {shape for shape in latents if len(shape) == 2}
    for call in recording.calls:
        step = _step(flow, call, shapes)
        if step is None:
            continue
        before, after, made, given = step
        try:
            true = _determinants(before, after)
        except RuntimeError:  # the graph was damaged in place, or is cut
            continue
        if true is None:
            continue
        own = made.tensor.detach().flatten().double()[: len(true)]
        if given is not None:
            own = own - given.tensor.detach().flatten().double()[: len(true)]
        factor = _factor(own, true)
        if factor is not None:
            span = made.op.span if made.op is not None else call.span
            pull = _pull(recording.loss, made)
            used = _used_at(anatomy, made, shapes) or span
            yield LogDet(call.path, own.tolist(), true.tolist(), factor, pull, span, used)


def _used_at(anatomy: Anatomy, made: Value, shapes: set[tuple[int, ...]]) -> Span | None:
    """Where a reported number meets what is no such number, past the sum of all of them."""
    flow, loss = anatomy.flow, anatomy.recording.loss
    end = anatomy.recording.value_of(loss) if isinstance(loss, Tensor) else None
    behind = flow.ancestors(end) if end is not None else frozenset()
    steps = (_step(flow, call, shapes) for call in flow.recording.calls)
    known = {step[2].index for step in steps if step is not None} | {made.index}
    own = {made.index}
    for op in flow.recording.ops:
        read = {v.index for v in op.reads if flow.learned[v.index] or flow.noise[v.index]}
        if not op.makes or not read:
            continue
        mine = not read.isdisjoint(own)
        if op.name in _JOINS | RESHAPES and read <= known:
            known.add(op.out.index)
            own |= {op.out.index} if mine else set()
        elif mine and op.out.index in behind:
            return op.span
    return None


def reports(flow: Flow, start: Value, end: Value) -> Iterator[tuple[Value, Value, Value]]:
    """Of every module between two values: what it is given, what it makes of it, and its number.

    Modules that add their number to another's are left out.
    """
    way = (flow.descendants(start) | {start.index}) & (flow.ancestors(end) | {end.index})
    for call in flow.recording.calls:
        step = _step(flow, call, {start.shape})
        if step is None or step[3] is not None or step[2].op is None:
            continue
        if step[0].index in way and step[1].index in way:
            yield step[:3]


def _step(
    flow: Flow, call: Call, shapes: set[tuple[int, ...]]
) -> tuple[Value, Value, Value, Value | None] | None:
    """The sample before and after, what is reported, and what is added to; None if no flow."""
    before = [v for v in call.inputs if v.shape in shapes and flow.noise[v.index]]
    after = [v for v in call.outputs if v.shape in shapes and flow.noise[v.index]]
    if len(before) != 1 or len(after) != 1 or before[0] is after[0]:
        return None
    if flow.noise[after[0].index] & ~flow.noise[before[0].index]:
        return None  # a momentum that is drawn anew
    rows, units = after[0].shape
    made = [v for v in call.outputs if v.shape in ((rows,), (rows, 1)) and v is not after[0]]
    if len(made) != 1 or not 1 < units <= MOST_UNITS or not rows:
        return None
    given = [v for v in call.inputs if v.shape == made[0].shape and v is not before[0]]
    if len(given) > 1:
        return None
    return before[0], after[0], made[0], given[0] if given else None


def _determinants(before: Value, after: Value) -> Tensor | None:
    """The log |det J| of the first rows; None where rows know each other or J is singular."""
    if before.edge is None or not after.tensor.requires_grad:
        return None
    found = []
    for row in range(min(ROWS, after.shape[0])):
        lines = []
        for unit in range(after.shape[1]):
            (gradient,) = torch.autograd.grad(
                after.tensor[row, unit], [before.edge], retain_graph=True, allow_unused=True
            )
            if gradient is None or bool((gradient[:row] != 0).any()):
                return None
            if bool((gradient[row + 1 :] != 0).any()):
                return None
            lines.append(gradient[row].detach().double())
        found.append(torch.linalg.slogdet(torch.stack(lines))[1])
    determinants = torch.stack(found)
    return determinants if bool(torch.isfinite(determinants).all()) else None


def _factor(reported: Tensor, true: Tensor) -> float | None:
    """Reported over true where one number fits all rows and the rows differ; None elsewhere."""
    size = float(true.abs().max())
    if len(true) < 3 or size < 10 * CLOSE or float(true.max() - true.min()) < CLOSE * size:
        return None
    factor = float((reported * true).sum() / (true * true).sum())
    close = bool(((reported - factor * true).abs() < CLOSE * max(1.0, abs(factor)) * size).all())
    return factor if close and abs(factor) > CLOSE else None


def _pull(loss: object, made: Value) -> int:
    """The sign of the loss's gradient at what is reported, if it is one for all rows."""
    if not isinstance(loss, Tensor) or not loss.requires_grad or made.edge is None:
        return 0
    (gradient,) = torch.autograd.grad(loss.sum(), [made.edge], retain_graph=True, allow_unused=True)
    if gradient is None:
        return 0
    return 1 if bool((gradient > 0).all()) else -1 if bool((gradient < 0).all()) else 0


def formula(number: Value) -> Op:
    """What computes a number that a step reports, not what reshapes it."""
    op = number.op
    assert op is not None
    while op.name in RESHAPES and op.reads and op.reads[0].op is not None:
        op = op.reads[0].op
    return op


def summed_over_rows(anatomy: Anatomy, latent: Latent, end: Value) -> Span | None:
    """Where a flow, up to its last sample `end`, sums a number over all rows for the loss."""
    flow, loss = anatomy.flow, loss_value(anatomy)
    needed = flow.ancestors(loss) - flow.ancestors(end)
    made = flow.descendants(latent.z) - flow.descendants(end)
    for op in flow.recording.ops:
        if op.makes and op.out.index in needed & made and not op.out.shape:
            return op.span
    return None
