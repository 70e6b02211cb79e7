"""VAE716."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ...finding import Finding, Severity
from ...rule import rule

if TYPE_CHECKING:
    from ...examine.examination import Examination


@rule("VAE716", Severity.WARNING, before=("VAE702", "VAE712"))
def kl_gradient_always_zero(examination: Examination) -> Iterator[Finding]:
    """The KL is in the loss and its gradient is always zero.

    ## What it checks
    The isolated KL's gradient at the location is 0 near the prior and at |mu| up to 15, far above
    any sane free-bits threshold, although a clamp or maximum on the way connects them.

    ## Why it matters
    A clamp applied after averaging never opens: the KL is a constant in the loss.

    ## How to fix
    Apply free bits to each unit (or group) before any averaging:
    `kl.clamp(min=0.1).sum(-1).mean()`.

    ## False alarms
    Correct free bits have a zero gradient near the prior only; the sweep goes far beyond.

    ## References
    Kingma et al., Improved Variational Inference with Inverse Autoregressive Flow, 2016, appendix
    C.8.
    """
    for d in examination.require_divergences():
        if d.missing and d.clamped:
            yield Finding(
                "the KL's gradient is 0 however far the posterior is from the prior",
                help="clamp each unit's KL before averaging: `kl.clamp(min=0.1).sum(-1).mean()`",
                at=d.clamped,
                measured={"gradient at the location": 0.0, "also at |mu| up to": 15.0},
                causes=frozenset({"latent", "kl"}),
            )
