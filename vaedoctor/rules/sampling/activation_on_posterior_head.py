"""VAE308."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ...finding import Finding, Severity, Verified
from ...rule import rule

if TYPE_CHECKING:
    from ...examine.examination import Examination
    from ...examine.sampling.bounds import Reach

SLACK = 1e-3  # of a limit that is reached only as the head goes to infinity
RELU = frozenset({"relu", "relu_", "relu6"})


@rule("VAE308", Severity.WARNING)
def activation_on_posterior_head(examination: Examination) -> Iterator[Finding | Verified]:
    """An activation keeps the posterior away from the prior, or from half of it.

    ## What it checks
    The raw output of each head's layer is forced far down, to 0 and far up, and the sampler's
    own location and scale are read with the noise forced to +1 and -1. Reported are a location
    that stays on one side of 0 or within [-1, 1] and a scale that stays on one side of 1. It is an
    *error* where N(0, I) is not even a limit.

    ## Why it matters
    A ReLU kept on the encoder's last layer makes latents that are never negative, and a
    log-variance behind it never shrinks the scale below 1: half of the prior is never trained,
    and its samples decode to nothing.

    ## How to fix
    End both heads with a plain linear layer.

    ## False alarms
    The range of the *sampler's* scale is judged, so softplus for a standard deviation is fine.
    Judged only where the isolated KL is one to N(0, I); positive latents with a log-normal, Gamma
    or Dirichlet prior are not. A location that is never negative is judged as well where the loss
    asks the same of the mirrored posterior (a total correlation, a discrepancy from N(0, I)).
    Without an objective only a ReLU on the location is.
    """
    found = False
    for reach in examination.head_reaches:
        d = examination.divergence_of(reach.latent)
        judged = d is not None and d.standard and d.exact
        unknown = examination.composed and reach.activation.name in RELU
        if reach.part == "location":
            one_sided = min(abs(reach.low), abs(reach.high)) <= SLACK
            judged = judged or unknown or (one_sided and examination.mirrored(reach.latent))
        if not judged:
            continue
        for said, severity in _judge(reach):
            found = True
            yield Finding(
                said,
                help="end the head with a plain linear layer",
                at=examination.built_at(reach.activation.span, reach.path),
                measured={f"smallest {reach.part}": reach.low, f"largest {reach.part}": reach.high},
                severity=severity,
                causes=frozenset({"latent", reach.part}),
            )
    if not found and any(x.scale is not None for x in examination.require_latents()):
        yield Verified("no activation keeps the posterior from the prior")


def _judge(reach: Reach) -> Iterator[tuple[str, Severity]]:
    """What is wrong with a range, if anything."""
    name, centre = reach.activation.name.strip("_"), 0.0 if reach.part == "location" else 1.0
    below, above = centre - reach.low, reach.high - centre
    if min(below, above) <= SLACK:
        side = "below" if below > above else "above"
        missed = min(below, above) < -SLACK
        yield (
            f"`{name}` keeps the {reach.part} {side} {centre:g}",
            Severity.ERROR if missed else Severity.WARNING,
        )
    elif reach.part == "location" and max(below, above) <= 1 + SLACK:
        yield (
            f"`{name}` keeps the location within [{reach.low:.3g}, {reach.high:.3g}]",
            Severity.WARNING,
        )
