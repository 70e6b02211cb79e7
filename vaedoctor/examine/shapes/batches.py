"""Other numbers of rows than the batch's: does the model take them, and give every row the same?"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ...rule import Unavailable
from ...subject.subject import Subject
from ...subject.trials.trial import forward_parameters
from ..anatomy.anatomy import LOOKUPS, Anatomy
from ..anatomy.evaluation import Landmark, reconstruction_in, returned, run_forward, run_quickly
from ..runs.repeat import mark_of
from .batchrows import axes_in, axis_of, rows_of, with_rows
from .sizefaults import TOLERANCE, SizeFault, fault_of
from .trainingsizes import written_out_in_training

_ROWS = re.compile(r"(n_?|num_?)?(batch(_?size)?|bsz?|rows|b|n)", re.IGNORECASE)


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
    """Run B-1, one and 2B rows in evaluation mode with still noise and compare row by row.

    Where all is well, in training mode too, for noise of a written-out size.

    Raises Unavailable where one row was made up because more do not run, and with it what the
    model does without: that may be to blame. So it does where the number of rows is an argument.
    """
    rows, axis = rows_of(subject, anatomy), subject.batch_axis
    assert axis is not None
    if rows == 1 and subject.batch.guessed and _optional(subject):
        raise Unavailable("one row was made up, beside arguments that forward does without")
    if name := _told_rows(subject, rows):
        raise Unavailable(f"`{name}` tells the model that there are {rows} rows")
    trials = {}
    for index in ([*range(rows - 1)], [0], [*range(rows), *range(rows)]):
        if len(index) not in (0, rows):
            trials[len(index)] = index
    difference = _quick(subject, anatomy, seed, rewind, trials)
    found = (
        Sizes(rows, tuple(trials), (), difference)
        if difference is not None
        else _recorded(subject, anatomy, seed, rewind, trials, compare)
    )
    if found.faults or anatomy.recording.error is not None:
        return found
    return replace(found, faults=written_out_in_training(subject, anatomy, seed, rewind, rows))


def _optional(subject: Subject) -> bool:
    """Whether tensors are given for arguments that forward has a default for."""
    parameters = forward_parameters(subject.model)
    given = dict(zip((p.name for p in parameters), subject.batch.args, strict=False))
    given |= subject.batch.kwargs
    return any(
        isinstance(given.get(p.name), Tensor) and p.default is not p.empty for p in parameters[1:]
    )


def _told_rows(subject: Subject, rows: int) -> str:
    """The argument of forward that says how many rows there are, if any does."""
    parameters = forward_parameters(subject.model)
    given = dict(zip((p.name for p in parameters), subject.batch.args, strict=False))
    given |= subject.batch.kwargs
    told = (n for n, v in given.items() if type(v) is int and v == rows and _ROWS.fullmatch(n))
    return next(told, "")


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
    return largest if largest <= TOLERANCE else None


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
        fault, difference = fault_of(run, reference, anatomy, kept, index, axis, compare)
        if fault is not None and fault.kind in ("changes", "shape") and with_loss and not inside:
            rewind()  # the loss may hand the model another input than the batch
            run = run_forward(subject, seed=seed, batch=batch, still=True)
            fault, difference = fault_of(run, reference, anatomy, kept, index, axis, compare)
        del run
        rewind()
        largest = max(largest, difference)
        faults += [fault] if fault is not None else []
    if subject.batch.guessed and any(f.spread for f in faults):
        raise Unavailable("a vector that was made up may be a column: supply --input")
    if faults and _may_lack_rows(subject, anatomy, rows):
        raise Unavailable(
            "a square beside x may be one for all rows: supply another number of rows"
        )
    moved = [f for f in faults if f.kind == "changes"]
    dealt = any(f.still for f in moved)  # by their place: had rows met, all would have moved
    if dealt or (moved and _unsteady(subject, anatomy, seed, rewind, kept, inside) > 0.1 * largest):
        faults = [f for f in faults if f not in moved]
    return Sizes(rows, tuple(trials), _excused(faults), largest)


def _may_lack_rows(subject: Subject, anatomy: Anatomy, rows: int) -> bool:
    """Whether something beside x has as many columns as there are rows: an adjacency matrix."""
    items = [*subject.batch.args, *subject.batch.kwargs.values()]
    x = anatomy.x.tensor if anatomy.x is not None else None
    beside = (v for v in items if isinstance(v, Tensor) and v is not x)
    return any(v.shape[:1] == (rows,) and rows in v.shape[1:] for v in beside)


def _excused(faults: list[SizeFault]) -> tuple[SizeFault, ...]:
    """The faults without what terms over pairs of rows may ask for: two rows, an even number."""
    if [(f.size, f.kind) for f in faults] == [(1, "refuses")]:
        return ()
    in_loss = [f for f in faults if f.kind == "loss"]
    return tuple(f for f in faults if f.kind != "loss" or len(in_loss) > 1)


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
    batch = subject.batch.mapped(lambda t: t.detach() * (1 + 1e-6) if t.is_floating_point() else t)
    run = run_forward(subject, seed=seed + 1, batch=batch, still=True, whole=whole)
    found = reconstruction_in(run, anatomy)
    rewind()
    if found is None or found.shape != tuple(kept.shape):
        return float("inf")
    return float((found.tensor.detach() - kept).abs().max()) / (float(kept.abs().max()) or 1.0)
