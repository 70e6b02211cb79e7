"""VAE501."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ...finding import Finding, Severity, Verified, where
from ...rule import rule

if TYPE_CHECKING:
    from ...examine.examination import Examination


@rule("VAE501", Severity.ERROR)
def shape_chain_broken(examination: Examination) -> Iterator[Finding | Verified]:
    """A layer receives a size it was not built for.

    ## What it checks
    The operation at which the forward pass raised: which layer it belongs to, the size its
    weights were built for, the size that arrived, and which layer sent it.

    ## Why it matters
    Adding a layer after the encoder changes what the next layer receives; the error message of
    the matrix product names neither.

    ## How to fix
    Change the number that the message names, so that each layer's input is the output of the one
    before.

    ## False alarms
    None known: the forward pass did raise. A made-up input that does not fit is VAE002's.
    """
    failure = examination.failure
    if failure is None:
        yield Verified("the shapes chain from input to reconstruction")
        return
    mismatch = failure.mismatch
    if failure.cause != "shapes":
        return
    if mismatch is not None and mismatch.expected != mismatch.arrived:
        number = f"`{mismatch.parameter}` of `{mismatch.layer}` to {mismatch.arrived}"
        line = f" in {where(mismatch.defined_at, failure.at)}" if mismatch.defined_at else ""
        sent = f", sent by `{mismatch.sender}`" if mismatch.sender else ""
        at = f" in {where(mismatch.sent_at, failure.at)}" if mismatch.sent_at else ""
        yield Finding(
            f"`{mismatch.layer}` was built for {mismatch.expected} and receives {mismatch.arrived}",
            help=f"set {number}{line}, or make `{mismatch.sender}` give {mismatch.expected}",
            at=failure.at,
            measured={
                "built for": mismatch.expected,
                "arrived": mismatch.arrived,
                "shape": list(mismatch.shape),
            },
            notes=(f"arrives with shape {list(mismatch.shape)}{sent}{at}",),
            causes=frozenset({"failure"}),
        )
    else:
        shapes = " and ".join(str(list(s)) for s in failure.shapes)
        path = f" in `{failure.path}`" if failure.path else ""
        yield Finding(
            f"`{failure.operation}` cannot combine shapes {shapes}{path}",
            help="make the shapes agree: one of the two senders below has the wrong size",
            at=failure.at,
            measured={"shapes": [list(s) for s in failure.shapes]},
            notes=(*failure.senders, str(failure.error).splitlines()[0]),
            causes=frozenset({"failure"}),
        )
