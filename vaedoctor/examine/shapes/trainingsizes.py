"""Noise of a written-out number of rows that only training mode draws: other sizes raise there."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from torch import Tensor

from ...subject.subject import Batch, Subject
from ..anatomy.anatomy import Anatomy
from ..anatomy.evaluation import run_forward
from ..runs.flow import Flow
from ..runs.recording import Recording, Value
from .batchrows import with_rows
from .sizefaults import SizeFault


def written_out_in_training(
    subject: Subject, anatomy: Anatomy, seed: int, rewind: Callable[[], None], rows: int
) -> tuple[SizeFault, ...]:
    """B-1 and 2B rows in training mode, where both raise between rows of data and rows of noise.

    One row is not tried, as batch normalisation refuses it, and pairs of rows fit into 2B. Noise
    is what an operation makes of nothing, with the B rows of the usual batch in every run.
    """
    axis = subject.batch_axis or 0
    made = any(_of_nothing(anatomy.flow, v, axis, rows) for v in anatomy.recording.values)
    if rows < 3 or not made or _told_the_size(subject.batch, axis, rows):
        return ()
    faults = []
    for index in ([*range(rows - 1)], [*range(rows), *range(rows)]):
        batch = with_rows(subject.batch, index, axis, rows)
        run = run_forward(subject, seed=seed, batch=batch, train=True)
        fault = _fault(run, len(index), axis, rows)
        run.release()
        rewind()
        if fault is None:
            return ()
        faults.append(fault)
    return tuple(faults)


def _fault(run: Recording, size: int, axis: int, rows: int) -> SizeFault | None:
    """The operation that was given `size` rows of data and the usual number made of nothing."""
    failing = next((op for op in reversed(run.ops) if op.error is run.error), None)
    if failing is None or run.error is None or run.forward_end >= 0:
        return None
    flow = Flow(run)
    behind = {v.index: flow.ancestors(v) for v in failing.reads}
    given = {v.index for v in run.values if v.source in ("input", "condition")}
    met = any(_long(v, axis, size) and behind[v.index] & given for v in failing.reads)
    fixed = [v for v in failing.reads if _of_nothing(flow, v, axis, rows)]
    if not met or not fixed or fixed[0].op is None:
        return None
    text = " ".join(str(run.error).split())
    return SizeFault(size, "raises", text, fixed[0].op.span, training=True)


def _of_nothing(flow: Flow, value: Value, axis: int, rows: int) -> bool:
    """Whether a value has the usual rows and is computed from no tensor that was there before."""
    if value.op is None or not _long(value, axis, rows):
        return False
    return all(flow.recording.values[i].op is not None for i in flow.ancestors(value))


def _long(value: Value, axis: int, rows: int) -> bool:
    return len(value.shape) > axis and value.shape[axis] == rows


def _told_the_size(batch: Batch, axis: int, rows: int) -> bool:
    """Whether the batch says how many rows it has, beside the tensors that are cut to fewer."""

    def leaves(item: Any) -> Iterator[Any]:
        if isinstance(item, Mapping):
            item = list(item.values())
        if isinstance(item, (list, tuple)):
            for part in item:
                yield from leaves(part)
        else:
            yield item

    for leaf in leaves([batch.args, batch.kwargs]):
        if isinstance(leaf, Tensor):
            cut = leaf.dim() > axis and leaf.shape[axis] == rows
            if (not cut and rows in leaf.shape) or (leaf.dim() == 0 and leaf == rows):
                return True
        elif leaf == rows:
            return True
    return False
