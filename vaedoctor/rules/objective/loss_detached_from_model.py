"""VAE714."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from ...finding import Finding, Severity, Verified
from ...rule import Unavailable, rule

if TYPE_CHECKING:
    from ...examine.examination import Examination


@rule("VAE714", Severity.ERROR, before=("VAE601", "VAE702"))
def loss_detached_from_model(examination: Examination) -> Iterator[Finding | Verified]:
    """The loss does not depend on the parameters at all.

    ## What it checks
    Whether the loss of one training step carries a gradient to any parameter.

    ## Why it matters
    `loss.backward()` raises or trains nothing.

    ## How to fix
    Keep the graph: no `.item()`, `.detach()`, `.data`, `torch.no_grad()` or new tensor of the
    terms, as `torch.tensor([recon, kl])`, between model and loss; `torch.stack` keeps it.

    ## False alarms
    None known for a model with trainable parameters.
    """
    examination.require_objective()
    gradients = examination.require_gradients()
    if not gradients.by_name:
        raise Unavailable("the model has no trainable parameter in this step")
    if all(g is None for g in gradients.by_name.values()):
        cut = examination.loss_cut
        by = (
            f"{cut.label} cuts the loss off from the model"
            if cut
            else ("the loss does not depend on any parameter")
        )
        yield Finding(
            by,
            help="keep the graph between the model and the loss",
            at=(cut.at if cut else None) or examination.loss_at,
            measured={"parameters without gradient": len(gradients.by_name)},
            causes=frozenset(
                {"loss", "kl", *([cut.cause] if cut else []), *_layers(gradients.by_name)}
            ),
        )
    else:
        yield Verified("the loss depends on the parameters")


def _layers(names: Iterable[str]) -> set[str]:
    """The tokens of the layers that hold parameters, and of what those hang in."""
    parts = [name.split(".") for name in names]
    return {f"layer:{'.'.join(p[:n])}" for p in parts for n in range(1, len(p) + 1)}
