"""VAE720."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ...finding import Finding, Severity, Verified
from ...rule import Unavailable, rule

if TYPE_CHECKING:
    from ...examine.examination import Examination


@rule("VAE720", Severity.ERROR, before=("VAE703", "VAE707"))
def importance_weights_misaggregated(examination: Examination) -> Iterator[Finding | Verified]:
    """The importance-weighted bound is not the log-mean-exp over the samples.

    ## What it checks
    Where z has an axis of K samples and the loss takes a `logsumexp` of one number per sample
    and row: the loss's gradient at these log-weights is minus their softmax over the axis that
    is joined, which has to be that of the samples; and the log-weights rise as the
    reconstruction gets better.

    ## Why it matters
    Over the batch's axis the rows compete with each other, and only the easiest one trains.
    With the sign inside the `logsumexp` the worst sample counts.

    ## How to fix
    `-(torch.logsumexp(log_w, dim=0) - math.log(K)).mean()` for `log_w` of shape [K, B].

    ## False alarms
    A mean of log-weights is the ordinary bound with K samples and is fine. Tempered, doubly
    reparametrised and truncated variants have another gradient and are not judged, nor is
    K equal to the batch size.

    ## References
    Burda, Grosse and Salakhutdinov, Importance Weighted Autoencoders, 2016, equation 8.
    """
    if examination.composed:
        raise Unavailable("no objective given or found; supply --objective")
    examination.require_latents()
    if not examination.aggregations:
        raise Unavailable("no log-sum-exp over importance weights found")
    for a in examination.aggregations:
        measured = {"samples": a.samples, "rows": a.rows}
        if a.axis == "rows":
            said = f"the log-weights are joined over the {a.rows} rows, not the {a.samples} samples"
            cure = "take the `logsumexp` over the axis of samples, then the mean over rows"
        elif not a.rewards:
            said = "the log-weights fall as the reconstruction gets better"
            cure = "use `log p(x|z) + log p(z) - log q(z|x)` as log-weights"
        else:
            yield Verified("the bound is the log-mean-exp over the samples", measured)
            continue
        yield Finding(
            said,
            help=cure,
            at=a.op.span,
            measured=measured,
            causes=frozenset({"reconstruction", "kl"}),
        )
