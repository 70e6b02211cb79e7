"""VAE203."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ...finding import Finding, Severity, Verified, where
from ...rule import rule

if TYPE_CHECKING:
    from ...examine.examination import Examination


@rule("VAE203", Severity.WARNING, before=("VAE002", "VAE204"))
def hard_coded_device(examination: Examination) -> Iterator[Finding | Verified]:
    """A literal device in the forward pass breaks the model anywhere else.

    ## What it checks
    Every call of the step, and of own methods whose arguments are obvious, that asks for a device:
    `.to("cuda")`, `.cuda()`, `.cpu()`, `device="cpu"`. Run as if on an accelerator of another
    kind, the call names its device itself and its result meets tensors that are elsewhere, or asks
    for a device that is not there.

    ## Why it matters
    The model runs on one kind of machine only: not on the CPU of a colleague, not on the second
    GPU, not in a test. Where the step cannot run on this machine for it, this is an error.

    ## How to fix
    Take the device from a tensor at hand: `eps.to(mu.device)`, `torch.zeros(n, device=x.device)`.

    ## False alarms
    Calls behind a guard (`if x.is_cuda:`, `if torch.cuda.is_available():`) and devices held in a
    variable that something else than a literal fills are not judged.
    """
    moved, stuck = examination.move, examination.stuck
    severity = Severity.ERROR if stuck else None
    causes = frozenset({"failure"} if stuck else ())
    here = [s for s in moved.stayed if s.kind == "literal"]
    for stayed in here:
        yield Finding(
            f"`{stayed.name}` puts its result on `{stayed.device}`, wherever the model is",
            help="take the device from a tensor at hand: `device=x.device`",
            at=stayed.at,
            measured={"device": stayed.device, "mixed by": stayed.operation},
            notes=(f"`{stayed.operation}` refuses it in {where(stayed.mixed_at, stayed.at)}",),
            severity=severity,  # type: ignore[arg-type]
            causes=stayed.causes | causes,
        )
    for literal in moved.literals:
        yield Finding(
            f"`{literal.device}` is asked for on machines that do not have it",
            help="take the device from a tensor at hand: `.to(x.device)`",
            at=literal.span,
            measured={"device": literal.device},
            severity=severity,  # type: ignore[arg-type]
            causes=causes | {f"line:{literal.span.file}:{literal.span.line}"},
        )
    if moved.error is None and not here and not moved.literals:
        yield Verified("no device is spelled out in the forward pass")
