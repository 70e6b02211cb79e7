"""Do the rows of a batch know each other? In evaluation mode, with the same noise.

Where x is continuous the derivative of one row of x_hat at all the others must be exactly zero.
Where it is discrete, or codes stand in the way, one row is exchanged for another and no other row
of x_hat may move.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import suppress

import torch
from torch import Tensor

from ...rule import Unavailable
from ...subject.subject import Subject
from ..anatomy.anatomy import Anatomy
from ..anatomy.evaluation import (
    differentiable,
    returned,
    run_forward,
    run_quickly,
)
from ..runs.recording import tensors_in
from .batchrows import rows_of, with_rows
from .exchange import by_exchange, exchange_row, twice_alike
from .isolation import Isolation, all_but, by_row, reconstruction_of


def isolate_rows(
    subject: Subject, anatomy: Anatomy, seed: int, rewind: Callable[[], None]
) -> Isolation:
    """Differentiate some rows of x_hat at all rows of x; find the operation that mixes.

    Rows may meet in the pass that starts a model from its first batch (k-means of a codebook,
    a flow's ActNorm): what counts is then the pass after it.
    """
    found = _isolate(subject, anatomy, seed, rewind)
    if not found.mixed:
        return found

    def started() -> None:
        rewind()
        run_forward(subject, seed=seed, train=True, whole=not returned(anatomy))

    started()
    try:
        later = _isolate(subject, anatomy, seed, started)
    except Unavailable:
        return found
    finally:
        rewind()
    return found if later.mixed else later


def _isolate(
    subject: Subject, anatomy: Anatomy, seed: int, rewind: Callable[[], None]
) -> Isolation:
    rows, axis = rows_of(subject, anatomy), subject.batch_axis
    assert axis is not None
    x = anatomy.x
    if x is None or anatomy.x_hat is None:
        raise Unavailable("no reconstruction found, so rows cannot be compared")
    if rows < 2:
        raise Unavailable("a batch of one row cannot show it; supply more rows")
    found: Isolation | None = None
    if x.tensor.is_floating_point() and x.tensor.is_leaf:
        found = _by_gradient(subject, anatomy, seed, rewind, rows, axis)
    if found is None:
        return by_exchange(subject, anatomy, seed, rewind, rows, axis)
    beside = _has_company(subject, x.tensor, rows, axis)
    if not found.mixed and (beside or _cut(anatomy)):
        with suppress(Unavailable):
            moved = by_exchange(subject, anatomy, seed, rewind, rows, axis)
            known = not beside or _goes_twice(subject, anatomy, seed, rewind, rows, axis)
            return moved if moved.mixed and known else found
    if not found.mixed:
        return found
    usual = twice_alike(subject, anatomy, seed, rewind)
    exchanged = exchange_row(subject, anatomy, usual, seed, rewind, rows, axis, found.source)
    op = exchanged.op if exchanged is not None else None
    return Isolation(rows, found.own, found.off, found.row, found.source, True, op)


def _cut(anatomy: Anatomy) -> bool:
    """Whether a value on the way to x_hat has no graph, so that no derivative tells where it goes.

    As the codes that a straight-through step puts in the place of what the encoder made.
    """
    assert anatomy.x_hat is not None
    flow = anatomy.flow
    behind = flow.ancestors(anatomy.x_hat)
    return any(
        v.edge is None and v.tensor.is_floating_point() and flow.posterior(v)
        for v in anatomy.recording.values
        if v.index in behind
    )


def _has_company(subject: Subject, x: Tensor, rows: int, axis: int) -> bool:
    """Whether other items of the batch have its rows: rows may meet through a condition alone."""
    items = tensors_in((subject.batch.args, dict(subject.batch.kwargs)))
    return any(t is not x and t.dim() > axis and t.shape[axis] == rows for t in items)


def _goes_twice(
    subject: Subject,
    anatomy: Anatomy,
    seed: int,
    rewind: Callable[[], None],
    rows: int,
    axis: int,
) -> bool:
    """Whether every item can have its rows twice: none is a grid of as many steps as rows."""
    batch = with_rows(subject.batch, [*range(rows), *range(rows)], axis, rows)
    run = run_forward(subject, seed=seed, batch=batch, whole=not returned(anatomy))
    went = run.error is None
    run.release()
    rewind()
    return went


def _by_gradient(
    subject: Subject,
    anatomy: Anatomy,
    seed: int,
    rewind: Callable[[], None],
    rows: int,
    axis: int,
) -> Isolation | None:
    """None where no gradient arrives at all: x_hat may still depend on x."""
    assert anatomy.x is not None
    x = anatomy.x.tensor
    with differentiable(x):
        try:
            x_hat = _reconstructed(subject, anatomy, seed)
            layouts = by_row(x_hat, tuple(x.shape), axis, rows)
            if not layouts:
                raise Unavailable("x_hat has no axis of the batch's size")
            chosen = sorted({0, rows // 2, rows - 1})
            tried = []
            for layout in layouts:
                tables = [_dependence(layout, x, axis, row) for row in chosen]
                tried.append((_largest(tables, chosen, rows), tables))
            found, tables = min(tried, key=lambda t: t[0].off if t[0] is not None else math.inf)
            group = _group(tables, chosen, rows) if len(layouts) == 1 else rows
            if found is not None and found.mixed and group < rows:
                raise Unavailable(
                    f"rows depend on each other in groups of {group}, as frames of one sample do: "
                    "declare `batch_axis=None`"
                )
            if found is not None and found.mixed and _in_its_order(anatomy, tables, chosen, axis):
                raise Unavailable(
                    "the forward pass puts the rows of x and of x_hat in another order"
                )
            if found is not None and found.mixed and _sequence_first(x_hat, x, axis):
                raise Unavailable(
                    "rows of axis 1 do not know each other, those of axis 0 do: "
                    "declare `batch_axis=1`"
                )
            return found
        finally:
            rewind()


def _reconstructed(subject: Subject, anatomy: Anatomy, seed: int) -> Tensor:
    """x_hat of one pass in evaluation mode, with its graph."""
    if returned(anatomy) and anatomy.x_hat is not None:
        found = run_quickly(
            subject,
            anatomy,
            seed=seed,
            batch=subject.batch,
            whole=False,
            still=False,
            grad=True,
        )
        if found is not None and found.dim() == len(anatomy.x_hat.shape):
            return found
    recording = run_forward(subject, seed=seed, whole=not returned(anatomy))
    tensor = reconstruction_of(recording, anatomy).tensor
    recording.release()
    return tensor


def _dependence(x_hat: Tensor, x: Tensor, axis: int, row: int, where: int = 0) -> Tensor | None:
    """How much one row of x_hat depends on each row of x; None where no gradient arrives."""
    part = x_hat.select(where, row)
    if not part.requires_grad:
        return None
    generator = torch.Generator().manual_seed(row)
    direction = torch.rand(part.shape, generator=generator).to(part) + 0.5
    try:
        (gradient,) = torch.autograd.grad(
            (part * direction).sum(), x, allow_unused=True, retain_graph=True
        )
    except RuntimeError:  # an in-place edit, harmless in evaluation: exchange rows instead
        return None
    if gradient is None or not bool(torch.isfinite(gradient).all()):
        return None
    return gradient.abs().movedim(axis, 0).flatten(1).amax(1)


def _largest(tables: list[Tensor | None], chosen: list[int], rows: int) -> Isolation | None:
    best: Isolation | None = None
    for row, table in zip(chosen, tables, strict=True):
        if table is None:
            continue
        others = all_but(table, row)
        found = Isolation(
            rows,
            float(table[row]),
            float(others.max()),
            row,
            int(others.argmax()),
            True,
        )
        if best is None or found.off > best.off:
            best = found
    if best is None or best.own == best.off == 0:
        return None
    return best


def _group(tables: list[Tensor | None], chosen: list[int], rows: int) -> int:
    """The smallest number of consecutive rows that keep to themselves; all rows if none does."""
    for group in range(2, rows):
        if rows % group:
            continue
        if all(
            table is not None
            and int((table > 0).sum()) > 1
            and not bool(table[: row // group * group].any())
            and not bool(table[(row // group + 1) * group :].any())
            for row, table in zip(chosen, tables, strict=True)
        ):
            return group
    return rows


def _in_its_order(
    anatomy: Anatomy, tables: list[Tensor | None], chosen: list[int], axis: int
) -> bool:
    """Whether a row of x_hat depends on one row of x alone, with which x itself was put in place.

    As where the cells of a trajectory are sorted by their time, and x with them.
    """
    sources = [int(t.argmax()) for t in tables if t is not None and int((t > 0).sum()) == 1]
    if anatomy.x is None or len(sources) < len(chosen) or len(set(sources)) < len(sources):
        return False
    x = anatomy.x.tensor.detach().movedim(axis, 0)
    placed = (
        v.tensor.detach().movedim(axis, 0)
        for v in anatomy.recording.values
        if v.op is not None and v.shape == anatomy.x.shape and v.tensor.layout == x.layout
    )
    return any(torch.equal(values[chosen], x[sources]) for values in placed)


def _sequence_first(x_hat: Tensor, x: Tensor, axis: int) -> bool:
    """Whether the entries of axis 1 are isolated instead: then that is the batch."""
    if axis != 0 or x.dim() < 3 or x_hat.shape[:2] != x.shape[:2] or x.shape[1] < 2:
        return False
    columns = x.shape[1]
    chosen = sorted({0, columns // 2, columns - 1})
    tables = [_dependence(x_hat, x, 1, column, where=1) for column in chosen]
    found = _largest(tables, chosen, columns)
    return found is not None and not found.mixed and found.own > 0
