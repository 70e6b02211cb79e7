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
LOGITS = frozenset({"binary_cross_entropy_with_logits", "cross_entropy"})


@rule("VAE709", Severity.ERROR)
def output_range_unreachable(examination: Examination) -> Iterator[Finding | Verified]:
    """Targets lie outside the range that the output activation can reach.

    ## What it checks
    The closed range of the operation that makes the reconstruction (sigmoid, tanh, ReLU,
    softplus), with the numbers that are added to it or that it is multiplied by, against the
    targets where the loss compares them, or counts. Columns that were joined are judged apart.

    ## Why it matters
    A ReLU never gives a negative value and a sigmoid never 2: the loss keeps a floor that no
    training removes, and gradients push into the flat part of the activation.

    ## How to fix
    Drop or change the last activation, or scale the data into its range.

    ## False alarms
    A sigmoid and targets of exactly 0 and 1 are fine; linear outputs and logits are not judged,
    nor is a made-up batch. A range wider than the data's is a *note*.
    """
    if examination.subject.batch.guessed:
        raise Unavailable("the batch was made up; supply --input to judge the data's range")
    for c in examination.comparisons:
        if c.reach is None or c.swapped or c.op.name in LOGITS or math.isnan(sum(c.target)):
            continue
        low, high = c.reach
        data = f"[{c.target[0]:.3g}, {c.target[1]:.3g}]"
        if c.outside > SHARE:
            yield Finding(
                f"`{c.activation}` reaches [{low:g}, {high:g}], the data lies in {data}",
                help="change the last activation, or scale the data into its range",
                at=c.activated_at,
                measured={
                    "share of targets out of reach": c.outside,
                    "smallest target": c.target[0],
                    "largest target": c.target[1],
                },
                causes=frozenset({"range"}),
            )
        elif c.activation.startswith("tanh") and c.target[0] >= 0:
            yield Finding(
                f"`{c.activation}` reaches [-1, 1], the data lies in {data} only",
                help="use a sigmoid, or scale the data to [-1, 1]",
                at=c.activated_at,
                measured={"smallest target": c.target[0], "largest target": c.target[1]},
                severity=Severity.NOTE,
                causes=frozenset({"range"}),
            )
        else:
            yield Verified(f"the data lies in the range of `{c.activation}`")
