"""VAE311."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ...finding import Finding, Severity, Verified, where
from ...rule import rule

if TYPE_CHECKING:
    from ...examine.examination import Examination
    from ...examine.sampling.bounds import Reach
    from ...examine.sampling.underflow import Negative

SLACK = 1e-3  # a scale below is lost digits of the location
CUTTING = frozenset(
    "relu relu_ relu6 hardtanh hardsigmoid clamp clamp_ clip clamp_min max maximum".split()
)


@rule("VAE311", Severity.ERROR, before=("VAE804", "VAE803", "VAE801", "VAE308", "VAE002"))
def scale_not_positive(examination: Examination) -> Iterator[Finding | Verified]:
    """The sampler's scale can be negative or zero.

    ## What it checks
    The scale head is forced to -1 and 1 where its layer can give both, and an activated head's
    layer far down, to 0 and far up; the sampler's own scale is then measured with the noise forced
    to +1 and -1. Where a distribution refuses a scale that the model computes, its smallest entry.

    ## Why it matters
    A negative scale samples, but log-likelihoods and `log(std)` turn NaN, `Normal(...)` raises on
    the first negative value, and a scale of 0 switches the noise off.

    ## How to fix
    Use `torch.exp(0.5 * logvar)` or `softplus(h) + 1e-6`.

    ## False alarms
    Heads with an activation that keeps them positive are forced to positive values only; one that
    touches 0 at a single point (`abs`) is not reported.
    """
    if (refused := examination.negative_scale) is not None:
        yield _refused(examination, refused)
        return
    judged = examination.require_divergences()
    reached = [r for r in examination.head_reaches if _touches_zero(r)]
    for r in reached:
        yield Finding(
            f"`{r.activation.name.strip('_')}` lets the sampler's scale be {r.low:.3g}",
            help="make the scale positive: `torch.exp(0.5 * logvar)` or `softplus(h) + 1e-6`",
            at=r.activation.span,
            measured={"smallest scale": r.low, "largest scale": r.high},
            causes=frozenset({"latent", "scale"}),
        )
    if reached:
        return
    smallest = []
    for d in judged:
        wrong = [s for s in d.settings if s.scale <= 0]
        smallest += [min(s.scale for s in d.settings)] if not wrong else []
        for s in wrong[:1]:
            yield Finding(
                f"the sampler's scale is {s.scale:.3g} where the scale head is {s.head:g}",
                help="make the scale positive: `torch.exp(0.5 * logvar)` or `softplus(h) + 1e-6`",
                at=d.scale_at,
                measured={"scale head": s.head, "sampled scale": s.scale},
                causes=frozenset({"latent", "scale"}),
            )
    if smallest:
        yield Verified("the sampler's scale stays positive", {"smallest": min(smallest)})


def _refused(examination: Examination, found: Negative) -> Finding:
    """A scale because of which the step raises."""
    failure, head = examination.failure, found.head
    at = failure.at if failure is not None else None
    made = f"`{head.path}` in {where(head.op.span, at)}" if head is not None else ""
    return Finding(
        f"the scale is negative in {found.negatives} of {found.count} entries: "
        f"`{found.distribution}` refuses it",
        help="make the scale positive: `torch.exp(0.5 * logvar)` or `softplus(h) + 1e-6`",
        at=at,
        measured={"smallest scale": found.smallest, "entries": found.count},
        notes=(f"the scale comes from {made}",) if head is not None and head.path else (),
        causes=frozenset({"latent", "scale", "failure"}),
    )


def _touches_zero(reach: Reach) -> bool:
    """Whether the scale is negative, or cut off at 0, as `relu` and `clamp(min=0)` do."""
    if reach.part != "scale":
        return False
    cut = reach.activation.name in CUTTING and reach.low == 0
    return cut or reach.low < -SLACK
