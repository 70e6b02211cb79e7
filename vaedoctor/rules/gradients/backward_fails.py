"""VAE606."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ...finding import Finding, Severity, Verified
from ...rule import rule

if TYPE_CHECKING:
    from ...examine.examination import Examination


@rule("VAE606", Severity.ERROR, before=("VAE002",))
def backward_fails(examination: Examination) -> Iterator[Finding | Verified]:
    """The backward pass raises.

    ## What it checks
    Differentiates the loss of one training step. What autograd raises is explained, with the line
    of the edit when a tensor it had kept was changed in place. A second step shows whether its loss
    goes through what the first one has left on the model with its graph.

    ## Why it matters
    The first `loss.backward()` ends the training.

    ## How to fix
    Write the result to a new tensor instead of changing the old one (`h = h + 1`, not `h += 1`).

    ## False alarms
    None known: autograd did raise.
    """
    fault = examination.backward_fault
    if fault is None:
        examination.require_gradients()
        yield Verified("the backward pass runs")
        return
    if fault.second:
        yield Finding(
            "this reads a tensor that the step before has left with its graph, and the loss goes "
            "through it",
            help="keep it without its graph: `.detach()` before it is stored",
            at=fault.at,
            notes=("a backward pass frees its graph: that of the second step will raise",),
            causes=frozenset({"failure"}),
        )
        return
    yield Finding(
        f"`{fault.edit}` changes a tensor in place that the backward pass still needs"
        if fault.edit
        else "the backward pass raises",
        help=(
            "write to a new tensor instead of changing this one in place"
            if fault.edit
            else "read the message of autograd in the notes"
        ),
        at=fault.at,
        measured={"shape": list(fault.shape)} if fault.shape else {},
        notes=(fault.text, *fault.saved),
        causes=frozenset({"failure"}),
    )
