"""VAE102."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ...finding import Finding, Severity, Verified, where
from ...rule import rule

if TYPE_CHECKING:
    from ...examine.examination import Examination


@rule("VAE102", Severity.ERROR)
def unregistered_parameter(examination: Examination) -> Iterator[Finding | Verified]:
    """A tensor that requires grad takes part in the forward pass and is no parameter.

    ## What it checks
    Every leaf tensor with `requires_grad` that an operation of the forward pass read, against
    `model.parameters()`.

    ## Why it matters
    A plain tensor attribute gets a gradient in every backward pass and no optimizer ever applies
    it; `.to(device)` and `state_dict()` miss it too.

    ## How to fix
    Wrap it: `self.weight = nn.Parameter(torch.zeros(n))`. In a list, use `nn.ParameterList`.

    ## False alarms
    Tensors with `grad_fn` (hypernetworks, weight normalisation) and the batch itself are not
    judged.
    """
    strays = examination.census.strays
    for value, op, place in strays:
        if place is None and examination.census.fresh(value):
            continue  # made anew in every pass: VAE103 speaks
        name = f"`{place.expression}`" if place else "a tensor"
        at = (place.at if place else None) or op.span
        yield Finding(
            f"{name} requires grad and takes part in the forward pass but is not in `parameters()`",
            help="wrap it in `nn.Parameter` (in a list: `nn.ParameterList`)",
            at=at,
            measured={"shape": list(value.shape)},
            notes=(f"used by `{op.name}` in {where(op.span, at)}",),
            causes=frozenset({f"tensor:{id(value.tensor)}"}),
        )
    if not strays:
        yield Verified("every tensor that requires grad is a registered parameter")
