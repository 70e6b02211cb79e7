"""VAE711."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ...finding import Finding, Severity, Verified
from ...rule import Unavailable, rule

if TYPE_CHECKING:
    from ...examine.examination import Examination


REDUCED = {0: "summed", 1: "averaged"}


@rule("VAE711", Severity.ERROR, before=("VAE705", "VAE704"))
def batch_reduction_disagrees(examination: Examination) -> Iterator[Finding | Verified]:
    """Reconstruction and KL scale differently with the batch size.

    ## What it checks
    The weights of the isolated KL and of the reconstruction at the batch and at half of it: each
    either stays (a sum over rows) or doubles (a mean). The two have to do the same. Where the
    weights are equal, or as of a squared error without its half, half of the batch is not run:
    unlike reductions would set them apart by the batch size. A reconstruction that fits no plain
    likelihood is compared with itself: its gradient at the same outputs in half of the batch.

    ## Why it matters
    With a summed KL beside an averaged reconstruction the effective beta is the batch size:
    results change whenever the loader's batch does.

    ## How to fix
    Reduce both terms alike over the batch: two sums, or two means.

    ## False alarms
    A sum over the batch everywhere is consistent and fine. A beta that happens to equal the batch
    size makes the weights equal, and hides unlike reductions.
    """
    ratio = examination.one_weight
    if ratio is not None:
        yield Verified(
            "KL and reconstruction are reduced alike over the batch",
            {"KL's weight / reconstruction's": ratio},
        )
        return
    both = examination.batch_reduction
    if both is None:
        raise Unavailable("the weights cannot be measured at two batch sizes")
    if both.kl != both.reconstruction:
        odd = both.averaged or both.reconstruction not in REDUCED
        yield Finding(
            f"over the batch the KL is {_reduced(both.kl)} and the reconstruction "
            f"{_reduced(both.reconstruction)}",
            help='use `reduction="sum"` and divide both terms by the batch size'
            if both.averaged
            else "reduce both terms alike over the batch: two sums, or two means",
            at=(examination.compared_at if odd else None) or both.at,
            measured={
                "batch exponent of the KL": -both.kl,
                "batch exponent of the reconstruction": -both.reconstruction,
                "KL weight / reconstruction weight": both.outweighs,
            },
            notes=_averaged(examination) if both.averaged else (),
            causes=frozenset({"reduction"}),
        )
    else:
        yield Verified("KL and reconstruction scale alike with the batch", {"exponent": -both.kl})


def _averaged(examination: Examination) -> tuple[str, ...]:
    features = examination.require_likelihood().features
    return (f"the reconstruction is averaged over its {features} features, too",)


def _reduced(exponent: int) -> str:
    """A term's dependence on the batch size, in words."""
    times = {1: "", 2: " twice"}.get(abs(exponent), f" {abs(exponent)} times")
    way = "divided" if exponent > 0 else "multiplied"
    return REDUCED.get(exponent, f"{way} by its size{times}")
