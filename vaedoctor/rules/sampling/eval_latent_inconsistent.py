"""VAE309."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ...finding import Finding, Severity, Verified
from ...rule import rule

if TYPE_CHECKING:
    from ...examine.examination import Examination


@rule("VAE309", Severity.ERROR)
def eval_latent_inconsistent(examination: Examination) -> Iterator[Finding | Verified]:
    """In evaluation mode the latent is neither the location nor a sample.

    ## What it checks
    Both modes run with all noise at 0. What enters the decoder in evaluation mode must then be the
    location: equal to it where it is decoded as it is, differentiable at the location head and
    without a gradient at the scale head.

    ## Why it matters
    A decoder trained on samples around the location is given points it never saw, such as
    `mu + std`: reconstructions are shifted, in inference only.

    ## How to fix
    Return the location, or a sample `mu + std * torch.randn_like(std)`, in evaluation mode.

    ## False alarms
    Sampling in evaluation mode is right. What happens to the latent in both modes (a flow, a
    projection) is not judged; nor is a decoder that takes the scale in training as well, nor the
    mean of a curved function of the sample, as `LogNormal.mean` is.
    """
    found = examination.eval_latents
    wrong = [latent for latent in found if not latent.consistent]
    for bad in wrong[:1]:
        if bad.by_scale > 0:
            what = "moves with the scale although the noise is 0"
        elif bad.by_loc == 0:
            what = "does not depend on the location"
        else:
            what = "is not the location although the noise is 0"
        shift = {} if bad.shift is None else {"|z - location| / |location|": bad.shift}
        yield Finding(
            f"in evaluation mode the latent {what}",
            help="return the location, or a sample `mu + std * torch.randn_like(std)`",
            at=bad.at,
            measured={**shift, "dz/d scale head": bad.by_scale, "dz/d location head": bad.by_loc},
            causes=frozenset({f"latent:{bad.latent.z.index}", "latent"}),
        )
    if not wrong:
        yield Verified(
            "in evaluation mode the latent is the location, or a sample around it",
            {"dz/d scale head at noise 0": 0.0},
        )
