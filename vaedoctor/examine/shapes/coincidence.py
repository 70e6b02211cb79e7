"""A batch with as many rows as a row has samples, in which nothing tells the two axes apart."""

from __future__ import annotations

from dataclasses import replace

from ...rule import Unavailable
from ...subject.subject import Subject
from ..anatomy.moves import inputs_of
from ..runs.recording import Recording
from .batchrows import with_rows

_FEWEST = 4


def with_a_row_less(subject: Subject, recording: Recording) -> Subject | None:
    """The same with one row less, where a draw is of [rows, rows, units]; None where none is.

    A batch that the user gives stays as it is, and so does one of a graph's nodes.
    """
    inputs = [v.shape for v in inputs_of(recording) if v.shape]
    if not inputs or subject.batch_axis != 0 or subject.batch.origin == "given":
        return None
    rows = inputs[0][0]
    if rows < _FEWEST or any(shape == (rows, rows) for shape in inputs):
        return None
    drawn = (op.out.shape for op in recording.ops if op.noise is not None and op.makes)
    if not any(len(shape) == 3 and shape[:2] == (rows, rows) for shape in drawn):
        return None
    try:
        return replace(subject, batch=with_rows(subject.batch, range(rows - 1), 0, rows))
    except Unavailable:
        return None
