"""VAE705."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ...finding import Finding, Severity, Verified
from ...plot import weight_plot
from ...rule import Unavailable, rule

if TYPE_CHECKING:
    from ...examine.examination import Examination

_ALIKE = 2.5
_MADE_UP_FOR = 0.1  # below it a factor of the KL is there to make up for the mean


@rule("VAE705", Severity.WARNING)
def reconstruction_averaged_while_kl_summed(
    examination: Examination,
) -> Iterator[Finding | Verified]:
    """The reconstruction is averaged over features while the KL is summed.

    ## What it checks
    The weight of the isolated KL over the weight of the reconstruction, which is the observation
    variance at which the loss is an ELBO. It is exactly D_x (or D_x/2 for `mse_loss`), or that
    times a factor that the loss multiplies the KL by. Of a likelihood that is none of the plain
    ones: the weight of its elements, where the loss has one number for each.

    ## Why it matters
    The mean over D_x features divides the likelihood by D_x, so the KL outweighs it by that
    factor; the posterior collapses to the prior within a few epochs and every reconstruction is
    the mean image.

    ## How to fix
    Sum over features and average over the batch: `F.mse_loss(x_hat, x, reduction="sum") /
    len(x)`.

    ## False alarms
    Only the exact ratio is reported. A large beta that is meant: declare it with `beta=`. With one
    so small that the KL weighs less all the same, as in latent diffusion's autoencoders, nothing
    is reported; nor beside a factor below 0.1 in the loss, which makes up for the mean. Beside one
    above 1, which may be meant, it is a *note*. Nor where the weight is a parameter of the loss
    that nothing tells.

    ## References
    Rybkin, Daniilidis and Levine, Simple and Effective VAE Training with Calibrated Decoders,
    2021, section 3.
    """
    likelihood = examination.costs or examination.require_likelihood()
    objective = examination.subject.objective
    unweighed = objective.unweighed if objective is not None else None
    for d in examination.require_pulls()[:1]:
        if not d.standard:
            raise Unavailable("the weight of the KL to N(0, I) is not known")
        if likelihood.weight <= 0 or likelihood.features < 4:
            continue
        beta = examination.subject.beta
        factors = [c for c in examination.coefficients(d.latent) if c >= _MADE_UP_FOR]
        meant = [beta] if beta else [1.0, *factors]
        variance = d.weight / likelihood.weight
        times = next((b for b in meant if likelihood.averaged(variance / b)), None)
        alike = _ALIKE if beta is None else 1.0  # a factor in the loss may be to make up for it
        weighs_less = (beta or times) != 1 and d.weight <= alike * likelihood.weight
        if times is not None and not weighs_less:
            variance = d.weight / (beta or 1.0) / likelihood.weight
            if unweighed is not None:
                raise Unavailable(f"nothing tells the loss's `{unweighed}`; supply --objective")
            yield Finding(
                f"the reconstruction is averaged over {likelihood.features} features, so the KL "
                f"weighs {variance:.3g} times {_than(beta, times)}",
                help='use `reduction="sum"` and divide by the batch size',
                at=examination.compared_at or d.at,
                measured={
                    "implied observation variance": variance,
                    "KL weight a row": d.weight,
                    "reconstruction weight a row": likelihood.weight,
                    "features": likelihood.features,
                },
                causes=frozenset({"reduction"}),
                plots=(weight_plot(d.weight, likelihood.weight),),
                severity=Severity.NOTE if beta is None and times > 1 else Severity.WARNING,
            )
        elif examination.costs is None and 1 / _ALIKE < variance / (beta or 1.0) < _ALIKE:
            yield Verified(
                "KL and reconstruction are reduced alike",
                {"implied observation variance": variance / (beta or 1.0)},
            )


def _than(beta: float | None, times: float) -> str:
    """Against what the KL weighs so much: against the right loss, or where it has a factor too."""
    if beta is not None or times == 1:
        return "too much"
    return f"as much as it, with its own factor {times:.3g}"
