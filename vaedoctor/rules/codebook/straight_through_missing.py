"""VQ102."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ...finding import Finding, Severity, Verified, where
from ...rule import Unavailable, rule

if TYPE_CHECKING:
    from ...examine.examination import Examination


@rule("VQ102", Severity.ERROR, before=("VAE601", "VAE602"))
def straight_through_missing(examination: Examination) -> Iterator[Finding | Verified]:
    """The reconstruction gives the encoder no gradient across the look-up.

    ## What it checks
    The gradient of x_hat at the vectors that are looked up (or rounded).

    ## Why it matters
    An index has no gradient: without a straight-through step the encoder is moved by the
    commitment term alone, towards whatever code is near, and learns nothing about reconstruction.

    ## How to fix
    Feed the decoder `z_e + (z_q - z_e).detach()`.

    ## False alarms
    An encoder that does not train is skipped. Of residual look-ups the first is judged, and any
    way to the encoder (a rotation, a soft assignment) counts.
    """
    books = [b for b in examination.codebooks_or_none if b.first and b.arrives is not None]
    rounding = examination.rounding
    if not books and rounding is None:
        raise Unavailable("no look-up between a trained encoder and the reconstruction")
    arrived = [(b.read, b.arrives.value, b.causes) for b in books if b.arrives is not None]
    if rounding is not None:
        arrived.append((rounding.op, rounding.arrives.value, frozenset({"latent"})))
    broken = [a for a in arrived if a[1] != "nonzero"]
    for op, arrives, causes in broken[:1]:
        cut = examination.cut_behind(op)
        by = f": {cut.label} cuts it off" if cut is not None and cut.at is not None else ""
        at = cut.at if cut is not None and by else examination.handed_on_at(op)
        yield Finding(
            f"the reconstruction gives the encoder no gradient across the look-up{by}",
            help="feed the decoder `z_e + (z_q - z_e).detach()`",
            at=at,
            measured={"d x_hat / d z_e": arrives},
            causes=causes | {"latent", *([cut.cause] if cut is not None else [])},
            notes=(f"the code is looked up in {where(op.span, at)}",) if at != op.span else (),
        )
    if not broken:
        yield Verified("the gradient passes the look-up straight through")
