"""VAE307."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ...finding import Finding, Severity, Verified, where
from ...rule import rule

if TYPE_CHECKING:
    from ...examine.examination import Examination


@rule("VAE307", Severity.ERROR, before=("VAE401", "VAE301", "VAE402", "VAE104", "VAE601", "VAE602"))
def noise_discarded(examination: Examination) -> Iterator[Finding | Verified]:
    """Noise is drawn for the latent and never reaches it.

    ## What it checks
    Draws shaped after the posterior's parameters that reach neither output nor loss, in a model
    whose reconstruction no noise reaches.

    ## Why it matters
    The sampling is written down but has no effect: `z = mu + std` beside an unused `eps`. The
    model is a deterministic autoencoder.

    ## How to fix
    Use the draw: `z = mu + eps * std`.

    ## False alarms
    An unused draw in a model whose latent is sampled properly (from a prior, say) is not
    reported.
    """
    decoding = examination.decoding
    if decoding.sampled:
        yield Verified("the noise drawn for the latent reaches the reconstruction")
        return
    dead = decoding.dead
    if dead and examination.anatomy.x_hat is not None:
        draw = dead[0]
        yield Finding(
            f"`{draw.name}` draws noise that never reaches the latent",
            help="use the draw in the sample: `z = mu + eps * std`",
            at=draw.op.span if draw.op else None,
            measured={"drawn numbers": draw.value.tensor.numel(), "draws that reach x_hat": 0},
            causes=decoding.causes | {"latent"},
        )
    elif decoding.dropped and any(f.decoder and not f.scale for f in decoding.fed):
        latent = examination.anatomy.latents[0]
        fed = next(f for f in decoding.fed if f.decoder)
        yield Finding(
            f"a sample is drawn and discarded: `{fed.path}` decodes the mean instead",
            help="decode the sample instead of the mean",
            at=fed.at,
            measured={"sample shape": list(latent.z.shape), "draws that reach x_hat": 0},
            notes=(f"the sample of {where(latent.meeting.span, fed.at)} is used by nothing",),
            causes=decoding.causes | {"latent"},
        )
