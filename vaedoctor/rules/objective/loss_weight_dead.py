"""VAE713."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ...finding import Finding, Severity
from ...rule import rule

if TYPE_CHECKING:
    from ...examine.examination import Examination


@rule("VAE713", Severity.WARNING)
def loss_weight_dead(examination: Examination) -> Iterator[Finding]:
    """A weight of the loss changes nothing.

    ## What it checks
    Every number named like a KL weight (`beta`, `kl_weight`) on the model, or on an object that
    takes part in the step as a loss does, is doubled, one at a time, and the same step is run
    again: the loss is bit-equal. So that a weight too small for the loss's last digit is not called
    dead, it is tried once more at 2^20 times its value.
    So are the weights in a configuration (`hparams.beta`), those of the file (`BETA = 4`) and those
    of other terms (`loss_factor`, `gamma`), and by any name those that a loop computes of its
    counter, that no code of the file reads. A parameter `beta` that a function of the step ignores
    is one as well.

    ## Why it matters
    The setting is stored, printed and swept over, and every run is the same experiment.

    ## How to fix
    Multiply the KL by it, or remove the setting.

    ## False alarms
    The bounds of a schedule (`beta_max`, or what another weight is made from), a weight that the
    step sets itself, one behind a branch that it does not take and one whose term weighs 0 at the
    time are left alone. Only with the user's own loss; a weight that something else than this step
    reads is reported too, hence a warning.
    """
    examination.require_objective()
    for weight in examination.dead_weights:
        term = "the KL" if weight.of_kl else "its term"
        at = examination.weighed_at if weight.of_kl else None
        kept = weight.at if at is not None else None
        if weight.function:
            message = f"`{weight.function}` takes `{weight.name}` and does not read it"
        else:
            message = f"doubling `{weight.name}` changes nothing in the loss"
        yield Finding(
            message,
            help=f"multiply {term} by `{weight.name}`, or remove it",
            at=at or weight.at,
            measured={weight.name: weight.value, "change of the loss": 0.0},
            notes=(f"`{weight.name}` is given in line {kept.line}",) if kept else (),
            causes=frozenset({f"weight:{weight.name}", *(["kl"] if weight.of_kl else [])}),
        )
