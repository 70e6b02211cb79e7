"""VAE404."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ...finding import Finding, Severity, Verified
from ...rule import Unavailable, rule

if TYPE_CHECKING:
    from ...examine.examination import Examination


@rule("VAE404", Severity.WARNING)
def condition_unused(examination: Examination) -> Iterator[Finding | Verified]:
    """Another condition gives the same reconstruction, bit for bit.

    ## What it checks
    Each declared condition, and further arguments of `forward` that are named like a label, hold
    whole numbers, or are read by nothing: does any operation lead from it to an output or the
    loss? If none does, the step is run with another condition, the same x and the same noise.
    Where one does, what weights and data meet of it has to change with the condition, and no
    constant of its shape may stand beside the sample where the decoder reads the condition, nor
    beside the data where the encoder does.

    ## Why it matters
    Nothing raises when a one-hot label is computed and not concatenated; asking for a class then
    has no effect.

    ## How to fix
    Feed the condition to the encoder and the decoder, or remove the argument.

    ## False alarms
    Operations count as well as values, so a zero-initialised adapter passes; so does a condition
    that only shapes the prior, the encoder or a term of the loss.
    """
    found = [c for c in examination.conditions if not c.mask]
    if not found:
        raise Unavailable("no condition among the inputs; declare it with `conditions=`")
    unused = [c for c in found if c.unused]
    for condition in unused:
        yield Finding(
            f"the condition `{condition.name}` changes nothing",
            help="feed it to the encoder and the decoder, as by `torch.cat([z, y], dim=1)`",
            at=condition.at,
            measured={"x_hat moves by": condition.moves, "outputs that depend on it": 0},
            causes=frozenset({f"condition:{condition.name}"}),
        )
    for condition in found:
        blank = condition.blanked
        if blank is not None:
            yield Finding(
                f"`{blank.op.name}` stands in the place of the condition "
                f"`{condition.name}` before the {blank.half} reads it",
                help=f"hand the {blank.half} the condition itself",
                at=blank.op.span,
                measured={
                    "steps compared": 4,
                    "reconstructions that read it"
                    if blank.half == "decoder"
                    else "samples that read it": 0,
                },
                causes=frozenset({f"condition:{condition.name}"}),
            )
    if not unused and not any(c.blanked for c in found):
        names = ", ".join(f"`{c.name}`" for c in found)
        yield Verified(f"the step depends on {names}")
