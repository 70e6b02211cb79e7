"""Which rows of x_hat move when one row of the batch is exchanged, and what mixes them."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ...rule import Unavailable
from ...subject.subject import Subject
from ..anatomy.anatomy import Anatomy
from ..anatomy.evaluation import (
    returned,
    run_forward,
)
from ..latent.exchanged import exchanged
from ..runs.flow import RESHAPES, Flow
from ..runs.recording import Op, Recording, Value
from .batchrows import with_rows
from .isolation import Isolation, all_but, by_row, reconstruction_of

_REJECTING = frozenset("_standard_gamma poisson binomial _sample_dirichlet".split())


def by_exchange(
    subject: Subject,
    anatomy: Anatomy,
    seed: int,
    rewind: Callable[[], None],
    rows: int,
    axis: int,
) -> Isolation:
    """Exchange one row of the batch for another and see which rows of x_hat move."""
    found = None
    usual = twice_alike(subject, anatomy, seed, rewind)
    for source in sorted({0, rows - 1}) if usual is not None else ():
        found = exchange_row(subject, anatomy, usual, seed, rewind, rows, axis, source) or found
        if found is not None and found.mixed:
            return found
    if found is None:
        raise Unavailable("the same input and noise do not give comparable passes")
    if found.own == 0:
        raise Unavailable("x_hat does not depend on x in evaluation mode")
    return found


def twice_alike(
    subject: Subject, anatomy: Anatomy, seed: int, rewind: Callable[[], None]
) -> Recording | None:
    """One pass; None where a second one with the same noise is not its like."""
    whole = not returned(anatomy)
    usual = run_forward(subject, seed=seed, whole=whole)
    rewind()
    if any(op.name in _REJECTING for op in usual.ops):
        return None  # rejection sampling uses up more or less noise with every row
    x_hat = reconstruction_of(usual, anatomy)
    again = run_forward(subject, seed=seed, whole=whole)
    rewind()
    same = _comparable(usual, again)
    same = same and torch.equal(again.values[x_hat.index].tensor, x_hat.tensor)
    again.release()
    return usual if same else None


def exchange_row(
    subject: Subject,
    anatomy: Anatomy,
    usual: Recording | None,
    seed: int,
    rewind: Callable[[], None],
    rows: int,
    axis: int,
    source: int,
) -> Isolation | None:
    """One row replaced by another; None where two passes cannot be compared."""
    if usual is None:
        return None
    x_hat = reconstruction_of(usual, anatomy)
    index = list(range(rows))
    index[source] = (source + 1) % rows
    batch = with_rows(subject.batch, index, axis, rows)
    other = run_forward(subject, seed=seed, batch=batch, whole=not returned(anatomy))
    rewind()
    if not _comparable(usual, other) and anatomy.x is not None:
        # Lengths that change with the row change the sizes on the way: the data alone, then.
        x = anatomy.x.tensor
        alone = x.detach().index_select(axis, torch.tensor(index, device=x.device))
        batch = exchanged(subject.batch, x, alone)
        other = run_forward(subject, seed=seed, batch=batch, whole=not returned(anatomy))
        rewind()
    if not _comparable(usual, other):
        return None
    shape = anatomy.x.shape if anatomy.x is not None else ()
    moved = (other.values[x_hat.index].tensor - x_hat.tensor).detach().abs()
    tables = [m.reshape(len(m), -1).amax(1) for m in by_row(moved, shape, axis, rows)]
    if not tables:
        return None
    table, others = min(((t, all_but(t, source)) for t in tables), key=lambda t: float(t[1].max()))
    own, off = float(table[source]), float(others.max())
    mixed = off > 1e-5 * max(own, float(x_hat.tensor.detach().abs().max()))
    op = _mixing(usual, other, x_hat, rows, source) if mixed else None
    return Isolation(rows, own, off if mixed else 0.0, int(others.argmax()), source, False, op)


def _comparable(a: Recording, b: Recording) -> bool:
    if a.error is not None or b.error is not None or len(a.values) != len(b.values):
        return False
    return all(v.shape == w.shape for v, w in zip(a.values, b.values, strict=True))


def _mixing(usual: Recording, other: Recording, x_hat: Value, rows: int, source: int) -> Op | None:
    """The operation after which, on the way to x_hat, a row's numbers lie no more in its row."""
    flow = Flow(usual)
    behind = flow.ancestors(x_hat)
    stray: set[int] = set()
    for value, twin in zip(usual.values, other.values, strict=True):
        if (
            value.index in behind
            and flow.data[value.index]
            and not _in_row(value.tensor, twin.tensor, rows, source)
        ):
            stray.add(value.index)
    lost = {x_hat.index} & stray
    for op in reversed(usual.ops):  # those from which every step to x_hat stays astray
        if any(m.index in lost for m in op.makes):
            lost |= {v.index for v in op.reads if v.index in stray}
    for op in usual.ops:
        made = any(m.index in lost for m in op.makes)
        if made and not any(v.index in lost for v in op.reads):
            return _regrouping(flow, op, other, rows, source)
    return x_hat.op


def _regrouping(flow: Flow, op: Op, other: Recording, rows: int, source: int) -> Op:
    """The reshape before an operation that left a batch in front whose rows are none; else itself.

    There a row's numbers still lie apart, along the axis beside: the next layer sums over it, or
    another operand whose rows are in front meets them.
    """
    blamed, ways = op, [v for v in op.reads if flow.data[v.index]]
    if len(ways) > 1:
        twins = [other.values[v.index].tensor for v in ways]
        ways = [
            v
            for v, twin in zip(ways, twins, strict=True)
            if not _in_row(v.tensor, twin, rows, source, axes=(0,))
        ]
    while len(ways) == 1 and ways[0].op is not None and ways[0].op.name in RESHAPES:
        value = ways[0]
        twin = other.values[value.index].tensor
        if value.shape[:1] != (rows,) or _in_row(value.tensor, twin, rows, source, axes=(0,)):
            break
        blamed = ways[0].op
        ways = [v for v in blamed.reads if flow.data[v.index]]
    return blamed


def _in_row(a: Tensor, b: Tensor, rows: int, row: int, axes: tuple[int, ...] | None = None) -> bool:
    """Whether all entries that differ belong to one row of some layout of the batch."""
    changed = (a.detach() != b.detach()) if a.shape == b.shape else None
    if changed is None or not bool(changed.any()):
        return True
    for axis in range(changed.dim()) if axes is None else axes:
        size = changed.shape[axis]
        if size == 0 or size % rows:
            continue
        along = changed.movedim(axis, 0).reshape(size, -1).any(1).nonzero().flatten()
        each = size // rows
        if bool((along // each == row).all()) or bool((along % rows == row).all()):
            return True
    return False
