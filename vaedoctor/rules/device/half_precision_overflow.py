"""VAE205."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ...finding import Finding, Severity, Verified
from ...rule import rule

if TYPE_CHECKING:
    from ...examine.examination import Examination


@rule("VAE205", Severity.WARNING)
def half_precision_overflow(examination: Examination) -> Iterator[Finding | Verified]:
    """Under float16 or bfloat16 autocast the step is not finite; in float32 it is.

    ## What it checks
    The step on the same noise under autocast, with the operations that CUDA's autocast keeps in
    float32 kept there, and products of rounded operands summed in float32 as tensor cores do. Runs
    where a number of the float32 step comes near float16's limits (65504 and 6e-8). A *note* where
    only an output without a gradient is hit, such as a logged perplexity.

    Where the posterior is trained (a KL of a nat a row or more), a *note* says when half precision
    moves its KL by more than a hundredth from float64's.

    ## Why it matters
    `mu * mu` overflows beyond 255 and `x + 1e-8` is x: mixed-precision training turns NaN, or
    decodes black images, and only there.

    ## How to fix
    Compute the KL and the loss in float32 (`mu.float()`), use `1e-4` or larger as a small
    constant, scale inputs and activations, or train in bfloat16.

    ## False alarms
    Models that never run in half precision: add `# vaedoctor: ignore[VAE205]`.

    ## References
    PyTorch documentation, "Automatic Mixed Precision: CUDA ops that autocast to float32".
    """
    half = examination.half_overflow
    if half is None:
        digits = examination.lost_digits
        if digits is None:
            yield Verified("the step stays finite in half precision")
            return
        yield Finding(
            f"in {digits.dtype} the posterior's KL is {digits.error:.1%} off that in float64",
            help="run the layers that make the posterior in float32",
            at=digits.latent.meeting.span,
            measured={f"KL in {digits.dtype}": digits.half, "KL in float64": digits.double},
            severity=Severity.NOTE,
        )
        return
    found = half.found
    assert found.op is not None
    yield Finding(
        f"`{found.op.name}` yields {found.kind} in {half.dtype}, not in float32",
        help="compute it in float32: `.float()` before the operation",
        at=found.at,
        measured={"smallest operand": found.smallest, "largest operand": found.largest},
        notes=(f"it reaches {found.end}",),
        severity=Severity.NOTE if found.logged else Severity.WARNING,
    )
