"""VAE602."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ...finding import Finding, Severity, Verified
from ...rule import rule

if TYPE_CHECKING:
    from ...examine.examination import Examination


@rule("VAE602", Severity.WARNING)
def gradient_exactly_zero(examination: Examination) -> Iterator[Finding | Verified]:
    """A gradient exists and is exactly zero on several batches.

    ## What it checks
    Parameters whose gradient is identically 0 in one training step, on other batches, and after
    every weight was nudged a little. The last run tells a dead path from a zero-initialised
    layer.

    ## Why it matters
    A dead ReLU, a saturated activation or a draw such as `torch.normal(mu, std)` passes a
    gradient that is present and always 0: nothing raises, and the layer never moves.

    ## How to fix
    Look at the operation named: lower the bias or the input scale that saturates it.

    ## False alarms
    Zero-initialised output layers and free bits at the start pass after the nudge and are not
    reported; nor are biases alone.
    """
    examination.require_gradients()
    dead = examination.dead_branches
    for branch in dead:
        names = ", ".join(f"`{path}`" for path in branch.paths[:3])
        at = f" behind `{branch.operation}`" if branch.operation else ""
        yield Finding(
            f"the gradient of {names} is exactly 0{at}",
            help="find what saturates the operation: its bias or the scale of its input",
            at=branch.at,
            measured={"parameters": branch.count, "runs": examination.survey.runs + 1},
            causes=frozenset(branch.causes),
        )
    if not dead:
        yield Verified("no gradient is stuck at zero")
