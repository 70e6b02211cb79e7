"""VAE101."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ...finding import Finding, Severity, Verified, where
from ...rule import rule

if TYPE_CHECKING:
    from ...examine.examination import Examination
    from ...examine.structure.census import Hidden


@rule("VAE101", Severity.ERROR, before=("VAE202", "VAE204"))
def unregistered_layer(examination: Examination) -> Iterator[Finding | Verified]:
    """A layer runs in the forward pass and is not registered with the model.

    ## What it checks
    Every module that ran with trainable weights of its own during one training step, against
    `model.modules()`. What ran and is not there hangs in a plain list, dict, tuple or object.

    ## Why it matters
    `parameters()`, `.to(device)` and `state_dict()` only see registered modules: the layer is
    never trained, stays on the CPU when the model moves, and is missing from every checkpoint.
    Nothing raises, so the loss merely stops improving.

    ## How to fix
    Assign the layer to an attribute of its own, or use `nn.ModuleList`, `nn.ModuleDict` or
    `nn.Sequential` in place of the list, dict or tuple.

    ## False alarms
    A frozen teacher hidden on purpose: set `requires_grad_(False)` on it, and the rule is silent.
    Modules used only by the loss after the forward pass are not judged.

    ## References
    PyTorch documentation, `torch.nn.ModuleList`.
    """
    census = examination.census
    groups: dict[object, list[Hidden]] = {}
    for hidden in census.hidden:
        key = (
            (id(hidden.place.owner), hidden.place.attribute) if hidden.place else hidden.call.first
        )
        groups.setdefault(key, []).append(hidden)
    for members in groups.values():
        first = members[0]
        kind = type(first.call.module).__name__
        name = f"`self.{first.place.attribute}`" if first.place else f"a global {kind}"
        weights = sum(h.parameters for h in members)
        layers = f"{len(members)} layers" if len(members) > 1 else f"a {kind} layer"
        at = (first.place.at if first.place else None) or first.call.span
        lines = dict.fromkeys(where(h.call.span, at) for h in members)
        yield Finding(
            f"{name} holds {layers} that `parameters()`, `.to()` and `state_dict()` miss",
            help=(
                "keep the layers in `nn.ModuleList` or `nn.ModuleDict`, or give each an attribute"
                if first.place
                else "create the layer in `__init__` and assign it to an attribute"
            ),
            at=at,
            measured={"layers": len(members), "weights": weights},
            notes=(f"runs in the forward pass in {', '.join(lines)}",),
            causes=frozenset(f"module:{id(h.call.module)}" for h in members),
        )
    if not groups:
        yield Verified("every layer that ran is registered", {"parameters": census.registered})
