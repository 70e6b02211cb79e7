"""VAE718."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ...finding import Finding, Number, Severity, Verified
from ...plot import row_plot
from ...rule import Unavailable, rule

if TYPE_CHECKING:
    from ...examine.examination import Examination
    from ...examine.objective.logdet import LogDet
    from ...examine.objective.transport import Transport

CLOSE = 0.01  # of a factor of ±1


@rule("VAE718", Severity.ERROR, before=("VAE701", "VAE703", "VAE702"))
def log_det_mismatch(examination: Examination) -> Iterator[Finding | Verified]:
    """A flow's log-determinant is not that of its Jacobian, or has the wrong sign.

    ## What it checks
    Every module that turns a sample into another of the same shape and returns one number a row:
    that number against `log |det J|` by autograd, for up to four rows, and the sign of the
    loss's gradient at it. And the loss as a whole, wherever the flow is written: with the decoder
    held fixed and the heads forced, its gradient at the heads and at the flow's weights is fitted
    by those of `log q(z_0)`, of the prior before and after the flow, and of `log |det J|`, which
    has to be counted once for every step.

    ## Why it matters
    The change of variables needs `log q(z_K) = log q(z_0) - log |det J|`. With a wrong factor or
    sign, or without it, the bound is none: the KL falls with every flow that is added, below 0.

    ## How to fix
    Sum the log-determinant over units, keep one number a row, add up all steps, and subtract it
    from `log q`; score what the decoder is given under the prior.

    ## False alarms
    Of what a module returns, only a number that is the true log-determinant times one factor for
    all rows is judged, so other numbers (a log-likelihood, a penalty) are not. A module that
    reports the inverse's determinant is right when the loss adds it. Where the KL as a whole has
    the wrong sign, or log q(z_0) means another scale than the sample's, and the flow agrees with
    the prior, it is not the flow's fault (VAE703, VAE303). Of the whole loss only an exact fit is
    judged: other priors, further terms on the flow and layers of the decoder are not. The traces
    that a continuous flow integrates, exact or estimated, are right in place of log-determinants.

    ## References
    Rezende and Mohamed, Variational Inference with Normalizing Flows, 2015, equation 13.
    """
    examination.require_latents()
    steps, whole = examination.log_dets, examination.transports
    scored = examination.densities_or_none
    whole = [t for t in whole if t.latent.z.index not in scored or scored[t.latent.z.index].exact]
    flipped = any(q.standard and q.weight < 0 for q in scored.values())  # VAE703
    flipped = flipped or any(t.weight < 0 for t in whole)
    if not steps and not whole:
        raise Unavailable("no flow with a log-determinant a row found")
    found = [
        f
        for s in steps
        if (f := _reported(s, signed=not (examination.composed or flipped))) is not None
    ]
    found = found or [f for t in whole if (f := _counted(t)) is not None]
    yield from found
    whole = [t for t in whole if abs(t.log_det) > CLOSE]  # else it is a part of the decoder
    if not (found or steps or whole):
        raise Unavailable("no flow with a log-determinant a row found")
    if not found:
        measured: dict[str, Number] = {}
        if whole:
            measured["weight in the loss"] = whole[0].log_det
        if steps:
            measured["reported"] = [*steps[0].reported]
        yield Verified("the flow's log-determinant is that of its Jacobian", measured)


def _reported(s: LogDet, *, signed: bool) -> Finding | None:
    """What is wrong with a number that a module reports."""
    where = f"`{s.path}`" if s.path else "the flow"
    sign, at = 1 if s.factor > 0 else -1, s.at
    if abs(abs(s.factor) - 1) > CLOSE:
        said = f"{where} reports {s.factor:.3g} times its log-determinant"
        cure = "sum the log-determinant over units: one number a row"
    elif s.pull * sign > 0 and signed and sign < 0:
        said = f"{where} reports the negative of its log-determinant, and the loss subtracts it"
        cure = "return `log |det J|` without the minus: `log_q = log_q0 - log_det`"
    elif s.pull * sign > 0 and signed:
        said = f"the log-determinant of {where} enters the loss with the wrong sign"
        cure, at = "subtract it from `log q(z_0)`: `log_q = log_q0 - log_det`", s.used_at
    else:
        return None
    measured: dict[str, Number] = {
        "reported": [*s.reported],
        "log |det J|": [*s.true],
        "factor": s.factor,
    }
    return Finding(
        said,
        help=cure,
        at=at,
        measured=measured,
        causes=frozenset({f"flow:{s.path}", "kl"}),
        plots=(row_plot(s.reported, s.true),),
    )


def _counted(t: Transport) -> Finding | None:
    """What is wrong with the log-determinant in the loss as a whole."""
    if t.scales:
        return None  # log q(z_0) does not mean the scale that is sampled (VAE303)
    where = f"`{t.path}`" if t.path else "the flow"
    measured: dict[str, Number] = {
        "weight of log |det J|": t.log_det,
        "weight of the prior": t.prior,
        "weight of the prior before the flow": t.prior_before,
    }
    cure = "subtract the log-determinant of every step from `log q(z_0)`"
    at = t.prior_at if t.early else t.at
    if t.instead is not None:
        said = f"what {where} counts as its log-determinant is not that of its Jacobian"
        measured = {"counted": [*t.instead[0]], "log |det J|": [*t.instead[1]]}
        cure = "use `log |det J|`, summed over units: one number a row"
    elif t.missing:
        names = ", ".join(f"`{step.path}`" for step in t.missing if step.path)
        said = f"the loss leaves out the log-determinant of {names or 'some steps of the flow'}"
    elif abs(t.log_det) < CLOSE and abs(t.prior) > CLOSE:
        said = f"the loss leaves out the log-determinant of {where}"
    elif abs(t.log_det - 1) < CLOSE:
        said = f"the log-determinant of {where} enters the loss with the wrong sign"
    elif t.early:
        said = f"the prior is scored before {where}, at a point that the decoder is not given"
        cure = "score the flow's output under the prior"
    elif abs(t.log_det) > CLOSE and abs(t.log_det + 1) > CLOSE:
        said = f"the loss counts the log-determinant of {where} {abs(t.log_det):.3g} times"
        cure = "count it once for every row: no mean over units, no sum over the batch"
    else:
        return None
    return Finding(
        said, help=cure, at=at, measured=measured, causes=frozenset({f"flow:{t.path}", "kl"})
    )
