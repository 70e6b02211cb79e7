"""VAE702."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ...finding import Finding, Severity, Verified
from ...plot import unit_plot
from ...rule import Unavailable, rule

if TYPE_CHECKING:
    from ...examine.anatomy.latents import Latent
    from ...examine.examination import Examination


@rule("VAE702", Severity.WARNING, before=("VAE713",))
def kl_missing(examination: Examination) -> Iterator[Finding | Verified]:
    """The model samples, and no term of the loss pulls the posterior to a prior.

    ## What it checks
    With the decoder held fixed, the gradient of the user's loss at location and scale, near the
    prior and far outside any free-bits zone: exactly 0 everywhere. Of a latent whose posterior
    cannot be forced (a Dirichlet, say), that autograd knows no way from the loss to it but through
    what is decoded.

    ## Why it matters
    Without a KL the scale shrinks to nothing and the latents spread out: an autoencoder with
    noise, whose prior samples decode to nothing.

    ## How to fix
    Add the KL to the loss that is returned. A KL taken out with `.item()` or `.detach()` does not
    count.

    ## False alarms
    Regularisers that act on the sample instead (MMD, a discriminator) give a gradient and are not
    reported, nor is a posterior that no trainable parameter makes, nor a noisy layer of the
    decoder behind a latent that has a KL. A term that is there and
    multiplied by 0, as at the start of a warm-up, is a *note*; `beta=0` declares it, and where the
    weight rises as the step is taken once more there is nothing to say.
    """
    if examination.subject.beta == 0:
        raise Unavailable("the intended KL weight is declared to be 0")
    try:
        pulls = examination.require_pulls()
    except Unavailable:
        alone = examination.unpulled
        if not alone:
            raise
        yield from (_alone(examination, latent) for latent in alone)
        return
    charged = [d for d in pulls if not d.missing]
    for d in pulls:
        if d.missing and charged and not examination.carried(d, charged):
            continue
        if d.missing and not d.clamped and d.connected and examination.rises(d):
            yield Verified("a KL acts on the posterior whose weight rises from 0")
        elif d.missing and not d.clamped and d.connected:
            yield Finding(
                "a term of the loss pulls the posterior to a prior, with a weight of 0",
                help="raise the weight, or declare a warm-up with `beta=0`",
                at=d.at or d.sampled_at,
                measured={"gradient at the location": 0.0, "also at |mu| up to": 15.0},
                severity=Severity.NOTE,
                causes=frozenset({"latent", "kl"}),
            )
        elif d.missing and not d.clamped and d.trained:
            nats = examination.unit_kl(d.latent)
            left = examination.left_out_at(d.latent)
            yield Finding(
                "no term of the loss pulls the posterior to a prior",
                help="add the KL to the loss with its graph (no `.item()`, no `.detach()`)",
                at=left or examination.cut_at(d.latent) or d.at or d.sampled_at,
                measured={"gradient at the location": 0.0, "also at |mu| up to": 15.0},
                causes=frozenset({"latent", "kl"}),
                notes=("what is computed here of location and scale does not reach the loss",)
                if left
                else (),
                plots=(unit_plot("the KL that nothing in the loss lowers", nats),) if nats else (),
            )
        elif d.standard:
            yield Verified(f"a KL to {d.prior} acts on the posterior", {"weight a row": d.weight})


def _alone(examination: Examination, latent: Latent) -> Finding:
    return Finding(
        "no term of the loss pulls the posterior to a prior",
        help="add the KL to the loss with its graph (no `.item()`, no `.detach()`)",
        at=examination.left_out_at(latent) or examination.cut_at(latent) or latent.meeting.span,
        measured={"ways of the gradient to it beside x_hat": 0},
        causes=frozenset({"latent", "kl"}),
    )
