"""What goes wrong with another number of rows: it raises, or rows get another result or shape."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ...finding import Span
from ..anatomy.anatomy import Anatomy
from ..anatomy.evaluation import reconstruction_in
from ..code.places import is_user_file
from ..runs.flow import JOINS, RESHAPES, Flow
from ..runs.recording import Op, Recording
from .batchrows import axes_in, axis_of

TOLERANCE = 1e-3  # rounding differs with the size of a matrix product, a bug moves rows by more
_FACTORIES = frozenset("zeros ones full empty rand randn randint normal arange eye tensor".split())


@dataclass(frozen=True, slots=True)
class SizeFault:
    """A batch size at which the model raises, or gives rows another result or shape.

    `spread` says that it raises where a vector of the batch meets as many columns, `training` that
    it does in training mode only.
    """

    size: int
    kind: str
    text: str
    at: Span | None
    difference: float = 0.0
    still: int = 0
    spread: bool = False
    training: bool = False


def fault_of(
    run: Recording,
    reference: Recording,
    anatomy: Anatomy,
    kept: Tensor,
    index: list[int],
    axis: int,
    compare: bool,
) -> tuple[SizeFault | None, float]:
    """What went wrong in a run of other rows, if anything, and how far its rows moved.

    `kept` is x_hat of the usual batch, `index` the rows of that batch that the run was given.
    """
    size, rows = len(index), anatomy.x.shape[axis] if anatomy.x is not None else 0
    if run.error is not None:
        text = " ".join(str(run.error).split()) or type(run.error).__name__
        in_loss = run.forward_end >= 0
        op = _stuck(run, reference, rows)
        if in_loss and op is None:
            return None, 0.0  # the objective may hold a target of its own
        at = op.span if op is not None else None
        refuses = op is None or _is_divided(run)
        kind = "loss" if in_loss else "refuses" if refuses else "raises"
        at = _written_at(op, rows) or at or _raised_at(run)
        return SizeFault(size, kind, text, at, spread=_is_spread(run, size)), 0.0
    found = reconstruction_in(run, anatomy)
    x = anatomy.x.shape if anatomy.x is not None else ()
    axes = axes_in(tuple(kept.shape), x, axis, rows)
    if found is None or not axes:
        return None, 0.0
    where = axis_of(axes, tuple(kept.shape), found.shape)
    wanted = kept.index_select(where, torch.tensor(index, device=kept.device))
    if found.shape != tuple(wanted.shape):
        op = _odd_shape(run, reference, rows, size) or found.op
        text = f"x_hat has shape {list(found.shape)} instead of {list(wanted.shape)}"
        return SizeFault(size, "shape", text, op.span if op else None), 0.0
    if not compare:
        return None, 0.0
    scale = float(kept.abs().max()) or 1.0
    known = slice(0, min(size, rows))  # the second half of twice the rows has rows of its own
    gap = (found.tensor.detach() - wanted).movedim(where, 0)[known].abs() / scale
    difference = float(gap.max())
    if difference > TOLERANCE:
        op = _odd_shape(run, reference, rows, size) or found.op
        text = f"rows of x_hat move by {difference:.3g} of its range"
        still = int((gap.flatten(1).amax(1) <= TOLERANCE).sum())
        at = op.span if op else None
        return SizeFault(size, "changes", text, at, difference, still), difference
    return None, difference


def _written_at(op: Op | None, rows: int) -> Span | None:
    """Where an operand of the usual number of rows is made of no data: the size stands there."""
    for value in op.reads if op is not None else ():
        behind = {value.index: value}
        waiting = [value]
        while waiting:
            made = waiting.pop().op
            fresh = [v for v in made.reads if v.index not in behind] if made is not None else []
            behind.update((v.index, v) for v in fresh)
            waiting += fresh
        given = any(v.source in ("input", "condition") for v in behind.values())
        if value.op is not None and value.shape[:1] == (rows,) and not given:
            return value.op.span
    return None


def _failing(run: Recording) -> Op | None:
    return next((op for op in reversed(run.ops) if op.error is run.error), None)


def _is_divided(run: Recording) -> bool:
    """Whether what raised got no rows at all: the model takes rows in groups of several."""
    failing = _failing(run)
    return failing is not None and any(0 in v.shape for v in failing.reads)


def _is_spread(run: Recording, size: int) -> bool:
    """Whether what raised spreads a vector of the batch, a number a row, over columns."""
    failing = _failing(run)
    reads = failing.reads if failing is not None else ()
    given = [v for v in reads if v.op is None and v.source in ("input", "condition")]
    return any(v.shape == (size,) for v in given) and any(len(v.shape) > 1 for v in reads)


def _stuck(run: Recording, reference: Recording, rows: int) -> Op | None:
    """The operation that kept the old number of rows, else the one that raised.

    None where what kept it is a tensor from outside the model.
    """
    failing = _failing(run)
    if failing is None:
        return None
    behind = Flow(run).ancestors(*failing.reads)
    stuck = None
    for op, twin in zip(run.ops, reference.ops, strict=False):
        if op.name != twin.name or not op.makes or not twin.makes:
            break
        if op.out.index not in behind or op.out.shape != twin.out.shape or rows not in op.out.shape:
            continue
        scaled = any(a.shape != b.shape for a, b in zip(op.reads, twin.reads, strict=False))
        if (op.name in RESHAPES | JOINS and scaled) or (op.name in _FACTORIES and not op.reads):
            stuck = op
    if stuck is None and 0 <= run.forward_end <= failing.index:
        leaves = [run.values[i] for i in behind if run.values[i].op is None]
        if any(v.source == "constant" and rows in v.shape for v in leaves):
            return None
    return stuck or failing


def _odd_shape(run: Recording, reference: Recording, rows: int, size: int) -> Op | None:
    """The first operation whose result has another rank than at the usual batch size."""
    for op, twin in zip(run.ops, reference.ops, strict=False):
        if op.name != twin.name or not op.makes or not twin.makes:
            return None
        mine, usual = op.out.shape, twin.out.shape
        if len(mine) != len(usual):
            return op
        factory = op.name in _FACTORIES and not op.reads
        if factory and mine == usual and mine[:1] == (rows,) and size != rows:
            return op
    return None


def _raised_at(run: Recording) -> Span | None:
    """The user's line at which an exception without an operation was raised."""
    trace = run.error.__traceback__ if run.error is not None else None
    at = None
    while trace is not None:
        file = trace.tb_frame.f_code.co_filename
        if is_user_file(file):
            at = Span(file, trace.tb_lineno)
        trace = trace.tb_next
    return at
