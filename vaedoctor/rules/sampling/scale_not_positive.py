"""VAE311."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ...finding import Finding, Severity, Verified
from ...rule import rule

if TYPE_CHECKING:
    from ...examine.examination import Examination


@rule("VAE311", Severity.ERROR, before=("VAE804", "VAE803", "VAE801", "VAE308"))
def scale_not_positive(examination: Examination) -> Iterator[Finding | Verified]:
    """The sampler's scale can be negative or zero.

    ## What it checks
    The scale head is forced to -1 and 1 where its layer can give both; the sampler's own scale is
    then measured with the noise forced to +1 and -1.

    ## Why it matters
    A negative scale samples, but log-likelihoods and `log(std)` turn NaN, `Normal(...)` raises on
    the first negative value, and a scale of 0 switches the noise off.

    ## How to fix
    Use `torch.exp(0.5 * logvar)` or `softplus(h) + 1e-6`.

    ## False alarms
    Heads with an activation that keeps them positive are forced to positive values only.
    """
    for d in examination.require_divergences():
        wrong = [s for s in d.settings if s.scale <= 0]
        for s in wrong[:1]:
            yield Finding(
                f"the sampler's scale is {s.scale:.3g} where the scale head is {s.head:g}",
                help="make the scale positive: `torch.exp(0.5 * logvar)` or `softplus(h) + 1e-6`",
                at=d.scale_at,
                measured={"scale head": s.head, "sampled scale": s.scale},
                causes=frozenset({"latent", "scale"}),
            )
        if not wrong:
            yield Verified(
                "the sampler's scale stays positive", {"smallest": min(s.scale for s in d.settings)}
            )
