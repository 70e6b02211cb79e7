"""VAE709."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

from ...finding import Finding, Severity, Verified
from ...rule import Unavailable, rule

if TYPE_CHECKING:
    from ...examine.examination import Examination

SHARE = 0.001  # of the targets; single outliers are the data's affair
SQUASHED = frozenset({"sigmoid", "sigmoid_", "softmax"})  # before a loss for logits: VAE710's


@rule("VAE709", Severity.ERROR)
def output_range_unreachable(examination: Examination) -> Iterator[Finding | Verified]:
    """Targets lie outside the range that the output activation can reach.

    ## What it checks
    The closed range of the operation that makes the reconstruction (sigmoid, tanh, ReLU,
    softplus), with the numbers that are added to it or that it is multiplied by, against the
    targets where the loss compares them, or counts. Columns that were joined are judged apart.
    Before `binary_cross_entropy_with_logits` it is the range of the probabilities that counts:
    those of a ReLU's output are 0.5 and more.

    ## Why it matters
    A ReLU never gives a negative value and a sigmoid never 2: the loss keeps a floor that no
    training removes, and gradients push into the flat part of the activation.

    ## How to fix
    Drop or change the last activation, or scale the data into its range.

    ## False alarms
    A sigmoid and targets of exactly 0 and 1 are fine; linear outputs and the logits of classes are
    not judged, nor is a made-up batch, but for probabilities that cannot fall below 0.5: they are a
    *warning* then. A range wider than the data's is a *note*.
    """
    guessed = examination.subject.batch.guessed
    halved = [c for c in examination.comparisons if c.met and c.met != c.reach and c.met[0] == 0.5]
    if guessed and not halved:
        raise Unavailable("the batch was made up; supply --input to judge the data's range")
    for c in halved if guessed else examination.comparisons:
        if c.reach is None or c.met is None or c.swapped or math.isnan(sum(c.target)):
            continue
        logits = c.met != c.reach
        if logits and c.activation in SQUASHED:
            continue
        low, high = c.met
        as_ = " as probabilities" if logits else ""
        lies = f"[{c.target[0]:.3g}, {c.target[1]:.3g}]"
        data = "any below is out of reach" if guessed else f"the data lies in {lies}"
        if c.outside > SHARE:
            yield Finding(
                f"`{c.activation}` reaches [{low:.3g}, {high:.3g}]{as_}, {data}",
                help=f"hand the loss what `{c.activation}` was given"
                if logits
                else "change the last activation, or scale the data into its range",
                at=c.activated_at,
                measured={
                    "share of targets out of reach": c.outside,
                    "smallest target": c.target[0],
                    "largest target": c.target[1],
                },
                severity=Severity.WARNING if guessed else Severity.ERROR,
                causes=frozenset({"range"}),
            )
        elif c.activation.startswith("tanh") and c.target[0] >= 0 and not logits:
            yield Finding(
                f"`{c.activation}` reaches [-1, 1], {data} only",
                help="use a sigmoid, or scale the data to [-1, 1]",
                at=c.activated_at,
                measured={"smallest target": c.target[0], "largest target": c.target[1]},
                severity=Severity.NOTE,
                causes=frozenset({"range"}),
            )
        else:
            yield Verified(f"the data lies in the range of `{c.activation}`")
