"""Other numbers of rows than the batch's: does the model take them, and give every row the same?"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ...finding import Span
from ...rule import Unavailable
from ...subject.subject import Subject
from ..anatomy.anatomy import LOOKUPS, Anatomy
from ..anatomy.evaluation import Landmark, reconstruction_in, returned, run_forward, run_quickly
from ..code.places import is_user_file
from ..runs.flow import JOINS, RESHAPES, Flow
from ..runs.recording import Op, Recording
from ..runs.repeat import mark_of
from .batchrows import axes_in, axis_of, rows_of, with_rows

_TOLERANCE = 1e-3  # rounding differs with the size of a matrix product, a bug moves rows by more
_FACTORIES = frozenset("zeros ones full empty rand randn randint normal arange eye tensor".split())


@dataclass(frozen=True, slots=True)
class SizeFault:
    """A batch size at which the model raises, or gives rows another result or shape.

    `spread` says that it raises where a vector of the batch meets as many columns.
    """

    size: int
    kind: str
    text: str
    at: Span | None
    difference: float = 0.0
    still: int = 0
    spread: bool = False


@dataclass(frozen=True, slots=True)
class Sizes:
    """The sizes tried, what went wrong, and the largest relative difference where nothing did."""

    rows: int
    tried: tuple[int, ...]
    faults: tuple[SizeFault, ...]
    difference: float


def try_sizes(
    subject: Subject, anatomy: Anatomy, seed: int, rewind: Callable[[], None], *, compare: bool
) -> Sizes:
    """Run B-1, one and 2B rows in evaluation mode with still noise and compare row by row."""
    rows, axis = rows_of(subject, anatomy), subject.batch_axis
    assert axis is not None
    trials = {}
    for index in ([*range(rows - 1)], [0], [*range(rows), *range(rows)]):
        if len(index) not in (0, rows):
            trials[len(index)] = index
    difference = _quick(subject, anatomy, seed, rewind, trials)
    if difference is not None:
        return Sizes(rows, tuple(trials), (), difference)
    return _recorded(subject, anatomy, seed, rewind, trials, compare)


def _quick(
    subject: Subject,
    anatomy: Anatomy,
    seed: int,
    rewind: Callable[[], None],
    trials: dict[int, list[int]],
) -> float | None:
    """The largest difference without a recording; None where anything is not as it should be."""
    rows, axis, largest = rows_of(subject, anatomy), subject.batch_axis or 0, 0.0
    kept, landmark = _usual(subject, anatomy, seed, rewind)
    x = anatomy.x.shape if anatomy.x is not None else ()
    axes = axes_in(tuple(kept.shape), x, axis, rows) if kept is not None else []
    if kept is None or not axes:
        return None
    for size, index in trials.items():
        batch = with_rows(subject.batch, index, axis, rows)
        whole = size > 1 or landmark is not None
        found = run_quickly(
            subject, anatomy, seed=seed, batch=batch, whole=whole, landmark=landmark
        )
        rewind()
        if found is None:
            return None
        where = axis_of(axes, tuple(kept.shape), tuple(found.shape))
        wanted = kept.index_select(where, torch.tensor(index, device=kept.device))
        if found.shape != wanted.shape:
            return None
        scale = float(kept.abs().max()) or 1.0
        largest = max(largest, float((found - wanted).abs().max()) / scale)
    return largest if largest <= _TOLERANCE else None


def _usual(
    subject: Subject, anatomy: Anatomy, seed: int, rewind: Callable[[], None]
) -> tuple[Tensor | None, Landmark | None]:
    """The reconstruction at the usual size, and where it is made if forward does not return it."""
    if returned(anatomy):
        kept = run_quickly(subject, anatomy, seed=seed, batch=subject.batch, whole=False)
        rewind()
        return kept, None
    run = run_forward(subject, seed=seed, still=True, whole=True)
    rewind()
    x_hat = reconstruction_in(run, anatomy)
    mark = mark_of(x_hat) if x_hat is not None else None
    if x_hat is None or mark is None:
        return None, None
    kept = x_hat.tensor.detach().clone()
    run.release()
    return kept, Landmark(mark, run.turns)


def _recorded(
    subject: Subject,
    anatomy: Anatomy,
    seed: int,
    rewind: Callable[[], None],
    trials: dict[int, list[int]],
    compare: bool,
) -> Sizes:
    """The same with recordings, which tell where a size goes wrong."""
    rows, axis = rows_of(subject, anatomy), subject.batch_axis or 0
    inside, whole = not returned(anatomy), subject.objective is not None
    reference = run_forward(subject, seed=seed, still=True, whole=inside)
    expected = reconstruction_in(reference, anatomy)
    if reference.error is not None or expected is None:
        rewind()
        raise Unavailable("no reconstruction in evaluation mode to compare")
    kept = expected.tensor.detach().clone()
    rewind()
    discrete = anatomy.quantizer is not None or any(op.name in LOOKUPS for op in reference.ops)
    compare = compare and not discrete and not anatomy.flow.outside
    faults, largest = [], 0.0
    for size, index in trials.items():
        batch = with_rows(subject.batch, index, axis, rows)
        with_loss = inside or (whole and size > 1)
        run = run_forward(subject, seed=seed, batch=batch, still=True, whole=with_loss)
        fault, difference = _judged(run, reference, anatomy, kept, index, axis, compare)
        if fault is not None and fault.kind in ("changes", "shape") and with_loss and not inside:
            rewind()  # the loss may hand the model another input than the batch
            run = run_forward(subject, seed=seed, batch=batch, still=True)
            fault, difference = _judged(run, reference, anatomy, kept, index, axis, compare)
        del run
        rewind()
        largest = max(largest, difference)
        faults += [fault] if fault is not None else []
    if subject.batch.guessed and any(f.spread for f in faults):
        raise Unavailable("a vector that was made up may be a column: supply --input")
    moved = [f for f in faults if f.kind == "changes"]
    dealt = any(f.still for f in moved)  # by their place: had rows met, all would have moved
    if dealt or (moved and _unsteady(subject, anatomy, seed, rewind, kept, inside) > 0.1 * largest):
        faults = [f for f in faults if f not in moved]
    return Sizes(rows, tuple(trials), _excused(faults), largest)


def _excused(faults: list[SizeFault]) -> tuple[SizeFault, ...]:
    """The faults without what terms over pairs of rows may ask for: two rows, an even number."""
    if [(f.size, f.kind) for f in faults] == [(1, "refuses")]:
        return ()
    in_loss = [f for f in faults if f.kind == "loss"]
    return tuple(f for f in faults if f.kind != "loss" or len(in_loss) > 1)


def _judged(
    run: Recording,
    reference: Recording,
    anatomy: Anatomy,
    kept: Tensor,
    index: list[int],
    axis: int,
    compare: bool,
) -> tuple[SizeFault | None, float]:
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
    if difference > _TOLERANCE:
        op = _odd_shape(run, reference, rows, size) or found.op
        text = f"rows of x_hat move by {difference:.3g} of its range"
        still = int((gap.flatten(1).amax(1) <= _TOLERANCE).sum())
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


def _unsteady(
    subject: Subject,
    anatomy: Anatomy,
    seed: int,
    rewind: Callable[[], None],
    kept: Tensor,
    whole: bool,
) -> float:
    """How far x_hat moves under another seed and inputs changed in the last digits.

    Layers built in forward, or a model that amplifies rounding, cannot be compared by rows.
    """

    def nudged(item: Any) -> Any:
        if isinstance(item, Tensor) and item.is_floating_point():
            return item.detach() * (1 + 1e-6)
        if isinstance(item, dict):
            return {k: nudged(v) for k, v in item.items()}
        return type(item)(map(nudged, item)) if type(item) in (list, tuple) else item

    batch = replace(
        subject.batch,
        args=tuple(map(nudged, subject.batch.args)),
        kwargs={k: nudged(v) for k, v in subject.batch.kwargs.items()},
    )
    run = run_forward(subject, seed=seed + 1, batch=batch, still=True, whole=whole)
    found = reconstruction_in(run, anatomy)
    rewind()
    if found is None or found.shape != tuple(kept.shape):
        return float("inf")
    return float((found.tensor.detach() - kept).abs().max()) / (float(kept.abs().max()) or 1.0)


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
