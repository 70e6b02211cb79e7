"""VAE706."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

from ...finding import Finding, Severity, Verified
from ...rule import Unavailable, rule

if TYPE_CHECKING:
    from ...examine.examination import Examination
    from ...examine.objective.offset import Offset
    from ...finding import Number

NATS = 1e-3  # per unit; rounding in float32 stays below 1e-6


@rule("VAE706", Severity.WARNING)
def kl_offset(examination: Examination) -> Iterator[Finding | Verified]:
    """The KL that is reported is not 0 at the prior.

    ## What it checks
    Every tensor that forward or the loss returns and whose gradients are those of the exact KL:
    its value with location 0 and scale 1 forced; of one that has rows, the mean over them. Where
    none is returned, the KL inside the total. Of categorical latents the value at equal logits,
    of Laplace ones that of a returned KL to Laplace(0, 1).
    Of a prior that is a mixture: with all its K components forced to one log-density, log p(z) has
    to be just that; a log K more or less is reported.

    ## Why it matters
    A constant left out (`1 +` in the usual formula) trains alike, but the reported KL and ELBO
    are wrong: below 0, or not comparable with any other number.

    ## How to fix
    `-0.5 * (1 + logvar - mu**2 - logvar.exp())`: the `1` stands inside the sum over units. For
    categories `q * (log q + log K)`. Of a mixture prior log w_k belongs to each component's
    log-density, with weights that add up to 1: -log K where all are alike.

    ## False alarms
    Only tensors whose gradients prove what they are. Inside the total only the constants that a
    formula may lack are reported (½ and 1 a unit, ½ log 2π, log K), and only of a term that is the
    exact KL otherwise, so that a capacity is not. A clamped KL (free bits) and other priors than
    N(0, I) are not judged.
    """
    examination.require_pulls()
    reported = examination.kl_offsets
    mixed = [m for m in examination.mixtures if not m.turned]
    for m in mixed:
        measured: dict[str, Number] = {"components": m.components, "log of their sum": m.total}
        if m.normalised:
            yield Verified("the prior's components add up to one density", measured)
            continue
        total = f"{math.exp(m.total):.3g}"
        yield Finding(
            f"the prior's mixture of {m.components} components adds up to {total}, not to 1",
            help=f"weigh the components: `logsumexp(log_p_k) - math.log({m.components})`",
            at=m.at,
            measured=measured,
            causes=frozenset({"kl"}),
        )
    if not reported and not mixed:
        raise Unavailable("no KL to N(0, I), or to equal categories, is a term of the loss")
    for o in reported:
        if abs(o.per_unit) > NATS:
            name = f"`{o.name}`" if o.name else "the KL"
            yield Finding(
                f"{name} is {o.total:.3g} at the prior, where a KL is 0",
                help=_cure(o),
                at=o.at,
                measured={"value at the prior": o.total, "nats per unit": o.per_unit},
                causes=frozenset({"kl", f"offset:{o.name}"}),
            )
        else:
            yield Verified("the reported KL is 0 at the prior", {"nats per unit": o.per_unit})


def _cure(o: Offset) -> str:
    if o.categories:
        return "add the missing constant: `q * (log_q + math.log(K))`, summed"
    if o.laplace:
        return "add the missing constant: `mu.abs() + b * (-mu.abs() / b).exp() - b.log() - 1`"
    return "add the missing constant: `-0.5 * (1 + logvar - mu**2 - logvar.exp())`"
