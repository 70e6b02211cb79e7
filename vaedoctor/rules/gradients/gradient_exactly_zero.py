"""VAE602."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ...finding import Finding, Severity, Verified
from ...rule import Unavailable, rule

if TYPE_CHECKING:
    from ...examine.examination import Examination

_LAYERS = frozenset(
    "lstm gru rnn_tanh rnn_relu lstm_cell gru_cell rnn_tanh_cell rnn_relu_cell".split()
)
_STEPS = frozenset("round round_ sign sign_ sgn floor floor_ ceil ceil_ trunc trunc_".split())
"""Constant between their steps: the derivative is 0 wherever it exists."""


@rule("VAE602", Severity.WARNING)
def gradient_exactly_zero(examination: Examination) -> Iterator[Finding | Verified]:
    """A gradient exists and is exactly zero on several batches.

    ## What it checks
    Parameters whose gradient is identically 0 in one training step, on other batches, and after
    every weight was nudged a little. The last run tells a dead path from a zero-initialised
    layer. A softmax over a single entry is 1 whatever the entry is; with a made-up batch that
    says nothing about the model, and is not judged.

    ## Why it matters
    A dead ReLU, a saturated activation or a draw such as `torch.normal(mu, std)` passes a
    gradient that is present and always 0: nothing raises, and the layer never moves.

    ## How to fix
    Look at the operation named: lower the bias or the input scale that saturates it. A recurrent
    decoder that is only fed zeros trains no input weights: give it the latent at every step.
    `round` and `sign` are constant between their steps: leave them out, or pass the gradient
    straight through.

    ## False alarms
    Zero-initialised output layers and free bits at the start pass after the nudge and are not
    reported; nor are biases alone, nor recurrent layers over a single step, whose state is 0.
    """
    examination.require_gradients()
    found = examination.dead_branches
    dead = [b for b in found if not (b.lone and examination.subject.batch.guessed)]
    if found and not dead:
        raise Unavailable("the made-up batch leaves a softmax a single entry; supply --input")
    for branch in dead:
        names = ", ".join(f"`{path}`" for path in branch.paths[:3])
        at = f" behind `{branch.operation}`" if branch.operation else ""
        one = " over a single entry" if branch.lone else ""
        yield Finding(
            f"the gradient of {names} is exactly 0{at}{one}",
            help=_cure(branch.operation, lone=branch.lone),
            at=branch.at,
            measured={"parameters": branch.count, "runs": examination.survey.runs + 1},
            causes=frozenset(branch.causes),
        )
    if not dead:
        yield Verified("no gradient is stuck at zero")


def _cure(operation: str, *, lone: bool) -> str:
    if lone:
        return "take it over the axis that holds several entries, or give it more of them"
    if operation in _LAYERS:
        return "see whether its input is 0 throughout: zeros train no input weights"
    if operation in _STEPS:
        past = f"`h + (torch.{operation.strip('_')}(h) - h).detach()`"
        return f"leave `{operation}` out, or hand the gradient past it: {past}"
    return "find what saturates the operation: its bias or the scale of its input"
