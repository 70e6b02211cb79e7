"""VAE707."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ...finding import Finding, Severity, Verified
from ...rule import Unavailable, rule

if TYPE_CHECKING:
    from ...examine.examination import Examination


@rule("VAE707", Severity.ERROR, before=("VAE705",))
def reconstruction_sign_flipped(examination: Examination) -> Iterator[Finding | Verified]:
    """The loss rewards a worse reconstruction.

    ## What it checks
    The weight of the reconstruction term, dL/dx_hat over the gradient of the likelihood it fits,
    is negative. Where it fits no plain likelihood, as with a learned variance or counts: the
    gradient pulls every single element of x_hat, or of a rate that is made of it, away from the
    data, above and below it. Of K samples
    that are joined by importance weights: these fall as the reconstruction gets better, and the
    KL in them has the right sign.
    The same of what else is decoded, a second modality or a class, and of parts of x_hat that have
    a plain loss of their own.

    ## Why it matters
    Minimising this loss drives the reconstruction away from the input.

    ## How to fix
    Change the sign of the reconstruction term, or minimise the negative of the ELBO.

    ## False alarms
    Judged only where the gradient fits a plain likelihood element by element, or where at least
    32 elements are pulled away and none towards the target. An adversary is meant to get worse:
    beside x_hat nothing is judged where the file goes backward, or steps, more than once, nor where
    the optimizer does not own the predictor; without an optimizer only what the encoder is given.
    """
    beside = list(_beside(examination))
    yield from beside
    try:
        likelihood = examination.require_likelihood()
    except Unavailable:
        found = list(_of_no_plain_likelihood(examination))
        yield from found
        if not (beside or found):
            raise
        return
    if likelihood.weight < 0:
        yield Finding(
            f"the loss rewards a worse reconstruction: its weight is {likelihood.weight:.3g}",
            help="change the sign of the reconstruction term",
            at=examination.reconstruction_turned_at,
            measured={"reconstruction weight a row": likelihood.weight},
            causes=frozenset({"reconstruction"}),
        )
    else:
        yield Verified(
            f"the reconstruction term is {likelihood.kind}",
            {"weight a row": likelihood.weight},
        )


def _of_no_plain_likelihood(examination: Examination) -> Iterator[Finding]:
    """Log-weights of several samples, or else elements that are pulled away from their target."""
    for a in examination.turned_likelihoods:
        yield Finding(
            "the log-weights of the samples fall as the reconstruction gets better",
            help="add `log p(x|z)` to the log-weights, not its negative",
            at=examination.compared_at or a.op.span,
            measured={"samples": a.samples, "rows": a.rows},
            causes=frozenset({"reconstruction"}),
        )
    if examination.pulled_away and not examination.turned_likelihoods:
        yield Finding(
            "the loss rewards a worse reconstruction: every element that is decoded is pulled away "
            "from the data",
            help="change the sign of the reconstruction term",
            at=examination.reconstruction_turned_at,
            measured={"elements pulled away": examination.pulled_away, "towards": 0},
            causes=frozenset({"reconstruction"}),
        )


def _beside(examination: Examination) -> Iterator[Finding]:
    """What is decoded beside x_hat that the loss rewards for being worse."""
    for one in examination.turned_beside:
        what = "a part of x_hat" if one.inside else "what is decoded beside x_hat"
        how = (
            f"its weight is {one.weight:.3g}"
            if one.weight
            else "every element is pulled away from its target"
        )
        yield Finding(
            f"the loss rewards a worse prediction of {what}: {how}",
            help="change the sign of this term",
            at=one.at,
            measured={"weight a row": one.weight}
            if one.weight
            else {"elements pulled away": one.away, "towards": 0},
            causes=frozenset({"reconstruction"}),
        )
