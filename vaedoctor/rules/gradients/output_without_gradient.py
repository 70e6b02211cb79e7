"""VAE608."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ...finding import Finding, Severity, Verified
from ...rule import rule

if TYPE_CHECKING:
    from ...examine.examination import Examination


@rule("VAE608", Severity.WARNING, before=("VAE602",))
def output_without_gradient(examination: Examination) -> Iterator[Finding | Verified]:
    """The loss never looks at some columns of the reconstruction, or at none of it.

    ## What it checks
    The gradient of the user's loss at x_hat on several batches: whether it is exactly 0 for whole
    columns, channels or steps while others get one, and whether the loss stays the same whatever
    they hold. Or the loss compares all but the last steps of a series with all but the last steps
    of the input, before or after the difference is taken: nothing is shifted, and the last ones
    are left out of both. Or the loss computes
    with x_hat and comes out the same whatever all of it holds, as where it is its own target.

    ## Why it matters
    These columns stay what they were at initialisation. A table of mixed columns split at a wrong
    index, or a boolean that sends every column to one likelihood, leaves some out silently.

    ## How to fix
    Let the slices handed to the likelihoods cover every column, and compare x_hat with x.

    ## False alarms
    Steps at an end (teacher forcing), the border of a picture and batches with a mask are not
    judged; nor is one end of a picture where it is padding or the encoder is shown it alone, a loss
    that matches two sets and picks its entries by their values, or half of a symmetric matrix whose
    other half is scored, or columns that the encoder is not shown either; others that are left out
    on purpose make it a *warning*.
    """
    found = examination.coverage
    if found.indifferent:
        yield Finding(
            "the loss is the same whatever x_hat holds: its gradient there is exactly 0",
            help="compare x_hat with the input, not with itself",
            at=found.op.span if found.op is not None else None,
            measured={"gradient at x_hat": 0.0},
            causes=frozenset({"x_hat"}),
        )
    elif found.missing:
        listed = ", ".join(map(str, found.missing[:5])) + (", …" if len(found.missing) > 5 else "")
        yield Finding(
            f"the loss leaves out {len(found.missing)} of {found.size} entries of x_hat along "
            f"axis {found.axis}: {listed}",
            help="compare every step, or start the target later by the steps that are cut off"
            if found.unshifted
            else "let the slices handed to the likelihoods cover every column",
            at=found.op.span if found.op is not None else None,
            measured={"without gradient": list(found.missing), "batches": found.batches},
            causes=frozenset({"x_hat"}),
        )
    elif not found.spared:
        yield Verified("every part of x_hat gets a gradient from the loss")
