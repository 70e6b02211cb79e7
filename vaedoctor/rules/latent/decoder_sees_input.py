"""VAE403."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ...finding import Finding, Severity, Verified
from ...rule import rule

if TYPE_CHECKING:
    from ...examine.examination import Examination


@rule("VAE403", Severity.WARNING)
def decoder_sees_input(examination: Examination) -> Iterator[Finding | Verified]:
    """The reconstruction depends on the input around the latent.

    ## What it checks
    The step is run again with every sample held fixed, and x_hat is differentiated at x. Whatever
    arrives came around the bottleneck. Of a quantised model the codes are held, and with them what
    does not move with x then: the straight-through step. Of a sequence with one latent a step of x
    is exchanged as well: the scores of that very step, where the loss compares them, stay where
    the decoder is given earlier steps only.

    ## Why it matters
    A decoder that sees x has no reason to use z: the reconstruction is perfect, the KL falls to
    0, and samples from the prior mean nothing.

    ## How to fix
    Remove the connection from x (or the encoder's features) to the decoder.

    ## False alarms
    Declared conditions are allowed (`conditions=`), other arguments of `forward` are not x, all
    stochastic nodes of a hierarchy are held, and autoregressive decoders that see only earlier
    steps, or channels, are recognised, as are flows that read x, one number a row (a library
    size), class probabilities that stand in for a label, and masks that show the decoder no
    entry that the loss compares. A summary of x that is smaller than the codes (a speaker's
    vector) is not judged, nor a smaller picture of x made without weights (its grey, a coarse
    version), nor noise in their place, nor a denoiser, which is shown x under noise of a drawn
    level. A residual connection is an *error* only if x itself is added to the output.
    """
    pinned = examination.pinned
    if pinned.answers is not None and pinned.answers.share == 0:
        yield Verified("the decoder sees no step of x that it is still to guess")
    elif pinned.statistic:
        yield Verified("beside the sample x_hat knows one number a row of x, such as its sum")
    elif pinned.classified:
        yield Verified("beside the sample x_hat knows the classes that a softmax guesses from x")
    elif pinned.leak == 0:
        yield Verified("x_hat knows x only through the sample", {"d x_hat / d x": 0.0})
    elif pinned.causal:
        yield Verified("the decoder sees earlier steps of x only (autoregressive)")
    elif pinned.answers is not None and pinned.answers.share:
        yield Finding(
            "the decoder sees the very steps of x that it is to guess",
            help="give it earlier steps only: `x[:, :-1]` goes in, `x[:, 1:]` is the target",
            at=pinned.answers.at.span,
            measured={"steps whose own score moves with them, z held": pinned.answers.share},
            causes=frozenset({"latent"}),
        )
    elif pinned.apart:
        yield Verified("the loss compares no entry of x that the decoder sees")
    else:
        way = f" through `{pinned.through}`" if pinned.through else ""
        yield Finding(
            f"x_hat depends on x around the latent{way}",
            help="remove the connection from the input to the decoder, or declare it a condition",
            at=pinned.merge.span if pinned.merge else None,
            measured={"d x_hat / d x with z held": pinned.leak, "identity": pinned.identity},
            severity=Severity.ERROR if pinned.identity else Severity.WARNING,
            causes=frozenset({"latent"}),
        )
