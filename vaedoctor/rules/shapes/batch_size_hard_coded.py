"""VAE505."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ...finding import Finding, Severity, Verified
from ...rule import rule

if TYPE_CHECKING:
    from ...examine.examination import Examination


@rule("VAE505", Severity.ERROR, before=("VAE503",))
def batch_size_hard_coded(examination: Examination) -> Iterator[Finding | Verified]:
    """The model works at one batch size only.

    ## What it checks
    The model runs on one row less, on one row and on twice the rows, in evaluation mode with all
    noise at its centre; the user's loss runs on the first and the last. Each row of x_hat must be
    what it was in the whole batch. Noise may be drawn in training mode only: there, one row less
    and twice the rows must not both meet noise of the usual number of rows.

    ## Why it matters
    The last batch of an epoch is smaller and inference often has one sample. A written-out batch
    size raises there, and a bare `squeeze()` silently gives another shape.

    ## How to fix
    Take the size from the data: `x.shape[0]`, `view(len(x), -1)`, `randn_like`, `squeeze(1)`.

    ## False alarms
    Batch normalisation runs in evaluation mode, so one row is legal. A loss over pairs of rows may
    refuse an odd number. Rows of codes looked up are compared by shape only. A made-up vector that
    is spread over as many columns as there are rows may be a column, and a square beside x as large
    as there are rows one for all of them: nothing is judged.
    """
    sizes = examination.sizes
    if not sizes.faults:
        yield Verified(
            "other batch sizes give every row the same result",
            {"sizes": list(sizes.tried), "largest difference": sizes.difference},
        )
        return
    fault = sizes.faults[0]
    raised = fault.kind in ("raises", "refuses", "loss")
    where = "the loss" if fault.kind == "loss" else "the model"
    where = f"in training mode {where}" if fault.training else where
    yield Finding(
        f"{where} raises on a batch of {fault.size} instead of {sizes.rows}"
        if raised
        else f"a batch of {fault.size} instead of {sizes.rows} gives rows another result",
        help="take the size from the data: `x.shape[0]`, `view(len(x), -1)`, `squeeze(1)`",
        at=fault.at,
        measured={
            "sizes tried": list(sizes.tried),
            "sizes that fail": [f.size for f in sizes.faults],
        },
        notes=(fault.text[:160],) if fault.text else (),
        causes=frozenset({"rows"}),
    )
