"""VAE605."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ...finding import Finding, Severity, Verified
from ...rule import Unavailable, rule

if TYPE_CHECKING:
    from ...examine.examination import Examination


@rule("VAE605", Severity.ERROR, before=("VAE602", "VAE603", "VAE604", "VAE802", "VAE803"))
def gradient_not_finite(examination: Examination) -> Iterator[Finding | Verified]:
    """The backward pass yields NaN or infinity.

    ## What it checks
    Every gradient of one training step. If one is not finite, the step is run again under
    `torch.autograd.set_detect_anomaly`, and the operation of the forward pass is found whose
    result still has a finite gradient while its operand has not.

    ## Why it matters
    One NaN reaches every weight in a single optimizer step.

    ## How to fix
    Keep the operand away from the point without derivative: add a small constant inside `sqrt`,
    `log` or a division, or clamp before it.

    ## False alarms
    None known: the number is in the report.
    """
    found = examination.anomaly
    if found is None:
        yield Verified("all gradients are finite")
        return
    if found.forward:
        raise Unavailable("the loss itself is not finite (VAE801)")
    name = found.op.name if found.op else found.function
    read = dict(zip(("smallest operand", "largest operand"), found.operand or (), strict=False))
    yield Finding(
        f"the backward pass of `{name}` yields NaN or infinity",
        help=f"keep the operand of `{name}` away from where it has no derivative: add 1e-6",
        at=found.at,
        measured={"parameters with a non-finite gradient": len(found.parameters), **read},
        notes=(f"anomaly mode names {found.function}",) if found.function else (),
        causes=frozenset({"non-finite"}),
    )
