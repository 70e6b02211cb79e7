"""VAE803."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ...finding import Finding, Severity, Verified
from ...rule import rule

if TYPE_CHECKING:
    from ...examine.examination import Examination
    from ...examine.numerics.reach import Reached


@rule("VAE803", Severity.ERROR, before=("VAE802",))
def log_or_sqrt_of_nonpositive(examination: Examination) -> Iterator[Finding | Verified]:
    """A logarithm, root or division is fed values that can be zero or less.

    ## What it checks
    Every `log`, `sqrt` and division on the way to the loss or an output. The layers behind it
    whose output nothing bounds are made to return values from -20 to 20; reported is what is then
    fed zero or less, and is not finite for it.

    ## Why it matters
    Training moves weights, and with them what a linear layer returns: sooner or later one value
    is not positive, and the loss is NaN.

    ## How to fix
    Make the operand positive (`softplus(h) + 1e-6`, `exp`), or use the function that is stable:
    `F.logsigmoid`, `F.log_softmax`, `F.binary_cross_entropy_with_logits`. A head that already is a
    log-variance needs no logarithm.

    ## False alarms
    Judged by intervention, never by a name: what `exp`, `softplus`, `clamp` or an added constant
    keeps positive stays positive. What a `where` discards does not reach the loss. A bare
    parameter that may become negative is a warning; so are a layer's own output as
    divisor, which takes both signs, and a zero that is only the lost digits of `exp`, `sigmoid` or
    `softmax`, unless a batch of ten times the size reaches it too.
    """
    found = examination.reached
    places = {(r.op.span.file, r.op.span.line): r for r in reversed(found) if r.op.span}
    for r in sorted(places.values(), key=lambda r: r.op.index):
        what = "zero" if r.smallest == 0 else "values below zero"
        yield Finding(
            f"`{r.op.name}` can be fed {what}: `{r.producer}` does not keep it positive",
            help="make the operand positive: `softplus(h) + 1e-6`, or `clamp(min=1e-6)`",
            at=r.op.span,
            measured={"smallest operand reached": r.smallest, "share not positive": r.share},
            notes=_notes(r),
            severity=_severity(r),  # type: ignore[arg-type]
            causes=frozenset({"scale"} if r.of_scale else ()),
        )
    if not found:
        yield Verified("no logarithm, root or division can be fed zero or less")


def _severity(r: Reached) -> Severity | None:
    """A warning where training may never get there."""
    unproved = r.learned_number or r.signed or (r.lost and not r.by_input)
    return Severity.WARNING if unproved else None


def _notes(r: Reached) -> tuple[str, ...]:
    """How the value was reached."""
    layers = ", ".join(f"`{path}`" for path in r.layers if path)
    if r.by_input:
        return ("with the weights as they are, on the batch times 10",)
    return (f"with {layers} returning values from -20 to 20",) if layers else ()
