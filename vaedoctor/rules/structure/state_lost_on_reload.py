"""VAE108."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ...finding import Finding, Severity, Verified
from ...rule import rule

if TYPE_CHECKING:
    from ...examine.examination import Examination

TOLERANCE = 1e-5  # far above float32 rounding of one eval pass, far below any other weights


@rule("VAE108", Severity.ERROR, before=("VAE202", "VAE204"))
def state_lost_on_reload(examination: Examination) -> Iterator[Finding | Verified]:
    """A fresh instance with the same `state_dict` gives another output.

    ## What it checks
    Builds the model again, loads the `state_dict`, runs both in eval mode on the same input and
    the same noise, and compares outputs; then lists the tensors outside the state that differ.

    ## Why it matters
    Every checkpoint of this model loads without a complaint and computes something else.

    ## How to fix
    Register the tensor: `self.register_buffer("name", tensor)`, or `nn.Parameter` if it is
    trained.

    ## False alarms
    Constants that come out the same in every instance, and non-persistent buffers with equal
    values, change nothing and are not reported. Skipped where no fresh instance can be built.
    """
    reloaded = examination.reloaded
    lost = reloaded.lost if reloaded.difference > TOLERANCE else ()
    for place in {(id(p.owner), p.attribute): p for p in reversed(lost)}.values():
        yield Finding(
            f"`{place.expression}` is not in the `state_dict`, and the output depends on it",
            help=f'register it: `self.register_buffer("{place.attribute}", ...)`',
            at=place.at,
            measured={"largest difference after reload": reloaded.difference},
            causes=frozenset({f"state:{place.attribute}"}),
        )
    if reloaded.difference <= TOLERANCE:
        yield Verified("a reload reproduces the output", {"difference": reloaded.difference})
