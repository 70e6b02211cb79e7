"""VAE502."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

from ...finding import Finding, Severity, Verified
from ...rule import Unavailable, rule

if TYPE_CHECKING:
    from ...examine.examination import Examination


@rule("VAE502", Severity.ERROR, before=("VAE002", "VAE501"))
def reconstruction_shape_mismatch(examination: Examination) -> Iterator[Finding | Verified]:
    """Reconstruction and input differ in shape where the loss compares them.

    ## What it checks
    The operands of the operation that compares the reconstruction with the input: it raises, or
    spreads what a layer of width 1 makes over the input's width. Without an objective, whether
    the two have the same number of rows and of elements.

    ## Why it matters
    Unlike shapes either raise in the loss or broadcast silently into a loss over all pairs.

    ## How to fix
    Give the decoder's last layer the input's size, or reshape one to the other.

    ## False alarms
    Beside an output of the input's shape a single column may be an offset and is not reported.
    Without an objective only a number of elements counts that is no multiple of the input's, so
    a flattened reconstruction, several samples a row and several parameters a feature are fine;
    and an output of quite another size that is not named a reconstruction is not judged; nor is
    any where vaedoctor made up the constructor's arguments.
    """
    if examination.failure is not None and examination.failure.cause != "target":
        raise Unavailable("the training step raises before it can be measured")
    pair = examination.compared
    if pair is None:
        raise Unavailable("no reconstruction found to compare with the input")
    if pair.agrees:
        if examination.given_back is not None:
            raise Unavailable("the input was made up, and another one is refused (VAE501)")
        yield Verified("reconstruction and input have one shape", {"shape": list(pair.x_hat)})
        return
    if examination.composed and examination.subject.made_up:
        raise Unavailable("the constructor's sizes were made up; supply `--arg` or --objective")
    if not pair.certain:
        raise Unavailable(
            f"the output {list(pair.x_hat)} may not be meant as a reconstruction of "
            f"{list(pair.x)}; supply --objective"
        )
    same = math.prod(pair.x_hat) == math.prod(pair.x)
    alike = ", ".join(map(str, (-1, *pair.x_hat[1:])))
    yield Finding(
        f"the reconstruction has shape {list(pair.x_hat)}, the input {list(pair.x)}",
        help=(
            f"reshape one to the other, as `x.reshape({alike})`"
            if same
            else f"make the decoder's last layer give {list(pair.x[1:])} per row"
        ),
        at=pair.at,
        measured={"reconstruction": list(pair.x_hat), "input": list(pair.x)},
        notes=(f"last layer: `{pair.layer}`",) if pair.layer else (),
        causes=frozenset({"failure", "x_hat"}),
    )
