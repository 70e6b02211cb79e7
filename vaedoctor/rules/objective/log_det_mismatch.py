"""VAE718."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ...finding import Finding, Number, Severity, Verified
from ...rule import Unavailable, rule

if TYPE_CHECKING:
    from ...examine.examination import Examination

CLOSE = 0.01  # of a factor of ±1


@rule("VAE718", Severity.ERROR)
def log_det_mismatch(examination: Examination) -> Iterator[Finding | Verified]:
    """A flow's log-determinant is not that of its Jacobian, or has the wrong sign.

    ## What it checks
    Every module that turns a sample into another of the same shape and returns one number a row:
    that number against `log |det J|` by autograd, for up to four rows, and the sign of the
    loss's gradient at it.

    ## Why it matters
    The change of variables needs `log q(z_K) = log q(z_0) - log |det J|`. With a wrong factor or
    sign the bound is none: the KL falls with every flow that is added, below 0.

    ## How to fix
    Sum the log-determinant over units, keep one number a row, and subtract it from `log q`.

    ## False alarms
    Only a number that is the true log-determinant times one factor for all rows is judged, so
    other numbers that a module returns (a log-likelihood, a penalty) are not. A module that
    reports the inverse's determinant is right when the loss adds it.

    ## References
    Rezende and Mohamed, Variational Inference with Normalizing Flows, 2015, equation 13.
    """
    examination.require_latents()
    steps = examination.log_dets
    if not steps:
        raise Unavailable("no flow with a log-determinant a row found")
    for s in steps:
        measured: dict[str, Number] = {
            "reported": [*s.reported],
            "log |det J|": [*s.true],
            "factor": s.factor,
        }
        where = f"`{s.path}`" if s.path else "the flow"
        sign = 1 if s.factor > 0 else -1
        if abs(abs(s.factor) - 1) > CLOSE:
            yield Finding(
                f"{where} reports {s.factor:.3g} times its log-determinant",
                help="sum the log-determinant over units: one number a row",
                at=s.at,
                measured=measured,
                causes=frozenset({f"flow:{s.path}"}),
            )
        elif s.pull * sign > 0 and not examination.composed:
            yield Finding(
                f"the log-determinant of {where} enters the loss with the wrong sign",
                help="subtract it from `log q(z_0)`: `log_q = log_q0 - log_det`",
                at=s.at,
                measured=measured,
                causes=frozenset({f"flow:{s.path}"}),
            )
        else:
            yield Verified("the flow's log-determinant is that of its Jacobian", measured)
