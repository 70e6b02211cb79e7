"""VAE501."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from ...finding import Finding, Severity, Verified, where
from ...rule import rule

if TYPE_CHECKING:
    from ...examine.examination import Examination
    from ...examine.shapes.failure import Failure


@rule("VAE501", Severity.ERROR)
def shape_chain_broken(examination: Examination) -> Iterator[Finding | Verified]:
    """A layer receives a size it was not built for.

    ## What it checks
    The operation at which the forward pass raised: which layer it belongs to, the size its
    weights were built for, the size that arrived, and which layer sent it.

    Where the input was made up: if the picture that comes out has another size than the one that
    went in, whether the model takes a picture of that size. A *warning* if a layer refuses it.

    ## Why it matters
    Adding a layer after the encoder changes what the next layer receives; the error message of
    the matrix product names neither.

    ## How to fix
    Change the number that the message names, so that each layer's input is the output of the one
    before.

    ## False alarms
    None known where the forward pass raised; a made-up input that does not fit is VAE002's. A
    model that is meant to give back other sizes than it takes: name its input, `--input`.
    """
    failure = examination.failure
    if failure is None:
        other = examination.given_back
        if other is None:
            end = "to reconstruction" if examination.anatomy.x_hat else "to output"
            yield Verified(f"the shapes chain from input {end}")
            return
        sizes = " and ".join("×".join(map(str, s[1:])) for s in (other.x, other.x_hat))
        given = f"x and x_hat have the sizes {sizes}: this is x_hat's, given as input"
        yield replace(_broken(other.refused, given), severity=Severity.WARNING)
    elif failure.cause == "shapes":
        yield _broken(failure)


def _broken(failure: Failure, *notes: str) -> Finding:
    mismatch = failure.mismatch
    if mismatch is None or mismatch.expected == mismatch.arrived:
        shapes = " and ".join(str(list(s)) for s in failure.shapes)
        path = f" in `{failure.path}`" if failure.path else ""
        return Finding(
            f"`{failure.operation}` cannot combine shapes {shapes}{path}",
            help="make the shapes agree: one of the two senders below has the wrong size",
            at=failure.at,
            measured={"shapes": [list(s) for s in failure.shapes]},
            notes=(*failure.senders, str(failure.error).splitlines()[0]),
            causes=frozenset({"failure"}),
        )
    number = f"`{mismatch.parameter}` of `{mismatch.layer}` to {mismatch.arrived}"
    line = f" in {where(mismatch.defined_at, failure.at)}" if mismatch.defined_at else ""
    sent = f", sent by `{mismatch.sender}`" if mismatch.sender else ""
    at = f" in {where(mismatch.sent_at, failure.at)}" if mismatch.sent_at else ""
    return Finding(
        f"`{mismatch.layer}` was built for {mismatch.expected} and receives {mismatch.arrived}",
        help=f"set {number}{line}, or make `{mismatch.sender}` give {mismatch.expected}",
        at=failure.at,
        measured={
            "built for": mismatch.expected,
            "arrived": mismatch.arrived,
            "shape": list(mismatch.shape),
        },
        notes=(f"arrives with shape {list(mismatch.shape)}{sent}{at}", *notes),
        causes=frozenset({"failure"}),
    )
