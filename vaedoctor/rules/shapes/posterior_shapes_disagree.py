"""VAE506."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ...finding import Finding, Severity, Verified
from ...rule import rule

if TYPE_CHECKING:
    from ...examine.examination import Examination


@rule("VAE506", Severity.ERROR, before=("VAE501", "VAE502", "VAE504", "VAE505", "VAE002"))
def posterior_shapes_disagree(examination: Examination) -> Iterator[Finding | Verified]:
    """Location and scale differ in shape, or were split along the batch axis.

    ## What it checks
    The shapes of the sampler's location and scale, and the chunk, split or slice they come from:
    both parts have to keep all rows of the batch. A scale of width 1 (isotropic) is legal.

    ## Why it matters
    Heads of unlike width broadcast into something nobody meant, or raise far from the mistake. A
    chunk along axis 0 takes the first half of the batch as means and the second half as log-
    variances.

    ## How to fix
    Split along the feature axis (`h.chunk(2, dim=-1)`) and give both heads the same width.

    ## False alarms
    None known: an isotropic or a constant scale is recognised.
    """
    found = examination.posterior_shapes
    for pair in found:
        where = f"`{pair.path}`" if pair.path else "the encoder"
        if pair.kind == "batch":
            message = f"the posterior of {where} is split along the batch axis"
            cure = "split along the feature axis: `chunk(2, dim=-1)`"
        else:
            message = f"location {list(pair.loc)} and scale {list(pair.scale)} differ in shape"
            cure = "give both heads the same width"
        yield Finding(
            message,
            help=cure,
            at=pair.at,
            measured={"location": list(pair.loc), "scale": list(pair.scale), "rows": pair.rows},
            causes=frozenset({pair.cause, "failure", "latent", "rows"}),
        )
    if not found and any(latent.scale is not None for latent in examination.require_latents()):
        yield Verified("location and scale have one shape")
