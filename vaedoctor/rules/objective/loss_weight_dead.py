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
    """A loss weight kept on the model changes nothing.

    ## What it checks
    Every number on the model named like a KL weight (`beta`, `kl_weight`) is doubled, one at a
    time, and the same step is run again: the loss is bit-equal. So that a weight too small for
    the loss's last digit is not called dead, it is tried once more at 2^20 times its value.
    So are the weights in its configuration (`hparams.beta`) and those of other terms
    (`loss_factor`) that no code of the file reads.

    ## Why it matters
    The setting is stored, printed and swept over, and every run is the same experiment.

    ## How to fix
    Multiply the KL by it, or remove the setting.

    ## False alarms
    The bounds of a schedule (`beta_max`, or what another weight is made from) and a weight that
    the step sets itself are left alone. Only with the user's own loss; a weight that something
    else than this step reads is reported too, hence a warning.
    """
    examination.require_objective()
    for weight in examination.dead_weights:
        term = "the KL" if weight.of_kl else "its term"
        yield Finding(
            f"doubling `{weight.name}` changes nothing in the loss",
            help=f"multiply {term} by `{weight.name}`, or remove it",
            at=weight.at,
            measured={weight.name: weight.value, "change of the loss": 0.0},
            causes=frozenset({f"weight:{weight.name}"}),
        )
