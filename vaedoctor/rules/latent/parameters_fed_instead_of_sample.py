"""VAE401."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ...finding import Finding, Severity, Verified, where
from ...rule import Unavailable, rule

if TYPE_CHECKING:
    from ...examine.examination import Examination


@rule("VAE401", Severity.ERROR, before=("VAE301", "VAE402", "VAE403", "VAE104", "VAE601", "VAE602"))
def parameters_fed_instead_of_sample(examination: Examination) -> Iterator[Finding | Verified]:
    """A layer takes the posterior's parameters where the sample belongs.

    ## What it checks
    Every layer on the way from the heads to the reconstruction: whether its operand is the
    location or the scale itself (or both joined) rather than a sample made of them.

    ## Why it matters
    A layer added after the encoder has to work on `z`. On `mu`, or on `cat([mu, logvar])`, the
    model is deterministic: the KL shapes a distribution nobody samples, and the prior decodes to
    noise.

    ## How to fix
    Sample first and feed the sample to the layer: `self.linear(mu + std *
    torch.randn_like(std))`.

    ## False alarms
    *Error* only where no sample reaches the decoder; *warning* where the layer takes both. A
    decoder that starts with the mean alone is VAE301's. Layers on other ways (a classifier on
    `mu`) are not judged.
    """
    decoding = examination.decoding
    if decoding.heads is None:
        raise Unavailable(examination.no_latent)
    guilty = [fed for fed in decoding.fed if decoding.sampled or not fed.decoder]
    if decoding.elsewhere or not decoding.variational:
        guilty = [fed for fed in guilty if fed.scale]
    for fed in guilty[:1]:
        taken = ["the location"] * fed.location + ["the scale"] * fed.scale
        what = " and ".join(taken)
        beside = "as well as the sample" if decoding.sampled else "where the sample belongs"
        made = [x.meeting.span for x in examination.anatomy.latents[:1]]
        yield Finding(
            f"`{fed.path}` takes {what} of the posterior {beside}",
            help="feed it the sample: `mu + std * torch.randn_like(std)`",
            at=fed.at,
            measured={
                "input shape": list(fed.op.reads[0].shape),
                "samples that reach x_hat": len(examination.anatomy.sampled),
            },
            notes=tuple(f"a sample is made in {where(at, fed.at)}" for at in made),
            severity=Severity.WARNING
            if decoding.sampled or decoding.elsewhere or not decoding.variational
            else Severity.ERROR,
            causes=decoding.causes,
        )
    if not decoding.fed:
        yield Verified("the layers after the encoder take the sample, not its parameters")
