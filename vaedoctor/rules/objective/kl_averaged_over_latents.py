"""VAE704."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from ...finding import Finding, Severity
from ...plot import weight_plot
from ...rule import rule

if TYPE_CHECKING:
    from ...examine.examination import Examination
    from ...examine.objective.pulls import Pull

_EXACT = 0.01
_ALIKE = 2.5  # up to here the two weigh alike, as VAE705 says


@rule("VAE704", Severity.NOTE)
def kl_averaged_over_latents(examination: Examination) -> Iterator[Finding]:
    """The KL is averaged over the latent's units: a hidden beta of 1/D_z.

    ## What it checks
    The isolated KL's weight a row is 1/D_z. Where the reconstruction's weight is that of a sum,
    this is the hidden beta; where it is averaged over its D_x features too, the ratio of the two,
    which is the observation variance at which the loss is an ELBO, is told instead. The model's own
    beta over D_z counts too.

    ## Why it matters
    The ELBO sums the KL over units. The mean divides it by D_z, so the regularisation changes
    when the latent's size does, and prior samples get worse with every unit added. Two means
    weigh the KL about D_x / D_z times too much: more features or fewer units mean more blur.

    ## How to fix
    Sum over the latent and average over the batch: `kl.sum(-1).mean()`.

    ## False alarms
    A note: some keep it on purpose. Declare `beta=` with the intended weight to silence it.

    ## References
    Higgins et al., beta-VAE, 2017, section 4.2 (normalised beta).
    """
    likelihood = examination.require_likelihood()
    for d in examination.require_pulls():
        intended = examination.subject.beta
        if not d.standard or (intended and abs(d.weight / intended - 1) < _EXACT):
            continue
        units, named = _averaged(d, examination.loss_weights)
        if not units:
            continue
        variance = d.weight / likelihood.weight if likelihood.weight > 0 else 0.0
        cure = "sum the KL over the latent"
        if likelihood.weight > 0.4:
            message = (
                f"the KL is averaged over {units} latent units: a hidden beta of {1 / units:.3g}"
            )
            if named:
                message += f" beside `{named}`, which acts as {d.weight:.3g}"
        elif not named and variance > _ALIKE and likelihood.averaged(variance * units):
            message = (
                f"the KL is averaged over {units} latent units and the reconstruction over "
                f"{likelihood.features} features: the KL weighs {variance:.3g} times too much"
            )
            cure = "sum both over their units"
        else:
            continue
        yield Finding(
            message,
            help=f"{cure} and average over the batch: `kl.sum(-1).mean()`",
            at=d.at,
            measured={
                "KL weight a row": d.weight,
                "units": units,
                "reconstruction weight a row": likelihood.weight,
            },
            causes=frozenset({"kl"}),
            plots=(weight_plot(d.weight, likelihood.weight),),
        )


def _averaged(pull: Pull, own: Mapping[str, float]) -> tuple[int, str]:
    """Over how many units the KL is averaged, and the model's own weight that it has besides."""
    weights = {"": 1.0} | {name: value for name, value in own.items() if value not in (0, 1)}
    if any(abs(pull.weight / value - 1) < _EXACT for value in weights.values()):
        return 0, ""
    for name, value in weights.items():
        for units in pull.averages:
            if units > 1 and abs(pull.weight * units / value - 1) < _EXACT:
                return units, name
    return 0, ""
