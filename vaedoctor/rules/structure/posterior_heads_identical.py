"""VAE106."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ...finding import Finding, Severity, Verified, where
from ...rule import rule

if TYPE_CHECKING:
    from ...examine.examination import Examination


@rule("VAE106", Severity.ERROR, before=("VAE105", "VAE104"))
def posterior_heads_identical(examination: Examination) -> Iterator[Finding | Verified]:
    """Location and scale of the posterior are one tensor.

    ## What it checks
    Whether the raw outputs of the two heads are bit-equal, or overlap in memory. Two halves of
    one chunked, split or sliced layer are right. Where several experts are merged, whether what
    the location alone is merged from is bit-equal to something that the scale is merged from.

    ## Why it matters
    The scale then follows the location: the posterior can widen only by moving its mean. The KL
    still falls, so the loss curve looks normal while the latent collapses.

    ## How to fix
    Give the scale its own layer (often one is there and never called), or slice the second half.

    ## False alarms
    Two zero-initialised heads are equal at step 0 and are not reported; sharing a trunk is fine.
    A sampler that rejects draws reads one parameter several times and is not judged.
    """
    found = examination.identical_heads
    for pair in found:
        idle = [b.path for b in examination.census.idle if any(map(b.like, pair.layers))]
        meant = f"call `{idle[0]}` for the scale" if idle else "give the scale a layer of its own"
        if pair.halves:
            meant = "take two halves that share nothing: `mu, logvar = h.chunk(2, dim=1)`"
        overlap = "are the same tensor" if pair.shared == 1 else "overlap in memory"
        yield Finding(
            f"location and scale of the posterior {overlap}",
            help=meant,
            at=pair.at,
            measured={"shared share": pair.shared, "shape": list(pair.loc.value.shape)},
            notes=(
                f"location from {where(pair.loc.op.span, pair.at)}",
                f"scale from {where(pair.scale.op.span, pair.at)}",
            ),
            causes=frozenset({"latent", *(f"layer:{path}" for path in idle)}),
        )
    if not found and any(latent.scale_head for latent in examination.anatomy.latents):
        yield Verified("location and scale are two different tensors")
