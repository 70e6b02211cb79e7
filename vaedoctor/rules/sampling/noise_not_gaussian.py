"""VAE304."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ...finding import Finding, Severity, Verified
from ...rule import rule

if TYPE_CHECKING:
    from ...examine.examination import Examination


@rule("VAE304", Severity.ERROR, before=("VAE303", "VAE701", "VAE202"))
def noise_not_gaussian(examination: Examination) -> Iterator[Finding | Verified]:
    """Uniform noise enters the sampler where the KL is that of a Gaussian.

    ## What it checks
    The draw that enters a sampler affinely, unchanged, is uniform (`rand_like`, `uniform_`),
    while the isolated KL is that of a Gaussian with this location and scale.

    ## Why it matters
    `rand_like` has mean ½ and standard deviation 0.29: the sample is shifted by half a scale and
    too narrow, and samples from N(0, I) at generation never look like it.

    ## How to fix
    Draw `torch.randn_like(std)`.

    ## False alarms
    Uniform noise that is turned into Gumbel, Laplace or logistic noise, dequantisation, and
    uniform posteriors without a Gaussian KL are not reported.
    """
    latents = examination.require_latents()
    uniform = [x for x in latents if x.family == "uniform"]
    for latent in uniform:
        d = examination.divergence_of(latent)
        if d is None or not d.standard:
            continue
        draw = latent.draw.op
        noise = latent.draw.value.tensor if draw is None or draw.noise is None else draw.noise
        yield Finding(
            f"`{latent.draw.name}` draws uniform noise for a posterior whose KL is a Gaussian's",
            help="draw Gaussian noise: `torch.randn_like(std)`",
            at=draw.span if draw is not None else latent.meeting.span,
            measured={
                "mean of the noise": float(noise.double().mean()),
                "smallest": float(noise.min()),
                "largest": float(noise.max()),
            },
            causes=frozenset({"latent"}),
        )
    if not uniform and any(x.family == "gaussian" for x in latents):
        yield Verified("the latent's noise is Gaussian")
