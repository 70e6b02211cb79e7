"""VAE708."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ...finding import Finding, Severity
from ...rule import Unavailable, rule

if TYPE_CHECKING:
    from ...examine.examination import Examination

BERNOULLI_LOSSES = frozenset({"binary_cross_entropy", "binary_cross_entropy_with_logits"})


@rule("VAE708", Severity.ERROR, before=("VAE002", "VAE709"))
def target_outside_range(examination: Examination) -> Iterator[Finding]:
    """A binary cross-entropy gets targets outside [0, 1].

    ## What it checks
    The smallest and largest target of every binary cross-entropy in the loss.

    ## Why it matters
    Outside [0, 1] the loss has no minimum: with logits it falls without bound, without logits it
    raises (on a GPU as a device-side assert).

    ## How to fix
    Scale the data to [0, 1], or use a Gaussian likelihood (`mse_loss`).

    ## False alarms
    None known for these losses. With a made-up batch nothing is judged.
    """
    if examination.subject.batch.guessed:
        raise Unavailable("the batch was made up; supply --input to judge the data's range")
    found = [
        c
        for c in examination.comparisons
        if c.op.name in BERNOULLI_LOSSES and not c.swapped and _outside(c.target)
    ]
    for c in found:
        yield Finding(
            f"`{c.op.name}` gets targets from {c.target[0]:.3g} to {c.target[1]:.3g}",
            help="scale the data to [0, 1], or use `mse_loss`",
            at=c.op.span,
            measured={"smallest target": c.target[0], "largest target": c.target[1]},
            causes=frozenset({"failure", "range"}),
        )
    term = None if found else examination.likelihood_or_none
    if term is not None and term.kind.startswith("Bernoulli") and _outside(term.target):
        low, high = term.target
        yield Finding(
            f"a Bernoulli's cross-entropy gets targets from {low:.3g} to {high:.3g}",
            help="scale the data to [0, 1], or use `mse_loss`",
            at=examination.compared_at,
            measured={"smallest target": low, "largest target": high},
            causes=frozenset({"failure", "range"}),
        )


def _outside(target: tuple[float, float]) -> bool:
    return target[0] < 0 or target[1] > 1
