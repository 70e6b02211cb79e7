"""VAE801."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ...finding import Finding, Severity, Verified
from ...rule import rule

if TYPE_CHECKING:
    from ...examine.examination import Examination


_LESS = ("VAE605", "VAE803", "VAE802", "VAE002", "VAE602", "VAE309")


@rule("VAE801", Severity.ERROR, before=_LESS)
def non_finite_forward(examination: Examination) -> Iterator[Finding | Verified]:
    """The forward pass or the loss yields NaN or infinity.

    ## What it checks
    Whether the loss or an output is NaN or infinite. If one is, the step runs again with every
    operand and result looked at, and what is not finite is followed back to the first operation
    that made it from finite numbers.

    ## Why it matters
    One such number in the loss makes every gradient NaN, and one optimizer step later every
    weight.

    ## How to fix
    Keep the operand in range: clamp a log-variance before `exp`, add a small constant inside
    `log`, `sqrt` and divisions, scale inputs that are far from 1.

    ## False alarms
    Infinity that a softmax, a `where` or an `exp(-inf)` consumes again does not reach the loss and
    is not reported; neither are masked logits of -inf.
    """
    found = examination.non_finite
    if found is None:
        yield Verified("the loss and all outputs are finite")
        return
    causes = {"non-finite", *({"failure"} if examination.stuck else ())}
    if examination.fed_by_scale(found.op):
        causes.add("scale")  # the logarithm of a scale that has underflowed
    if found.op is None:
        yield Finding(
            f"`{found.leaf}` holds {found.kind} before the step begins",
            help="clean the data, or restore the weights from an earlier checkpoint",
            measured={"found in": found.end, "value": found.kind},
            causes=frozenset(causes),
        )
        return
    yield Finding(
        f"`{found.op.name}` is the first operation to yield {found.kind}",
        help=f"keep the operand of `{found.op.name}` in range: clamp it, or add a small constant",
        at=found.at,
        measured={"smallest operand": found.smallest, "largest operand": found.largest},
        notes=(f"it reaches {found.end}",),
        causes=frozenset(causes),
    )
