"""VQ101."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ...finding import Finding, Severity, Verified
from ...rule import Unavailable, rule

if TYPE_CHECKING:
    from ...examine.examination import Examination


@rule("VQ101", Severity.ERROR, before=("VAE601", "VAE602", "VAE104", "VQ103"))
def codebook_without_gradient(examination: Examination) -> Iterator[Finding | Verified]:
    """The codebook gets no gradient and no update.

    ## What it checks
    The user's loss's gradient at the table of codes, and whether two training forwards move the
    table (moving averages), or only a buffer of its shape beside it.

    ## Why it matters
    The codes stay what they were at initialisation. The loss still falls, because encoder and
    decoder adapt to them, so nobody notices.

    ## How to fix
    Add the codebook term on the looked-up code itself: `F.mse_loss(z_q, z_e.detach())`, before
    the straight-through line.

    ## False alarms
    A frozen table (`requires_grad=False`) is meant; a buffer that nothing moves may be a fixed
    random projection and is a *warning*, unless averages of the codes are kept beside it and
    no code of the class ever writes to it, or an evaluation forward moves it. Rounding (FSQ,
    LFQ) has no codebook.
    """
    books = examination.codebooks
    trained = [b for b in books if b.table.tensor.requires_grad]
    if trained and examination.composed:
        raise Unavailable("the codebook's loss is not known; supply --objective")
    moved = examination.code_changes.training
    judged = {b.name: b for b in books if b in trained or b.table.source != "parameter"}
    silent = 0
    for name, book in judged.items():
        arrives = examination.codebook_gradient(book).value
        if moved.get(name, 0.0) > 0 or arrives == "nonzero":
            continue
        silent += 1
        upside_down = examination.code_changes.evaluation.get(name, 0.0) > 0
        average = examination.code_changes.averages.get(name)
        beside = f": `{average.name}` is kept and never copied to it" if average else ""
        yield Finding(
            f"{book.called} gets no gradient and no update{beside}",
            help=f"copy the average to it, divided by its counts: `self.{_last(name)}.copy_(…)`"
            if average
            else "add the codebook term `F.mse_loss(z_q, z_e.detach())` or a moving average",
            at=(average.at if average else None) or examination.codebook_term_at(book),
            measured={"gradient": arrives, "moved by two training forwards": 0.0},
            severity=Severity.ERROR
            if book in trained or (average and not average.copied) or upside_down
            else Severity.WARNING,
            causes=book.causes,
        )
    if not judged:
        raise Unavailable("the codebook is frozen")
    if not silent:
        yield Verified("the codebook is trained, by its gradient or by averages")


def _last(name: str) -> str:
    return name.rpartition(".")[2]
