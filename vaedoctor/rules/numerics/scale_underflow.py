"""VAE804."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ...finding import Finding, Severity, Verified
from ...rule import rule

if TYPE_CHECKING:
    from ...examine.examination import Examination


_LESS = ("VAE801", "VAE803", "VAE605", "VAE002", "VAE303", "VAE311", "VAE701")


@rule("VAE804", Severity.ERROR, before=_LESS)
def scale_underflow(examination: Examination) -> Iterator[Finding | Verified]:
    """The sampler's scale is exactly zero or denormal.

    ## What it checks
    Every entry of the standard deviation with which the latent is drawn: zero, or smaller than
    the smallest normal number (1.2e-38 in float32). Also where a distribution raises because of
    it.

    ## Why it matters
    A scale of zero draws no noise, its logarithm is minus infinity, and no gradient brings it
    back.

    ## How to fix
    Bound the log-variance from below (`logvar.clamp(min=-20)`), or add a small constant to the
    standard deviation.

    ## False alarms
    A small scale is fine, only zero is not. Entries that a mask switches off are not counted.
    """
    if (zero := examination.refused_scale) is not None:
        yield Finding(
            f"the scale is 0 in {zero.zeros} of {zero.count} entries: the distribution refuses it",
            help="bound it from below: `logvar.clamp(min=-20)`, or add 1e-6 to the scale",
            at=zero.at or (examination.failure.at if examination.failure else None),
            measured={"zeros": zero.zeros, "entries": zero.count},
            causes=frozenset({"latent", "scale", "failure"}),
        )
        return
    examination.require_latents()
    found = examination.underflows
    for u in found:
        share = f"{u.zeros + u.denormals} of {u.count}"
        maker = f": `{u.op.name}` gives {'zero' if u.zeros else 'a denormal'}" if u.op else ""
        yield Finding(
            f"the sampler's scale has underflowed in {share} entries{maker}",
            help="bound it from below: `logvar.clamp(min=-20)`, or add 1e-6 to the scale",
            at=u.op.span if u.op is not None else u.latent.meeting.span,
            measured={"zeros": u.zeros, "denormals": u.denormals, "entries": u.count},
            causes=frozenset({"latent", "scale"}),
        )
    scales = [x.scale for x in examination.anatomy.latents if x.scale is not None]
    if scales and not found:
        smallest = min(float(s.tensor.detach().min()) for s in scales)
        yield Verified("the sampler's scale is nowhere zero", {"smallest": smallest})
