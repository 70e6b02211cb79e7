"""VAE715."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ...finding import Finding, Number, Severity, Verified
from ...rule import Unavailable, rule

if TYPE_CHECKING:
    from ...examine.examination import Examination
    from ...examine.latent.conditions import Condition


@rule("VAE715", Severity.WARNING)
def mask_has_no_effect(examination: Examination) -> Iterator[Finding | Verified]:
    """A mask or length argument changes nothing where it should.

    ## What it checks
    Items of the batch named as masks or lengths, or that say where a row's padding begins: does any
    operation lead from them to an output or the loss, and does another mask change x_hat? Where a
    0/1 mask is multiplied into the loss, whether the gradient at x_hat is 0 where the mask is 0 (or
    where it is 1). Of lengths and of masks over [B, T], whether padded steps, all holding one value
    in the input, have a gradient: all of them, or most and more than two of a row. Whether what
    meets x_hat in the loss is one and the same of any mask: `mask >= 0`. Whether the loss counts
    steps beyond the lengths that move neither x_hat nor the posterior. Beside a reconstruction
    that leaves the steps beyond the lengths out, whether other values there move the KL of those
    steps, and the loss by it alone.

    ## Why it matters
    Padding then counts in the loss: the model learns to predict it, and the loss looks low. A loss
    that is summed before it is multiplied by the mask is only scaled.

    ## How to fix
    Multiply the loss of each element by the mask, then sum.

    ## False alarms
    A mask that only steers attention or packing, weights that are not 0 and 1, and masks along
    one axis are not judged beyond being read at all. Padding that is meant to be learned, as the
    end of a text, is told: nothing in the step says that it is meant; so is a future that is to be
    foretold from packed steps of the same series.
    """
    found = [c for c in examination.conditions if c.mask]
    if not found:
        raise Unavailable("no mask or length among the inputs")
    wrong = [c for c in found if c.unused or c.kept is not None]
    if wrong and examination.composed:
        raise Unavailable("the loss that may read it is not known; supply --objective")
    for mask in wrong:
        kept = mask.kept
        yield Finding(
            _said(mask),
            help=(
                "multiply each step's KL by the mask before summing"
                if kept is not None and kept.why == "kl"
                else "multiply each element's loss by the mask before summing"
            ),
            at=kept.op.span if kept is not None else mask.at,
            measured=_measured(mask),
            causes=frozenset({f"condition:{mask.name}"}),
        )
    if not wrong:
        names = ", ".join(f"`{c.name}`" for c in found)
        yield Verified(f"the step depends on {names}")


def _said(mask: Condition) -> str:
    if mask.kept is None:
        return f"`{mask.name}` changes nothing"
    steps = mask.kept.steps
    return {
        "kl": f"the KL of {steps} steps that are padding by `{mask.name}` counts in the loss; "
        "their reconstruction does not",
        "unshown": f"{steps} steps beyond `{mask.name}`, which the encoder is not shown, count in "
        "the loss",
        "padded": f"{steps} steps that are padding by `{mask.name}` count in the loss",
        "any": f"the loss makes the same of any `{mask.name}`: it leaves nothing out",
        "scaled": f"`{mask.name}` only scales the loss: masked entries keep their gradient",
    }[mask.kept.why]


def _measured(mask: Condition) -> dict[str, Number]:
    if mask.kept is None:
        return {"x_hat moves by": mask.moves, "outputs that depend on it": 0}
    if mask.kept.why == "kl":
        return {"padded steps whose KL moves the loss": mask.kept.steps}
    if mask.kept.steps:
        return {"padded steps with a gradient": mask.kept.steps}
    return {"masked entries without gradient": 0}
