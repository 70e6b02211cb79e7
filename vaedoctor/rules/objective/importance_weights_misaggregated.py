"""VAE720."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

from ...finding import Finding, Severity, Verified
from ...rule import Unavailable, rule

if TYPE_CHECKING:
    from ...examine.examination import Examination
    from ...examine.objective.importance import Aggregation
    from ...finding import Number

CLOSE = 1e-3


@rule("VAE720", Severity.ERROR, before=("VAE703", "VAE707", "VAE803"))
def importance_weights_misaggregated(examination: Examination) -> Iterator[Finding | Verified]:
    """The importance-weighted bound is not the log-mean-exp over the samples.

    ## What it checks
    Where a row has K samples (an axis of z, a batch repeated K times, K draws from one posterior)
    and the loss joins one number per sample and row, be it by `logsumexp`, `log(mean(exp(w)))` or
    normalised weights: the loss's gradient at these log-weights is minus their softmax over the
    axis that is joined, which has to be that of the samples; the log-weights rise as the
    reconstruction gets better; normalised weights are detached; an exponential is not undone by a
    logarithm before the mean over the samples; and log-weights that are joined have a gradient at
    their own row of what the encoder makes, not at another alone.

    ## Why it matters
    Over the batch's axis the rows compete with each other, and only the easiest one trains.
    With the sign inside the `logsumexp` the worst sample counts. A mean of logs is the ordinary
    bound, however many samples are paid for.

    ## How to fix
    `-(torch.logsumexp(log_w, dim=0) - math.log(K)).mean()` for `log_w` of shape [K, B].

    ## False alarms
    A plain mean of log-weights is the ordinary bound with K samples and is fine. Tempered, doubly
    reparametrised and truncated variants have another gradient and are not judged, nor is
    K equal to the batch size.

    ## References
    Burda, Grosse and Salakhutdinov, Importance Weighted Autoencoders, 2016, equation 8.
    """
    examination.require_objective()
    examination.require_latents()
    if not examination.aggregations:
        raise Unavailable("no importance weights of several samples found")
    for a in examination.aggregations:
        if a in examination.turned_likelihoods and a.axis == "samples":
            continue  # only the likelihood's sign is wrong (VAE707)
        measured: dict[str, Number] = {"samples": a.samples, "rows": a.rows}
        said, cure = _judge(a)
        if not said:
            yield _valued(examination, a, measured)
            continue
        yield Finding(
            said,
            help=cure,
            at=a.op.span,
            measured=measured,
            causes=frozenset({"reconstruction", "kl"}),
        )


def _valued(
    examination: Examination, a: Aggregation, measured: dict[str, Number]
) -> Finding | Verified:
    """A bound of the right gradient, which may lack the logarithm of the number of samples."""
    excess, known = examination.excess_of(a), math.log(a.samples)
    slips = {1: "lacks the logarithm", 2: "adds the logarithm, and does not subtract it,"}
    close = [n for n in slips if excess is not None and abs(excess - n * known) <= CLOSE * known]
    if not close:
        return Verified("the bound is the log-mean-exp over the samples", measured)
    return Finding(
        f"the bound is {excess:.3g} too high: it {slips[close[0]]} of its {a.samples} samples",
        help="subtract it: `torch.logsumexp(log_w, dim=0) - math.log(K)`",
        at=a.op.span,
        measured={**measured, "bound where every log-weight is 0": excess},
        severity=Severity.WARNING,
        causes=frozenset({"reconstruction", "kl"}),
    )


def _judge(a: Aggregation) -> tuple[str, str]:
    """What is wrong with a way to join the samples, and the cure; empty where it is right."""
    over_samples = "take the `logsumexp` over the axis of samples, then the mean over rows"
    joined = {
        "rows": f"the log-weights are joined over the {a.rows} rows, not the {a.samples} samples",
        "both": f"the log-weights are joined over all {a.rows} rows and {a.samples} samples",
        "units": f"the {a.samples} samples are joined for every unit by itself, not for a row",
        "strangers": f"the {a.samples} log-weights that are joined belong to different rows",
        "none": f"the {a.samples} samples are a mean of logs: the exponential is undone before it",
    }
    if a.axis == "units":
        return joined[a.axis], "sum the log-weights over units before the `logsumexp`"
    if a.axis == "strangers":
        return joined[a.axis], "regroup the log-weights in the order in which rows are repeated"
    if a.axis in joined:
        return joined[a.axis], over_samples
    if not a.rewards:
        cure = "use `log p(x|z) + log p(z) - log q(z|x)` as log-weights"
        return "the log-weights fall as the reconstruction gets better", cure
    if not a.detached:
        return (
            "the normalised weights of the samples carry a gradient of their own",
            "detach them: `torch.softmax(log_w, 0).detach()`",
        )
    return "", ""
