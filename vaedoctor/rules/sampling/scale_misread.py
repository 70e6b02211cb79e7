"""VAE303."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ...finding import Curve, Finding, Plot, Severity, Verified, where
from ...rule import Unavailable, rule

if TYPE_CHECKING:
    from ...examine.examination import Examination
    from ...examine.objective.curves import KLCurve

SLIP = 0.01


@rule("VAE303", Severity.ERROR, before=("VAE701", "VAE311"))
def scale_misread(examination: Examination) -> Iterator[Finding | Verified]:
    """The sampler's scale and the scale that the KL means disagree.

    ## What it checks
    The two heads are forced to known values and the noise to +1 and -1, which gives the sampler's
    exact scale. The decoder is held fixed, so that the loss's gradient at the scale head is the
    KL's; it fits the KL of another standard deviation than the one that is sampled.

    ## Why it matters
    A log-variance used as `exp(logvar)`, a raw head used as standard deviation, or a factor ½
    applied twice samples with the wrong width. The KL then shapes a distribution that nobody
    samples: blurred reconstructions, wrong likelihoods, no error.

    ## How to fix
    Use one meaning in both places: `std = torch.exp(0.5 * logvar)` for a log-variance.

    ## False alarms
    Judged by agreement of sampler and loss alone: log-std, softplus or variance heads are fine
    when both use them so. Beside a learned Gaussian prior the KL has to be exactly that of
    a power of the sampled scale, and the model has to compute the prior's scale that this gives.
    Other priors are recognised by an uneven weight; beside these it is the noise itself that
    (z - m)² / σ² has to be, entry by entry. Before a flow log s is counted another
    number of times than the prior and the log-determinant are: an error at twice or half, else a
    warning.

    ## References
    Kingma and Welling, Auto-Encoding Variational Bayes, 2014, appendix B.
    """
    judged = examination.require_divergences()
    wrong = [d for d in judged if d.judgeable and not d.exact and d.meaning]
    for d in wrong:
        sampled = " and ".join(f"{abs(s.scale):.3g}" for s in d.settings)
        meant = " and ".join(f"{abs(m):.3g}" for m in d.meant)
        heads = " and ".join(f"{s.head:g}" for s in d.settings)
        curve = examination.kl_curve(d)
        yield Finding(
            f"the sampler's scale is {sampled} where the KL means {meant}",
            help=f"sample with the scale that the KL means, `{d.meaning}`, or change the KL",
            at=d.sampled_at,
            measured={
                "scale head": [s.head for s in d.settings],
                "sampled scale": [s.scale for s in d.settings],
                "scale in the KL": list(d.meant),
                "R": list(d.ratios),
            },
            notes=(f"with the scale head `h` forced to {heads}; the KL fits {d.meaning}",),
            causes=frozenset({"latent", "scale"}),
            plots=(_plot(curve, d.meaning),) if curve is not None else (),
        )
    densities = [*_densities(examination), *_transported(examination)]
    yield from densities
    learned = list(_learned(examination))
    yield from (f for f in learned if f.at not in {d.sampled_at for d in wrong})
    if not (densities or learned or any(d.judgeable for d in judged)):
        learned = list(_residuals(examination))
        yield from learned
    known = [*examination.densities, *examination.learned_priors, *densities, *learned]
    if not known and not any(d.judgeable for d in judged) and not examination.residuals:
        raise Unavailable("the loss holds no KL, density or distance whose scale could be read")
    if not wrong and not learned and any(d.judgeable and d.exact for d in judged):
        low, high = judged[0].settings
        yield Verified(
            "sampler and KL mean the same scale",
            {"R": [low.ratio, high.ratio], "scale": [low.scale, high.scale]},
        )


def _densities(examination: Examination) -> Iterator[Finding]:
    """Log q of another scale than the sample's, whatever the prior is."""
    for q in (*examination.densities.values(), *examination.proposals):
        if q.apart:
            sampled = " and ".join(f"{abs(s):.3g}" for s in q.sampled)
            yield Finding(
                f"the sampler's scale is {sampled} where log q in the loss means "
                f"{q.meant[0]:.3g} and {q.meant[1]:.3g}",
                help="use one standard deviation in the sampler and in log q",
                at=q.sampled_at,
                measured={"sampled scale": [*q.sampled], "scale in log q": [*q.meant]},
                causes=frozenset({"latent", "scale"}),
            )


def _transported(examination: Examination) -> Iterator[Finding]:
    """Log q of another power of the scale than the sample's, before a flow that is counted right.

    Twice or half is a log-variance taken for a log-deviation; else it may be a weight.
    """
    for t in examination.transports:
        if t.scales:
            slip = min(abs(t.scales - 2), abs(t.scales - 0.5)) < SLIP
            yield Finding(
                f"log q in the loss means the sampler's scale to the power of {t.scales:.3g}",
                help="use one standard deviation in the sampler and in log q",
                at=t.latent.meeting.span,
                measured={"weight of the prior": t.prior, "weight of log |det J|": t.log_det},
                notes=("both are relative to the weight of log q of the sample",),
                severity=Severity.ERROR if slip else Severity.WARNING,
                causes=frozenset({"latent", "scale"}),
            )


def _learned(examination: Examination) -> Iterator[Finding]:
    """KLs to a learned prior that mean a power of the sampler's scale."""
    for p in examination.learned_priors:
        if p.misread:
            yield Finding(
                f"the KL means the sampler's scale to the power of {p.misread:.3g}",
                help="sample with the scale that the KL means, or change the KL",
                at=p.sampled_at,
                measured={**p.powers, "means' weight / scales' weight": p.factor},
                causes=frozenset({"latent", "scale"}),
            )


def _residuals(examination: Examination) -> Iterator[Finding]:
    """Squared distances that the loss divides by another scale, in a loss of any form."""
    places = {d.latent.z.index: d.sampled_at for d in examination.require_divergences()}
    for r in examination.residuals:
        if r.misread:
            at = places.get(r.latent.z.index) or r.latent.meeting.span
            yield Finding(
                f"log q in the loss means the sampler's scale to the power of {r.meant:.3g}",
                help="use one standard deviation in the sampler and in log q",
                at=at,
                measured={"(z - m)² as weighed": f"eps² · scale^{r.power:.3g}"},
                notes=(f"the squared distance is weighed in {where(r.at, at)}",),
                causes=frozenset({"latent", "scale"}),
            )


def _plot(curve: KLCurve, meaning: str) -> Plot:
    meant = Curve(f"meant by the KL, {meaning}", curve.meant, True)
    return Plot(
        "the sampler's scale against the scale that the KL means",
        "scale head `h`",
        "standard deviation",
        curve.heads,
        (Curve("sampled", curve.scale), meant),
    )
