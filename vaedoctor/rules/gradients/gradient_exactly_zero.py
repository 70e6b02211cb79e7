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

    ## False alarms
    Zero-initialised output layers and free bits at the start pass after the nudge and are not
    reported; nor are biases alone.
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
        cure = "find what saturates the operation: its bias or the scale of its input"
        if branch.lone:
            cure = "take it over the axis that holds several entries, or give it more of them"
        elif branch.operation in _LAYERS:
            cure = "see whether its input is 0 throughout: zeros train no input weights"
        yield Finding(
            f"the gradient of {names} is exactly 0{at}{one}",
            help=cure,
            at=branch.at,
            measured={"parameters": branch.count, "runs": examination.survey.runs + 1},
            causes=frozenset(branch.causes),
        )
    if not dead:
        yield Verified("no gradient is stuck at zero")
