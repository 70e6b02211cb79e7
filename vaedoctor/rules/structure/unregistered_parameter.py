"""VAE102."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ...finding import Finding, Severity, Verified, where
from ...rule import rule

if TYPE_CHECKING:
    from ...examine.examination import Examination
    from ...examine.runs.recording import Op, Value
    from ...examine.structure.branches import Place


@rule("VAE102", Severity.ERROR, before=("VAE108", "VAE202", "VAE204", "VAE606"))
def unregistered_parameter(examination: Examination) -> Iterator[Finding | Verified]:
    """A tensor that requires grad takes part in the training step and is no parameter.

    ## What it checks
    Every leaf tensor with `requires_grad` that an operation of the forward pass read, against
    `model.parameters()`; also what the loss alone reads, where it hangs on the model and no
    optimizer holds it.

    ## Why it matters
    A plain tensor attribute gets a gradient in every backward pass and no optimizer ever applies
    it; `.to(device)` and `state_dict()` miss it too.

    ## How to fix
    Wrap it: `self.weight = nn.Parameter(torch.zeros(n))`. In a list, use `nn.ParameterList`.

    ## False alarms
    Tensors with `grad_fn` (hypernetworks, weight normalisation) and the batch itself are not
    judged.
    """
    census = examination.census
    groups: dict[object, list[tuple[Value, Op, Place | None]]] = {}
    for value, op, place in census.strays:
        if place is None and census.fresh(value):
            continue  # made anew in every pass: VAE103 speaks
        key = (id(place.owner), place.attribute) if place else value.index
        groups.setdefault(key, []).append((value, op, place))
    for members in groups.values():
        value, op, place = members[0]
        name = f"`{place.expression}` requires" if place else "a tensor requires"
        if place and len(members) > 1:
            name = f"{len(members)} tensors in `self.{place.attribute}` require"
        at = (place.at if place else None) or op.span
        yield Finding(
            f"{name} grad and takes part in the training step but is not in `parameters()`"
            if len(members) == 1
            else f"{name} grad and take part in the training step but are not in `parameters()`",
            help="wrap it in `nn.Parameter` (in a list: `nn.ParameterList`)",
            at=at,
            measured={"shape": list(value.shape)},
            notes=tuple(f"used by `{o.name}` in {where(o.span, at)}" for _, o, _ in members[:3]),
            causes=frozenset(
                {
                    *(f"tensor:{id(v.tensor)}" for v, _, _ in members),
                    f"state:{place.attribute if place else ''}",
                }
            ),
        )
    if not census.strays:
        yield Verified("every tensor that requires grad is a registered parameter")
