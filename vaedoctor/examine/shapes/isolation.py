"""How much the rows of a batch know each other: the record, and where the rows of x_hat are."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from ...rule import Unavailable
from ..anatomy.anatomy import Anatomy
from ..anatomy.evaluation import (
    reconstruction_in,
)
from ..runs.recording import Op, Recording, Value
from .batchrows import axes_in

_LEAST = 1e-6  # relative to the derivative at the row itself
_RECURRENT = frozenset("lstm gru rnn_tanh rnn_relu".split())


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


def by_row(x_hat: Tensor, shape: tuple[int, ...], axis: int, rows: int) -> list[Tensor]:
    """The reconstruction with its rows in front, in every layout that it may have.

    Several samples of a row lie beside each other, or one batch after the other.
    """
    if axes := axes_in(tuple(x_hat.shape), shape, axis, rows):
        return [x_hat.movedim(where, 0) for where in axes]
    if axis or not x_hat.dim() or x_hat.shape[0] <= rows or x_hat.shape[0] % rows:
        return []
    rest = x_hat.shape[1:]
    return [x_hat.reshape(rows, -1, *rest), x_hat.reshape(-1, rows, *rest).transpose(0, 1)]


def reconstruction_of(recording: Recording, anatomy: Anatomy) -> Value:
    """x_hat in a run in evaluation mode; Unavailable where there is none."""
    if recording.error is not None:
        raise Unavailable(f"the model raises in evaluation mode: {recording.error}")
    x_hat = reconstruction_in(recording, anatomy)
    if x_hat is None:
        raise Unavailable("no reconstruction found in evaluation mode")
    return x_hat


def all_but(table: Tensor, row: int) -> Tensor:
    """The table with 0 at one row."""
    others = table.clone()
    others[row] = 0
    return others
