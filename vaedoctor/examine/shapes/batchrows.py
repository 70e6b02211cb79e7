"""The rows of a batch: how many, along which axis, and the batch with other ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ...rule import Unavailable
from ...subject.batches.batch import steps_like_rows
from ...subject.records import fields_of, with_fields
from ...subject.subject import Batch, Subject
from ..anatomy.anatomy import Anatomy
from ..anatomy.moves import inputs_of
from ..runs.recording import tensors_in


def rows_of(subject: Subject, anatomy: Anatomy) -> int:
    """The number of rows of the batch, or `Unavailable` where rows are not samples.

    A square beside [B, T, ...] with as many steps as rows is a mask, no adjacency; nor is data of
    as many units as rows that stands alone and is not the same both ways.
    """
    axis = subject.batch_axis
    if axis is None:
        raise Unavailable("rows are declared not to be samples (batch_axis=None)")
    first = anatomy.x or next(iter(inputs_of(anatomy.recording)), None)
    if first is None or len(first.shape) <= axis:
        raise Unavailable("no input with a batch axis; supply `batch_axis`")
    rows = first.shape[axis]
    if subject.batch.guessed and axis == 0 and steps_like_rows(subject.batch, rows):
        raise Unavailable("the made-up batch has as many steps as rows; supply one with `--input`")
    x_hat = anatomy.x_hat
    apart = [a for a in subject.batch.args if _rows_listed(a, first.tensor)]
    if apart and x_hat is not None and x_hat.shape[:1] == (len(apart[0]),) != (rows,):
        raise Unavailable("the rows are handed over one by one, in a list; hand over one tensor")
    tensors = list(tensors_in((subject.batch.args, dict(subject.batch.kwargs))))
    for t in tensors:
        square = t.dim() == 2 and tuple(t.shape) == (rows, rows)
        square = square and not (len(first.shape) > 2 and first.shape[:2] == t.shape)
        square = square and not _rows_alone(t, tensors, subject.batch.guessed)
        edges = t.dim() == 2 and t.shape[0] == 2 and t.dtype is torch.long
        if square or t.is_sparse or t.layout is torch.sparse_csr or edges:
            raise Unavailable(
                "an adjacency-like input says that rows are nodes of a graph: "
                "declare `batch_axis=None`"
            )
    return rows


def with_rows(batch: Batch, index: Sequence[int], axis: int, rows: int) -> Batch:
    """The batch made of the rows `index`: in every item that has the batch axis."""

    def taken(item: Any) -> Any:
        if isinstance(item, Tensor):
            if item.dim() <= axis or item.shape[axis] != rows:
                return item
            where = torch.tensor(list(index), device=item.device)
            return item.detach().index_select(axis, where)
        if isinstance(item, Mapping):
            return type(item)({k: taken(v) for k, v in item.items()})  # type: ignore[call-arg]
        if isinstance(item, tuple) and hasattr(item, "_fields"):
            return type(item)(*map(taken, item))
        if isinstance(item, (list, tuple)):
            listed = len(item) == rows and not any(_has_rows(v, axis, rows) for v in item)
            if listed and rows > 1:
                return type(item)(item[i] for i in index)
            return type(item)(taken(v) for v in item)
        if item is None or isinstance(item, (str, bytes, int, float)):
            return item
        if fields_of(item) is not None:
            return with_fields(item, taken)
        raise Unavailable(f"the batch holds a {type(item).__name__}, whose rows are not known")

    args = tuple(taken(a) for a in batch.args)
    kwargs = {k: taken(v) for k, v in batch.kwargs.items()}
    return replace(batch, args=args, kwargs=kwargs)


def _rows_listed(item: Any, x: Tensor) -> bool:
    """Whether an item is a list that holds `x` in its first entry, and others like it."""
    if not isinstance(item, (list, tuple)) or len(item) < 2:
        return False
    kinds = {tuple((t.dim(), t.dtype) for t in tensors_in(entry)) for entry in item}
    return len(kinds) == 1 and any(t is x for t in tensors_in(item[0]))


def _has_rows(item: Any, axis: int, rows: int) -> bool:
    return isinstance(item, Tensor) and item.dim() > axis and item.shape[axis] == rows


def _rows_alone(square: Tensor, tensors: list[Tensor], guessed: bool) -> bool:
    if guessed or len([t for t in tensors if t.dim() > 0]) > 1:
        return False
    edges = square != 0
    compared = square if bool(edges.all()) else edges
    return not torch.equal(compared, compared.t())


def axes_in(shape: tuple[int, ...], x: tuple[int, ...], axis: int, rows: int) -> list[int]:
    """Where the batch may lie in a value beside the input: as there, or behind new leading axes.

    Two of them where as many samples of a row as there are rows may be in front.
    """
    extra = max(0, len(shape) - len(x))
    return [i for i in sorted({axis, extra + axis}) if len(shape) > i and shape[i] == rows]


def axis_of(axes: list[int], usual: tuple[int, ...], found: tuple[int, ...]) -> int:
    """The one of several axes whose length follows the number of rows; the first if none does."""
    moved = [i for i in axes if len(found) == len(usual) and found[i] != usual[i]]
    return (moved or axes)[0]
