"""VAE712."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ...finding import Finding, Severity, Verified, where
from ...plot import unit_plot
from ...rule import Unavailable, rule

if TYPE_CHECKING:
    from ...examine.examination import Examination


@rule("VAE712", Severity.ERROR, before=("VAE702",))
def kl_on_wrong_tensor(examination: Examination) -> Iterator[Finding | Verified]:
    """A stochastic node that reaches the decoder has no KL term.

    ## What it checks
    In a model with several latents, the isolated KL of each: one of them gets no gradient around
    the decoder, near the prior and far from it, while another does. In a hierarchy also an upper
    latent whose sample only feeds the prior of another: its location and scale reach the loss by
    that sample alone.

    ## Why it matters
    The latent without a term is free to carry everything, so the others are left to the prior:
    the KL is computed for something else than what is decoded.

    ## How to fix
    Add the KL of this latent's location and scale to the loss.

    ## False alarms
    Noise without an encoder-made location and scale (dropout, decoder noise) is no latent here.
    Nor is one needed where all of x has passed a latent that has a KL: a decoder whose weights or
    layers are drawn, a prior that is sampled on its way down.
    """
    judged = examination.require_pulls()
    upper = examination.unscored
    for latent in upper:
        yield Finding(
            "an upper latent, which feeds the prior of another, has no KL term in the loss",
            help="add the KL of this latent's location and scale to the loss",
            at=examination.loss_at or latent.meeting.span,
            measured={"ways to the loss beside the sample": 0},
            causes=frozenset({"latent", "kl"}),
            notes=(f"it is sampled in {where(latent.meeting.span, examination.loss_at)}",),
        )
    if upper:
        return
    without = [d for d in judged if d.missing and not d.clamped and not d.connected]
    charged = [d for d in judged if not d.missing]
    missing = [d for d in without if examination.carried(d, charged)]
    if len(judged) < 2:
        raise Unavailable("the model has one latent (VAE702 judges it)")
    for d in missing if len(missing) < len(judged) else []:
        nats = examination.unit_kl(d.latent)
        yield Finding(
            "a latent that reaches the decoder has no KL term in the loss",
            help="add the KL of this latent's location and scale to the loss",
            at=examination.cut_at(d.latent) or examination.loss_at or d.sampled_at,
            measured={"latents": len(judged), "without a KL": len(missing)},
            causes=frozenset({"latent", "kl"}),
            notes=(f"it is sampled in {where(d.sampled_at, examination.loss_at)}",),
            plots=(unit_plot("the KL that nothing in the loss lowers", nats),) if nats else (),
        )
    if not without:
        yield Verified("every latent has a KL term", {"latents": len(judged)})
