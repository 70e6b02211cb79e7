"""VAE103."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ...finding import Finding, Severity, Verified
from ...rule import rule

if TYPE_CHECKING:
    from ...examine.examination import Examination


@rule("VAE103", Severity.ERROR, before=("VAE202", "VAE204", "VAE104"))
def layer_created_in_forward(examination: Examination) -> Iterator[Finding | Verified]:
    """A layer is built inside `forward`: every pass uses other random weights.

    ## What it checks
    Two training steps in a row: a layer that ran in both at one place with different weight
    storage, or a fresh parameter, was made in the forward pass.

    ## Why it matters
    The layer starts from scratch at every call, so nothing it learns survives, no optimizer owns
    it and no checkpoint holds it. The rest of the model chases a random projection.

    ## How to fix
    Create the layer once in `__init__`, assign it to an attribute, and only call it in `forward`.

    ## False alarms
    Layers built once on first use and kept (lazy building) are the same in the second step and
    are not reported.
    """
    census = examination.census
    for call, at in census.created:
        kind = type(call.module).__name__
        weights = sum(p.numel() for p in call.module.parameters())
        idle = [b.path for b in census.idle if b.stands_for(call.module)]
        yield Finding(
            f"a new {kind} is made in every forward pass, with new random weights",
            help=f"call `{idle[0]}` here, which is never called"
            if idle
            else "create the layer in `__init__` and call it here",
            at=at,
            measured={"weights": weights, "passes compared": 2},
            causes=frozenset({f"module:{id(call.module)}", *(f"layer:{path}" for path in idle)}),
        )
    for value, op, place in census.strays:
        if place is None and census.fresh(value):
            yield Finding(
                f"`{op.name}` uses a weight that is made anew in every forward pass",
                help="create the `nn.Parameter` in `__init__` and use it here",
                at=op.span,
                measured={"shape": list(value.shape), "passes compared": 2},
                causes=frozenset({f"tensor:{id(value.tensor)}"}),
            )
