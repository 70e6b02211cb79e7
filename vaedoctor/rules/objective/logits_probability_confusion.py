"""VAE710."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ...finding import Finding, Severity, Verified, where
from ...rule import rule

if TYPE_CHECKING:
    from ...examine.examination import Examination

LOGITS = {
    "binary_cross_entropy_with_logits": "`binary_cross_entropy`",
    "cross_entropy": "`nll_loss` of its logarithm",
}
"""The losses that expect logits, and what takes probabilities instead."""


@rule("VAE710", Severity.ERROR, before=("VAE002", "VAE605", "VAE709", "VAE707"))
def logits_probability_confusion(examination: Examination) -> Iterator[Finding | Verified]:
    """A loss for logits gets probabilities, or its arguments are swapped.

    ## What it checks
    What made the first operand of `binary_cross_entropy_with_logits` and `cross_entropy` (a
    sigmoid or softmax already?), and whether the input stands where the prediction belongs. What
    `nll_loss` and the distributions of torch are given: the classes' probabilities, or a layer's
    output, where logarithms of probabilities belong; a layer's output outside [0, 1] as `probs`.

    ## Why it matters
    A second sigmoid squeezes outputs into [0.5, 0.73], so the loss never reaches its floor.
    Swapped arguments give a loss with another minimum and gradients of the wrong term.

    ## How to fix
    Remove the sigmoid (or use `binary_cross_entropy`); put the prediction first, the target
    second.

    ## False alarms
    Symmetric losses (`mse_loss`) are not judged.
    """
    right = set()
    for c in examination.comparisons:
        if c.swapped:
            yield Finding(
                f"`{c.op.name}` gets the input as prediction and the reconstruction as target",
                help="swap the arguments: the prediction first, the target second",
                at=c.op.span,
                measured={"operands": 2},
                causes=frozenset({"failure", "reconstruction"}),
            )
        elif c.op.name in LOGITS and c.activation in ("sigmoid", "sigmoid_", "softmax"):
            yield Finding(
                f"`{c.op.name}` expects logits and gets the output of `{c.activation}`",
                help=f"remove the `{c.activation.strip('_')}`, or use {LOGITS[c.op.name]}",
                at=c.op.span,
                measured={"logits between": list(c.reach) if c.reach else None},
                notes=(f"`{c.activation}` is applied in {where(c.activated_at, c.op.span)}",),
                causes=frozenset({"reconstruction", "range"}),
            )
        elif c.op.name in LOGITS:
            right.add(c.op.name)
    for s in examination.scored:
        yield Finding(
            f"`{s.name}` expects {s.wants} and gets {s.gets}",
            help=s.cure,
            at=s.op.span,
            measured={"smallest": s.least, "largest": s.most},
            causes=frozenset({"reconstruction", "range"}),
        )
    for name in sorted(right):
        yield Verified(f"`{name}` gets logits")
