"""VAE002."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ...finding import Finding, Severity, Verified
from ...rule import rule

if TYPE_CHECKING:
    from ...examine.examination import Examination


@rule("VAE002", Severity.ERROR)
def model_cannot_run(examination: Examination) -> Iterator[Finding | Verified]:
    """The training step raises, and no more specific rule explains it.

    ## What it checks
    One training step: the forward pass and, where there is one, the user's loss. An exception is
    reported with its own traceback, the module that was running and the shapes on the way in.

    ## Why it matters
    Nothing else can be measured on a model that does not run.

    ## How to fix
    Read the traceback: the caret is on the innermost line of your own code. If the input was made
    up, say what your model takes: `--input 8x784`, `--input batch.pt` or `--input
    data.py:one_batch`.

    ## False alarms
    A made-up batch that the model rightly refuses. The notes then say how the batch was found.
    """
    failure = examination.failure
    if failure is None:
        yield Verified("the training step runs to its end")
        return
    if failure.explained:
        return
    where = f" in `{failure.path}`" if failure.path else ""
    what = "the loss" if failure.in_loss else "the forward pass"
    batch = examination.subject.batch
    doubtful = batch.guessed and not failure.whatever_the_input
    notes = [f"the batch was {batch.origin}"] if doubtful else []
    if failure.shapes:
        arrived = ", ".join(str(list(s)) for s in failure.shapes)
        notes.append(f"shapes that went into `{failure.operation}`: {arrived}")
    yield Finding(
        f"{what} raises {failure.kind}{where}",
        help=(
            "name an input your model takes: `--input 8x784` or `--input data.py:one_batch`"
            if doubtful
            else "correct the line under the caret; the traceback is your own code's"
        ),
        at=failure.at,
        notes=tuple(notes),
        causes=frozenset({"failure"}),
        traceback=failure.traceback,
    )
