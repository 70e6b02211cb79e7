"""VAE304."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ...finding import Finding, Severity, Verified
from ...rule import Unavailable, rule

if TYPE_CHECKING:
    from ...examine.examination import Examination
    from ...examine.sampling.noisefamily import Misfit


@rule("VAE304", Severity.ERROR, before=("VAE303", "VAE311", "VAE701", "VAE202"))
def noise_not_gaussian(examination: Examination) -> Iterator[Finding | Verified]:
    """The sampler's noise is not standard normal where the KL is that of a Gaussian.

    ## What it checks
    The noise that meets location and scale is uniform (`rand_like`, also `2 * rand - 1`), Laplace
    or logistic, is Gaussian noise bent or shifted on its way (`eps.abs()`, `tanh(eps)`), or is
    drawn with another mean or standard deviation (`normal_(0, 0.1)`), while the isolated KL is
    that of a Gaussian with this location and scale. Where no loss is found, only uniform noise that
    never falls below zero is told, as a warning: it moves every sample to one side of its location.

    ## Why it matters
    `rand_like` has mean ½ and standard deviation 0.29: the sample is shifted by half a scale and
    too narrow, and samples from N(0, I) at generation never look like it.

    ## How to fix
    Draw `torch.randn_like(std)`.

    ## False alarms
    Uniform noise that is turned into Gumbel or into Laplace noise with its own KL, dequantisation,
    and posteriors of any family whose density is evaluated at the sample are not reported: the KL
    must be in closed form, or grow with the noise as a Gaussian density does. Clamped tails are
    too close to a Gaussian to be. A mere factor on the noise is VAE303's matter.
    """
    latents = examination.require_latents()
    found = examination.noise_misfits
    for misfit in found:
        yield Finding(
            _said(misfit),
            help="draw Gaussian noise: `torch.randn_like(std)`",
            at=misfit.at or misfit.latent.meeting.span,
            measured={
                "mean of the noise": misfit.mean,
                "its standard deviation": misfit.std,
                "smallest": misfit.smallest,
                "largest": misfit.largest,
            },
            causes=frozenset({"latent"}),
            severity=Severity.WARNING if misfit.kind == "one-sided" else Severity.ERROR,
        )
    if not found and examination.noise_bent:
        raise Unavailable("no term of the loss was found that takes the noise for Gaussian")
    if not found and any(x.family == "gaussian" for x in latents):
        yield Verified("the latent's noise is Gaussian")


def _said(misfit: Misfit) -> str:
    """What is wrong with the noise, as far as it was measured."""
    if misfit.kind == "moments":
        return (
            f"the noise is drawn with mean {misfit.mean:.3g} and standard deviation "
            f"{misfit.std:.3g} where the KL means 0 and 1"
        )
    if misfit.kind == "one-sided":
        return (
            f"`{misfit.drawn}` draws noise that is never negative (no loss was found that says "
            "what the KL takes it for)"
        )
    if misfit.kind == "shape":
        return (
            f"the noise has mean {misfit.mean:.3g} and standard deviation {misfit.std:.3g} "
            "where it enters a Gaussian posterior"
        )
    family = misfit.latent.family
    name = "a Laplace" if family == "laplace" else f"a {family}"
    if family == "uniform":
        return f"`{misfit.drawn}` draws uniform noise for a posterior whose KL is a Gaussian's"
    return f"the noise is {name} distribution's where the KL is a Gaussian's"
