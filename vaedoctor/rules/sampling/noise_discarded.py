"""VAE307."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ...finding import Finding, Severity, Verified, where
from ...rule import rule

if TYPE_CHECKING:
    from ...examine.examination import Examination


@rule(
    "VAE307",
    Severity.ERROR,
    before=("VAE401", "VAE301", "VAE402", "VAE403", "VAE104", "VAE601", "VAE602"),
)
def noise_discarded(examination: Examination) -> Iterator[Finding | Verified]:
    """Noise is drawn for the latent and never reaches it.

    ## What it checks
    Draws shaped after the posterior's parameters that reach neither output nor loss, in a model
    whose reconstruction no noise reaches; and samples that reach neither reconstruction nor loss
    while a layer takes their location.

    ## Why it matters
    The sampling is written down but has no effect: `z = mu + std` beside an unused `eps`. The
    model is a deterministic autoencoder.

    ## How to fix
    Use the draw: `z = mu + eps * std`.

    ## False alarms
    An unused draw in a model whose latent is sampled properly (from a prior, say) is not
    reported.
    """
    decoding, discarded = examination.decoding, examination.discarded
    dead = decoding.dead
    if not decoding.sampled and dead and examination.anatomy.x_hat is not None:
        draw = dead[0]
        yield Finding(
            f"`{draw.name}` draws noise that never reaches the latent",
            help="use the draw in the sample: `z = mu + eps * std`",
            at=draw.op.span if draw.op else None,
            measured={"drawn numbers": draw.value.tensor.numel(), "draws that reach x_hat": 0},
            causes=decoding.causes | {"latent"},
        )
    elif discarded is not None:
        made, fed_at = discarded.latent.meeting.span, discarded.fed_at
        lost = "is not decoded" if discarded.scored else "reaches neither x_hat nor the loss"
        notes = [f"the sample of {where(made, discarded.at)} {lost}"]
        if fed_at != discarded.at:
            notes.append(f"the mean is handed over in {where(fed_at, discarded.at)}")
        yield Finding(
            f"a sample is drawn and discarded: `{discarded.path}` takes the mean instead",
            help=f"give `{discarded.path}` the sample instead of the mean",
            at=discarded.at,
            measured={
                "sample shape": list(discarded.latent.z.shape),
                "draws that reach x_hat": len(examination.anatomy.sampled),
            },
            notes=tuple(notes),
            causes=decoding.causes | {"latent"},
        )
    elif decoding.sampled:
        yield Verified("the noise drawn for the latent reaches the reconstruction")
