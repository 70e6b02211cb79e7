"""VAE301."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ...finding import Finding, Severity, Verified
from ...rule import Unavailable, rule

if TYPE_CHECKING:
    from ...examine.examination import Examination


@rule("VAE301", Severity.WARNING, before=("VAE104", "VAE403", "VAE601", "VAE602"))
def sample_missing(examination: Examination) -> Iterator[Finding | Verified]:
    """The model has location and scale heads, and the mean is decoded.

    ## What it checks
    In train mode no noise reaches the reconstruction although the forward pass computes a
    location and a scale of one shape and the reconstruction is computed from the location alone.
    Beside other samples: the loss reads both heads, and all that x_hat knows of x around the
    samples comes through that location. Or a softmax is decoded as it is, while the loss holds
    the exact KL of its probabilities to the uniform distribution.

    ## Why it matters
    Without a sample the model is an autoencoder with a penalty on an unused scale: the scale
    drifts to the prior's, the decoder never learns to cope with noise, and samples from the prior
    decode to nothing.

    ## How to fix
    Decode `mu + std * torch.randn_like(std)` in train mode.

    ## False alarms
    Decoding the mean is right in evaluation and in models whose training step samples elsewhere:
    where code of the class makes the sample in a branch or method that this pass does not run, it
    is a note, unless that branch is the one of evaluation mode.

    ## References
    Kingma and Welling, Auto-Encoding Variational Bayes, 2014, section 2.4.
    """
    decoding = examination.decoding
    if decoding.skipped is not None:
        yield Finding(
            f"`{decoding.skipped.path}` decodes the mean: no noise is drawn for one of the latents",
            help="decode `mu + std * torch.randn_like(std)` instead of the mean",
            at=decoding.skipped.at,
            measured={"draws that reach x_hat": len(examination.anatomy.sampled)},
            causes=decoding.causes,
        )
        return
    undrawn = examination.undrawn
    if undrawn is not None:
        yield Finding(
            "the probabilities themselves are decoded: no category is drawn from them",
            help="draw one: `F.gumbel_softmax(logits, tau)` instead of the softmax",
            at=undrawn.sampled_at,
            measured={"draws that reach x_hat": len(examination.anatomy.sampled)},
            notes=("the loss holds their KL to the uniform distribution",),
            causes=decoding.causes,
        )
        return
    if decoding.heads is None:
        raise Unavailable(examination.no_latent)
    if decoding.sampled:
        yield Verified("a sample reaches the reconstruction in train mode")
        return
    means = [fed for fed in decoding.fed if not fed.scale]
    if not means:
        return
    if not decoding.variational:
        raise Unavailable("nothing says that the second head is a scale; supply --objective")
    reversed_ = examination.samples_in_evaluation
    notes = ("another branch or method of the class samples",) if decoding.elsewhere else ()
    if reversed_:
        notes = ("in evaluation mode a sample is decoded: the two modes are the wrong way round",)
    yield Finding(
        f"`{means[0].path}` decodes the mean: no noise reaches the reconstruction in train mode",
        help="sample where `self.training` is true, and decode the mean where it is not"
        if reversed_
        else "decode `mu + std * torch.randn_like(std)` instead of the mean",
        at=means[0].at,
        measured={"draws that reach x_hat": 0},
        notes=notes,
        severity=Severity.NOTE if decoding.elsewhere and not reversed_ else Severity.WARNING,
        causes=decoding.causes,
    )
