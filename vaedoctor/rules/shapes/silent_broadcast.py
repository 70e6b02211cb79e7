"""VAE503."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ...finding import Finding, Severity, Verified
from ...rule import rule

if TYPE_CHECKING:
    from ...examine.examination import Examination


@rule("VAE503", Severity.ERROR, before=("VAE502", "VAE506"))
def silent_broadcast(examination: Examination) -> Iterator[Finding | Verified]:
    """An elementwise operation pairs every row with every row.

    ## What it checks
    Every elementwise operation on the way to x_hat or the loss: whether its result has more
    elements than both operands because the batch axis of one meets another axis of the other, as
    `(B)` beside `(B, 1)`.

    ## Why it matters
    PyTorch broadcasts without a word: the loss becomes a mean over all pairs of rows, its best
    reconstruction is the mean of the data, and training stalls there.

    ## How to fix
    Bring both operands to one shape: `squeeze(1)` on one, `unsqueeze(1)` on the other, or no
    `keepdim=True`.

    ## False alarms
    Axes of size 1 made on purpose (`unsqueeze`, `[:, None]`, a view), new sample axes in front,
    and tables of pairs that go on into distances or kernels are not reported.
    """
    outer = examination.outer_products
    for found in outer[:1]:
        yield Finding(
            f"`{found.op.name}` pairs every row with every row: {list(found.left)} and "
            f"{list(found.right)} give {list(found.result)}",
            help="bring both operands to one shape, with `squeeze(1)` or `unsqueeze(1)`",
            at=found.op.span,
            measured={
                "left": list(found.left),
                "right": list(found.right),
                "result": list(found.result),
            },
            causes=frozenset({"x_hat", "rows"}),
        )
    if not outer:
        yield Verified("no operation broadcasts rows against rows")
