"""VAE802."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ...finding import Finding, Severity, Verified
from ...rule import rule

if TYPE_CHECKING:
    from ...examine.examination import Examination


@rule("VAE802", Severity.WARNING)
def exp_headroom(examination: Examination) -> Iterator[Finding | Verified]:
    """The argument of an exponential comes near the number type's limit.

    ## What it checks
    The largest argument of every exponential on the way to the loss or an output, in one training
    step and in another with inputs ten times larger, against the largest that the number type
    holds: 88.7 in float32, 11.1 in float16.

    ## Why it matters
    Beyond the limit `exp` is infinite, and the next step writes NaN into every weight. A linear
    log-variance head gets there on one unscaled batch or at a high learning rate.

    ## How to fix
    Scale the inputs, bound the argument (`logvar.clamp(max=20)`, `10 * torch.tanh(h / 10)`), or
    use a softplus.

    ## False alarms
    Silent while twice the argument still fits. Bounded arguments stay bounded with larger inputs.
    """
    tight = examination.headroom
    places = {(h.op.span.file, h.op.span.line): h for h in reversed(tight) if h.op.span}
    ordered = sorted(places.values(), key=lambda h: h.op.index)
    for h in ordered[:1]:
        near = h.largest * 2 > h.limit
        measured = {"largest argument": h.largest, "limit": h.limit}
        if h.wider is not None:
            measured["with inputs ten times larger"] = h.wider
        yield Finding(
            f"`{h.op.name}` of {h.largest:.3g} is within a factor of two of overflow"
            if near
            else f"`{h.op.name}` overflows when the inputs are ten times larger",
            help="bound the argument: `logvar.clamp(max=20)`, or scale the inputs",
            at=h.op.span,
            measured=measured,
            notes=tuple(
                f"also near: `{o.op.name}` of {o.largest:.3g} in line {o.op.span.line}"
                for o in ordered[1:]
                if o.op.span
            ),
            causes=frozenset({"scale"}),
        )
    if not tight:
        yield Verified("no exponential comes near overflow")
