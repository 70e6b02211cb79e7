"""Do the rows of a batch know each other? In evaluation mode, with the same noise.

Where x is continuous the derivative of one row of x_hat at all the others must be exactly zero.
Where it is discrete, one row is exchanged for another and no other row of x_hat may move.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ...rule import Unavailable
from ...subject.subject import Subject
from ..anatomy.anatomy import Anatomy
from ..anatomy.evaluation import (
    differentiable,
    reconstruction_in,
    returned,
    run_forward,
    run_quickly,
)
from ..latent.conditions import exchanged
from ..runs.flow import RESHAPES, Flow
from ..runs.recording import Op, Recording, Value
from .batches import axes_in, rows_of, with_rows

_LEAST = 1e-6  # relative to the derivative at the row itself
_REJECTING = frozenset("_standard_gamma poisson binomial _sample_dirichlet".split())
PAIRED = frozenset("matmul bmm mm cdist baddbmm einsum scaled_dot_product_attention".split())
"""Operations by which rows are compared with each other on purpose: kernels, set attention."""


@dataclass(frozen=True, slots=True)
class Isolation:
    """How much row `row` of x_hat depends on another row, relative to its own.

    `source` is the row it depends on most, `op` the operation that mixes, `statistics` and
    `paired` say that the mixing may be meant (batch statistics, a kernel between rows).
    """

    rows: int
    own: float
    off: float
    row: int
    source: int
    exact: bool
    op: Op | None = None

    @property
    def mixed(self) -> bool:
        """Whether another row matters."""
        return self.off > _LEAST * self.own

    @property
    def statistics(self) -> bool:
        """Whether batch normalisation without running averages mixes them."""
        return self.op is not None and "batch_norm" in self.op.name

    @property
    def intended(self) -> bool:
        """Whether rows are related on purpose: a kernel, attention, one unbatched sequence."""
        if self.op is None:
            return False
        call = self.op.call  # the layer adds a batch of one itself
        taken = call.inputs if call is not None and isinstance(call.module, nn.RNNBase) else ()
        unbatched = self.op.name in _RECURRENT and any(
            len(v.shape) == 2 and v.source != "parameter" for v in (taken or self.op.reads)[:1]
        )
        square = self.op.name in PAIRED and any(
            v.shape[-2:] == (self.rows, self.rows) for v in (*self.op.reads, *self.op.makes)
        )
        return unbatched or square


_RECURRENT = frozenset("lstm gru rnn_tanh rnn_relu".split())


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
        return _by_exchange(subject, anatomy, seed, rewind, rows, axis)
    if not found.mixed:
        return found
    usual = _twice_alike(subject, anatomy, seed, rewind)
    exchanged = _exchange(subject, anatomy, usual, seed, rewind, rows, axis, found.source)
    op = exchanged.op if exchanged is not None else None
    return Isolation(rows, found.own, found.off, found.row, found.source, True, op)


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
            layouts = _by_row(x_hat, tuple(x.shape), axis, rows)
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
            if found is not None and found.mixed and _sequence_first(x_hat, x, axis):
                raise Unavailable(
                    "rows of axis 1 do not know each other, those of axis 0 do: "
                    "declare `batch_axis=1`"
                )
            return found
        finally:
            rewind()


def _by_row(x_hat: Tensor, shape: tuple[int, ...], axis: int, rows: int) -> list[Tensor]:
    """The reconstruction with its rows in front, in every layout that it may have.

    Several samples of a row lie beside each other, or one batch after the other.
    """
    if axes := axes_in(tuple(x_hat.shape), shape, axis, rows):
        return [x_hat.movedim(where, 0) for where in axes]
    if axis or not x_hat.dim() or x_hat.shape[0] <= rows or x_hat.shape[0] % rows:
        return []
    rest = x_hat.shape[1:]
    return [x_hat.reshape(rows, -1, *rest), x_hat.reshape(-1, rows, *rest).transpose(0, 1)]


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
    tensor = _found(recording, anatomy).tensor
    recording.release()
    return tensor


def _found(recording: Recording, anatomy: Anatomy) -> Value:
    if recording.error is not None:
        raise Unavailable(f"the model raises in evaluation mode: {recording.error}")
    x_hat = reconstruction_in(recording, anatomy)
    if x_hat is None:
        raise Unavailable("no reconstruction found in evaluation mode")
    return x_hat


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
        others = _others(table, row)
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


def _others(table: Tensor, row: int) -> Tensor:
    """The table with 0 at one row."""
    others = table.clone()
    others[row] = 0
    return others


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


def _sequence_first(x_hat: Tensor, x: Tensor, axis: int) -> bool:
    """Whether the entries of axis 1 are isolated instead: then that is the batch."""
    if axis != 0 or x.dim() < 3 or x_hat.shape[:2] != x.shape[:2] or x.shape[1] < 2:
        return False
    columns = x.shape[1]
    chosen = sorted({0, columns // 2, columns - 1})
    tables = [_dependence(x_hat, x, 1, column, where=1) for column in chosen]
    found = _largest(tables, chosen, columns)
    return found is not None and not found.mixed and found.own > 0


# -- by exchanging a row ---------------------------------------------------------------------


def _by_exchange(
    subject: Subject,
    anatomy: Anatomy,
    seed: int,
    rewind: Callable[[], None],
    rows: int,
    axis: int,
) -> Isolation:
    """Exchange one row of the batch for another and see which rows of x_hat move."""
    found = None
    usual = _twice_alike(subject, anatomy, seed, rewind)
    for source in sorted({0, rows - 1}) if usual is not None else ():
        found = _exchange(subject, anatomy, usual, seed, rewind, rows, axis, source) or found
        if found is not None and found.mixed:
            return found
    if found is None:
        raise Unavailable("the same input and noise do not give comparable passes")
    if found.own == 0:
        raise Unavailable("x_hat does not depend on x in evaluation mode")
    return found


def _twice_alike(
    subject: Subject, anatomy: Anatomy, seed: int, rewind: Callable[[], None]
) -> Recording | None:
    """One pass; None where a second one with the same noise is not its like."""
    whole = not returned(anatomy)
    usual = run_forward(subject, seed=seed, whole=whole)
    rewind()
    if any(op.name in _REJECTING for op in usual.ops):
        return None  # rejection sampling uses up more or less noise with every row
    x_hat = _found(usual, anatomy)
    again = run_forward(subject, seed=seed, whole=whole)
    rewind()
    same = _comparable(usual, again)
    same = same and torch.equal(again.values[x_hat.index].tensor, x_hat.tensor)
    again.release()
    return usual if same else None


def _exchange(
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
    x_hat = _found(usual, anatomy)
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
    tables = [m.flatten(1).amax(1) for m in _by_row(moved, shape, axis, rows)]
    if not tables:
        return None
    table, others = min(((t, _others(t, source)) for t in tables), key=lambda t: float(t[1].max()))
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

    There a row's numbers still lie apart, along the axis beside: the next layer sums over it.
    """
    blamed, ways = op, [v for v in op.reads if flow.data[v.index]]
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
