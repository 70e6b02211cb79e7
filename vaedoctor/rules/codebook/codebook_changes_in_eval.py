"""VQ105."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ...finding import Finding, Severity, Verified
from ...rule import rule

if TYPE_CHECKING:
    from ...examine.examination import Examination


@rule("VQ105", Severity.ERROR)
def codebook_changes_in_eval(examination: Examination) -> Iterator[Finding | Verified]:
    """A forward pass in evaluation mode changes the codebook.

    ## What it checks
    After two training forwards, whether a forward pass in evaluation mode leaves every table of
    codes bit-equal.

    ## Why it matters
    Validation then trains the codebook on validation data, results depend on the order of the
    batches, and a served model drifts.

    ## How to fix
    Put the update behind `if self.training:`.

    ## False alarms
    An initialisation from the first batch has happened by then, in training mode.
    """
    books = examination.codebooks
    changes = examination.code_changes
    drifting = [n for n, d in changes.evaluation.items() if d > 0]
    for name in drifting:
        edit = changes.edits.get(name)
        book = next(b for b in books if b.name == name)
        yield Finding(
            f"a forward pass in evaluation mode changes {book.called}",
            help="put the update behind `if self.training:`",
            at=edit.span if edit is not None else book.read.span,
            measured={"largest change": changes.evaluation[name]},
            causes=book.causes,
        )
    if not drifting:
        yield Verified("evaluation leaves the codebook as it is", {"largest change": 0.0})
