"""VAE703."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ...finding import Finding, Severity, Verified
from ...plot import kl_plot
from ...rule import Unavailable, rule

if TYPE_CHECKING:
    from ...examine.examination import Examination


@rule("VAE703", Severity.ERROR, before=("VAE701",))
def kl_sign_flipped(examination: Examination) -> Iterator[Finding | Verified]:
    """The KL pushes the posterior away from the prior.

    ## What it checks
    The isolated KL's weight: the loss's gradient at the location over the location itself, the
    same for all elements, is negative near the prior and far from it. Beside terms on how the rows
    lie to each other, as a total correlation, all rows are moved together, which those do not feel.

    ## Why it matters
    The loss falls without bound while the posterior runs away from the prior.

    ## How to fix
    Change the sign: the KL is `-0.5 * (1 + logvar - mu**2 - logvar.exp())` and is *added* to a
    loss.

    ## False alarms
    Judged by gradients, never by the sign of a logged number: a one-sample estimate may be
    negative. A capacity that the KL has yet to reach, `|KL - C|`, turns the sign near the prior
    only. Models that maximise the KL on purpose (introspective VAEs) should ignore the rule.

    ## References
    Kingma and Welling, Auto-Encoding Variational Bayes, 2014, section 2.2.
    """
    told, pulls = set(), examination.require_pulls()
    weights = (examination.learned_weight, examination.common_weight)
    if not any(d.standard or d.missing or any(w(d) for w in weights) for d in pulls):
        raise Unavailable("the weight of what pulls the posterior to its prior is not known")
    for d in pulls:
        if d.standard and d.weight < 0 and d.far < 0:
            curve = examination.kl_curve(d)
            yield Finding(
                f"the KL pushes the posterior away from the prior: its weight is {d.weight:.3g}",
                help="change the KL's sign in the loss",
                at=examination.sign_at(d),
                measured={"weight a row": d.weight},
                causes=frozenset({"latent", "kl"}),
                plots=(kl_plot(curve.heads, curve.loss, curve.true),) if curve else (),
            )
        elif (weight := examination.learned_weight(d)) < 0:
            at = examination.sign_at(d)
            if at in told:  # of every step of a sequence
                continue
            told.add(at)
            yield Finding(
                f"the KL pushes the posterior away from its prior: its weight is {weight:.3g}",
                help="change the KL's sign in the loss",
                at=at,
                measured={"weight a row": weight},
                causes=frozenset({"latent", "kl"}),
            )
        elif (weight := examination.common_weight(d)) < 0:
            yield Finding(
                "the loss pushes the posteriors of all rows together away from the prior: its "
                f"weight is {weight:.3g}",
                help="change the sign of the terms on the posterior in the loss",
                at=examination.sign_at(d),
                measured={"weight a row": weight},
                causes=frozenset({"latent", "kl"}),
            )
        elif d.standard and d.weight > 0:
            yield Verified("the KL's sign is right", {"weight a row": d.weight})
