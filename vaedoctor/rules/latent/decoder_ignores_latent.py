"""VAE402."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ...finding import Finding, Severity, Verified, where
from ...plot import swap_plot
from ...rule import Unavailable, rule

if TYPE_CHECKING:
    from ...examine.examination import Examination


@rule("VAE402", Severity.ERROR, before=("VAE104", "VAE601", "VAE602"))
def decoder_ignores_latent(examination: Examination) -> Iterator[Finding | Verified]:
    """The reconstruction does not depend on the latent at all.

    ## What it checks
    Whether any chain of operations leads from the sample or the posterior's parameters to the
    reconstruction of the recorded step. Only values count: `zeros_like(z)` takes the shape of z.
    Where codes are looked up: whether any leads from x to it in evaluation mode, and whether
    another x changes it.

    ## Why it matters
    The decoder works from something else, usually the encoder's hidden features: reconstructions
    are perfect, the latent is idle, and samples from the prior change nothing.

    ## How to fix
    Feed the sample to the decoder.

    ## False alarms
    A zero-initialised decoder is linked to z by its operations and is not reported. Without the
    user's loss x_hat is a guess: nothing is judged where layers make another output of z.
    """
    if (codes := examination.undecoded) is not None:
        yield Finding(
            "the reconstruction does not depend on the codes, nor on x",
            help="feed the codes to the decoder",
            at=codes.at,
            measured={"change of x_hat with another x": 0.0},
            notes=(f"the codes are chosen in {where(codes.chosen_at, codes.at)}",),
            causes=frozenset({"x_hat"}),
        )
        return
    decoding = examination.decoding
    examination.require_latents()
    if decoding.sampled:
        yield Verified("the reconstruction depends on the sample")
    elif decoding.blind is not None:
        if examination.composed and examination.decoded_otherwise:
            raise Unavailable("layers make another output of the latent; supply --objective")
        swaps = examination.swaps
        made, at = examination.anatomy.latents[0].meeting.span, examination.ignored_at
        yield Finding(
            "the reconstruction does not depend on the latent",
            help="feed the sample to the decoder",
            at=at,
            measured={"latents": len(examination.anatomy.latents), "latents that reach x_hat": 0},
            notes=(f"the sample is made in {where(made, at)}",),
            causes=decoding.causes,
            plots=(swap_plot(swaps.another_row, swaps.prior),) if swaps else (),
        )
