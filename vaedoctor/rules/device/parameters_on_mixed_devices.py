"""VAE201."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ...finding import Finding, Severity, Verified, where
from ...rule import rule

if TYPE_CHECKING:
    from ...examine.examination import Examination

_GARBAGE = (
    *("VAE002", "VAE501", "VAE605", "VAE606", "VAE607", "VAE801"),
    *("VAE202", "VAE203", "VAE601", "VAE602"),
)


@rule("VAE201", Severity.ERROR, before=_GARBAGE)
def parameters_on_mixed_devices(examination: Examination) -> Iterator[Finding | Verified]:
    """Parameters live on more than one device and the forward pass mixes them.

    ## What it checks
    The device of every parameter and buffer, and whether an operation of the training step reads
    two of them from different devices. The `meta` device (shapes without values) counts as one.

    ## Why it matters
    The forward pass raises, or, with weights left on `meta`, may compute with memory that nobody
    wrote: some CPU kernels read a `meta` weight without a complaint.

    ## How to fix
    Move the model as a whole, `model.to(device)`, after the last layer was added. Give weights
    built on `meta` their values with `to_empty` and `load_state_dict(..., assign=True)`.

    ## False alarms
    A model split over devices on purpose moves its activations between them; no operation then
    reads two devices, and the rule is silent.
    """
    found = examination.scattered
    if found is None:
        yield Verified("no operation mixes parameters of two devices")
        return
    at = examination.defined_at(found.name)
    yield Finding(
        f"`{found.name}` is on {found.device}, the rest of the model on {found.most}",
        help=(
            "give the layer its weights: `to_empty`, then load or initialise them"
            if found.device == "meta"
            else "move the whole model with `model.to(device)` after its last layer was added"
        ),
        at=at,
        measured={"devices": found.devices, "tensors elsewhere": found.count},
        notes=(f"`{found.op.name}` mixes the two in {where(found.op.span, at)}",),
        causes=frozenset({"failure", "non-finite", f"layer:{found.name.rpartition('.')[0]}"}),
    )
