"""VAE717."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ...finding import Finding, Severity, where
from ...rule import rule

if TYPE_CHECKING:
    from ...examine.examination import Examination


@rule("VAE717", Severity.ERROR)
def kl_arguments_swapped(examination: Examination) -> Iterator[Finding]:
    """The KL is taken from the prior to the posterior.

    ## What it checks
    The isolated KL's gradient fits KL(p || q), prior first, element by element: mu/s² at the
    location instead of mu.

    ## Why it matters
    The ELBO holds for KL(q || p), q being what is sampled. The reverse punishes small variances
    and gives no bound on the likelihood.

    ## How to fix
    Put the posterior first: `kl_divergence(posterior, prior)`.

    ## False alarms
    Objectives that use the reverse KL on purpose should ignore the rule. A noisy layer of the
    decoder, behind a latent that has a KL, is no posterior.

    ## References
    Kingma and Welling, Auto-Encoding Variational Bayes, 2014, section 2.2.
    """
    pulls = examination.require_pulls()
    others = [d for d in pulls if not d.reversed and not d.missing]
    for d in pulls:
        if d.reversed and examination.carried(d, others):
            call = examination.swapped_at(d)
            yield Finding(
                "the KL is taken from the prior to the posterior: KL(p || q)",
                help="put the posterior first: `kl_divergence(posterior, prior)`",
                at=call or d.at,
                measured=d.reverse_evidence,
                notes=(f"the KL of its arguments is computed in {where(d.at, call)}",)
                if call
                else (),
                causes=frozenset({"latent", "kl"}),
            )
