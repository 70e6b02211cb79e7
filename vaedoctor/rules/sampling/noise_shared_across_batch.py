"""VAE305."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ...finding import Finding, Severity, Verified
from ...rule import Unavailable, rule

if TYPE_CHECKING:
    from ...examine.examination import Examination


@rule("VAE305", Severity.WARNING, before=("VAE202",))
def noise_shared_across_batch(examination: Examination) -> Iterator[Finding | Verified]:
    """One draw of noise serves several rows of the batch.

    ## What it checks
    The noise that meets each sampler, spread to the sample's shape: whether all rows of the batch
    are bit-equal. Where a row has K samples: whether those are bit-equal. Where the loss holds the
    KL of independent units: whether one number is drawn for all units of a row.

    ## Why it matters
    Every row then gets the same perturbation, so the gradients of one batch share one sample of
    the noise and their variance does not shrink with the batch size. K samples that are one are
    worth one: an importance-weighted bound of them is the ordinary one. Units that share a draw
    move together, and the KL is that of another posterior than the one that is sampled.

    ## How to fix
    Draw noise of the sample's full shape: `torch.randn_like(std)`.

    ## False alarms
    Common random numbers are sometimes used on purpose, hence a warning. Where rows are not
    samples (a graph) declare `batch_axis=None`.
    """
    affine = [latent for latent in examination.require_latents() if latent.loc is not None]
    if not affine:
        raise Unavailable("no latent made as location + scale * noise")
    shared = [*examination.shared_noise, *examination.units_of_one_draw]
    for found in shared:
        latent = found.latent
        served = f"{found.rows} rows of the batch"
        if found.samples or found.units:
            several = f"{found.units} units" if found.units else f"{found.samples} samples"
            served = f"{several} of each row"
        yield Finding(
            f"`{latent.draw.name}` draws one noise for all {served}",
            help="draw noise of the sample's full shape: `torch.randn_like(std)`",
            at=latent.draw.op.span if latent.draw.op else latent.meeting.span,
            measured={"noise shape": list(found.drawn), "sample shape": list(latent.z.shape)},
            causes=frozenset({f"latent:{latent.z.index}"}),
        )
    if not shared:
        yield Verified(
            "every row gets its own noise", {"noise shape": list(affine[0].draw.value.shape)}
        )
