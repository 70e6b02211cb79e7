"""VAE109."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ...finding import Finding, Severity
from ...rule import rule

if TYPE_CHECKING:
    from ...examine.examination import Examination


@rule("VAE109", Severity.NOTE)
def frozen_parameter(examination: Examination) -> Iterator[Finding]:
    """A part of the model has `requires_grad=False`.

    ## What it checks
    Registered parameters that do not require grad, grouped by the topmost module frozen as a
    whole.

    ## Why it matters
    Fine-tuning freezes parts on purpose. It also happens by a forgotten line, and a frozen
    encoder makes the KL a constant.

    ## How to fix
    Nothing, if it is meant. Else `module.requires_grad_(True)` before the optimizer is built.

    ## False alarms
    This is a note: pretrained and fixed parts are normal.
    """
    for branch in examination.census.frozen:
        yield Finding(
            f"`{branch.path}` is frozen",
            help="unfreeze it with `requires_grad_(True)` if it is meant to train",
            at=branch.at,
            measured={"parameters": len(branch.parameters), "weights": branch.size},
            causes=frozenset({f"layer:{branch.path}"}),
        )
