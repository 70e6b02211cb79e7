"""VAE601."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ...finding import Finding, Severity, Verified
from ...rule import Unavailable, rule
from ...spelling import listed

if TYPE_CHECKING:
    from ...examine.examination import Examination


@rule("VAE601", Severity.ERROR)
def parameter_without_gradient(examination: Examination) -> Iterator[Finding | Verified]:
    """A parameter is used in the forward pass and gets no gradient.

    ## What it checks
    The gradient of the loss at every trainable parameter the step read. Where it is None, the
    recorded operations between parameter and reconstruction tell which one cut the graph:
    `.detach()`, `.data`, `torch.no_grad()`, `argmax`, a round trip through Python or NumPy.

    ## Why it matters
    The layer looks connected and never learns.

    ## How to fix
    Remove the named operation from the way to the loss.

    ## False alarms
    *Error* only where a named operation cuts the way to the reconstruction, or from there to the
    loss; straight-through estimators, quantisers and targets computed without gradient are
    recognised. *Warning* where the cut is behind the sample beside the decoder, as in a prior's
    network, or where the layer's output is used by nothing or by a term that is left out, *note*
    where it is returned but not part of the loss.
    """
    gradients = examination.require_gradients()
    if gradients.loss is not None and gradients.loss.grad_fn is None:
        raise Unavailable("the loss carries no gradient to any parameter (VAE714)")
    losses = examination.losses_of_gradient
    for loss in losses:
        shown = [f"`{b.path}`" for b in loss.branches[:3]]
        shown += [f"{len(loss.branches) - 3} more"] if len(loss.branches) > 3 else []
        names, several = listed(shown), len(loss.branches) > 1
        if loss.cut is not None:
            yield Finding(
                f"{loss.cut.label} cuts the gradient of {names}",
                help=f"remove {loss.cut.label} from the way to the loss",
                at=loss.cut.at,
                measured={"parameters without gradient": loss.count},
                severity=Severity.ERROR if loss.decoded else Severity.WARNING,
                causes=frozenset({loss.cut.cause, *(f"layer:{b.path}" for b in loss.branches)}),
            )
        else:
            branch = loss.branches[0]
            yield Finding(
                f"{names} {'get' if several else 'gets'} no gradient: "
                f"{'their' if several else 'its'} output is not part of the loss",
                help="use the output in the loss, or leave the layer out",
                at=loss.at or branch.at,
                measured={"parameters without gradient": loss.count},
                severity=Severity.NOTE if loss.returned else Severity.WARNING,
                causes=frozenset(f"layer:{b.path}" for b in loss.branches),
            )
    if all(g is not None for g in gradients.by_name.values()):
        yield Verified(
            "every trainable parameter gets a gradient", {"parameters": len(gradients.by_name)}
        )
