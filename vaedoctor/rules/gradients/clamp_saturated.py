"""VAE607."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ...finding import Finding, Severity
from ...rule import rule

if TYPE_CHECKING:
    from ...examine.examination import Examination

SHARE = 0.01  # of the head's values; a safety clamp saturates none


@rule("VAE607", Severity.WARNING)
def clamp_saturated(examination: Examination) -> Iterator[Finding]:
    """A clamp on a posterior head swallows the gradient.

    ## What it checks
    The share of values of a location or scale head that lie outside the bounds of a clamp on
    their way to the sample, where the clamp's gradient is exactly 0.

    ## Why it matters
    A saturated value gets no gradient and stays outside for good.

    ## How to fix
    Widen the bounds, or use a smooth bound such as `softplus` or a scaled `tanh`.

    ## False alarms
    Wide safety clamps with at most 1 % of the values outside are not reported.
    """
    examination.require_latents()
    for clamp in examination.clamps:
        if clamp.share <= SHARE:
            continue
        bounds = f"[{clamp.low}, {clamp.high}]"
        yield Finding(
            f"`{clamp.op.name}` cuts {clamp.share:.0%} of a posterior head off at {bounds}",
            help="widen the bounds, or bound smoothly with `softplus` or a scaled `tanh`",
            at=clamp.op.span,
            measured={"saturated share": clamp.share, "min": clamp.low, "max": clamp.high},
            causes=frozenset({"clamp"}),
        )
