"""VAE701."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

from ...finding import Finding, Severity, Verified
from ...plot import kl_plot
from ...rule import Unavailable, rule

if TYPE_CHECKING:
    from ...examine.examination import Examination
    from ...examine.objective.correlated import MatrixKL
    from ...examine.objective.discrete import DiscreteKL
    from ...examine.objective.divergence import Divergence
    from ...examine.objective.laplace import LaplaceKL
    from ...examine.objective.learned import LearnedPrior
    from ...finding import Number


_WHOLE = 0.01  # around the weight of the whole KL, averaged or summed over the batch
_SLIPS = {
    "root": "the scale's term of the KL has the ratio of the scales where its square belongs",
    "fourth power": "the scale's term of the KL squares the ratio of the two variances",
    "not squared": "the KL divides the means' squared distance by the prior's scale, not its "
    "square",
    "not divided": "the KL does not divide the squared distance of the means by the prior's "
    "variance",
    "own variance": "the KL divides the means' squared distance by the posterior's variance, not "
    "the prior's",
    "upside down": "the scale's term of the KL has the ratio of the two variances upside down",
    "no half": "the KL is least where the sample's scale is {least:.3g} times the prior's: a ½ is "
    "missing beside its logarithms",
    "one half more": "the KL is least where the sample's scale is {least:.3g} times the prior's: a "
    "½ is too much beside its logarithms",
    "logarithm": "the prior's logarithm weighs {logarithm:.3g} times as much as the KL's rest: "
    "a scale stands for its square, or the logarithm is missing",
    "multiplied": "the KL divides one of its terms by the prior's variance and multiplies the "
    "other by it",
    "linear": "the distance of the means enters the KL without its square",
    "turned": "the prior's logarithm is subtracted in the KL, where it is added",
    "twin": "the prior's scale in the KL is the power {twin:.3g} of what the sampler takes from "
    "the same line",
    "weight": "the means weigh {factor:.3g} times as much in the KL as the scales",
}

_SLIPS_OF_MATRICES = {
    "half": "the covariance's log-determinant weighs half as much as the KL's rest",
    "twice": "the covariance's log-determinant weighs twice as much as the KL's rest",
    "none": "the covariance's log-determinant is missing in the KL",
    "diagonal": "the KL knows the diagonal of the matrix alone that the noise is multiplied by",
    "root": "the KL takes for the covariance the matrix that the noise is multiplied by",
}


@rule("VAE701", Severity.ERROR)
def kl_formula_mismatch(examination: Examination) -> Iterator[Finding | Verified]:
    """The KL in the loss is not the KL of the distribution that is sampled.

    ## What it checks
    The KL is isolated by holding the decoder fixed, with heads and noise forced. R is the loss's
    gradient at the scale head over that of the exact KL to N(0, I) at the same weight: 1 at both
    settings for every correct parametrisation, in closed form or by one sample.

    Beside another prior, log q(z) alone is judged: with z replaced by known values its gradients
    at the two heads have to be those of one normal density at one weight.

    Beside a learned prior N(a, b²) both are held: the gradient at log s is w (s²/b² - 1) and the
    second derivative at the location w/b², with one w and the b of every element, or a square or
    a division was forgotten, a ratio is upside down or the distance is divided by s². If that b is
    √2 or √½ times what the model computes as the prior's scale, and not it, a half is missing or
    too much. The prior's own gradient at log b has to be w (1 - (s² + (m - a)²)/b²): a 1 that is
    2, ½, 0 or -1 is a scale that stands for its square, or a logarithm that is missing or has its
    sign turned. Of a mixture prior whose components are forced to one log-density the loss has to
    fall as that rises.
    A line that makes what both scales come from makes them alike: that b is another power of it
    than the sampler's scale is a warning. Balanced KLs, which weigh the prior's side otherwise,
    keep the 1.

    A scale term that is exactly that of N(0, I) beside a location that is pulled with one
    strength wherever it is (`|mu|` for `mu**2`) is the KL to no prior at all.

    Of a Laplace latent the location's gradient gives the weight of a KL to Laplace(0, p), and what
    it leaves of the scale's has to be that of one logarithm. Where the location weighs as much as
    the likelihood, a logarithm of twice or half that weight is a warning: a KL to Laplace(0, 2) has
    the logarithm of the likelihood's weight.

    Of noise that meets a matrix the sample's Jacobian J by it gives the covariance J Jᵀ, and the
    scale's gradient has to be that of ½ (|J|² - log det J Jᵀ). Five slips are told by name.

    The KL of categories has the gradient of one at the logits, along the axis on which the sample
    adds up to 1, and along no other.

    A loss that knows the scale alone, as the entropy of q does, has no prior: a warning.

    ## Why it matters
    A missing square, a factor 2, a log of the wrong quantity: the minimum moves away from the
    prior, so the variance drifts, and the reported ELBO is no bound.

    ## How to fix
    For a log-variance: `-0.5 * (1 + logvar - mu**2 - logvar.exp())`, summed over the latent.

    ## False alarms
    Judged only where the location term has one weight for all elements, which says that the prior
    is N(0, I); learned, mixture, Vamp, hierarchical and autoregressive priors, flows and total
    correlation are skipped, and a prior N(0, w² I) is recognised (but for w² of ½ and 2, which a
    slip at the logarithm gives too). Never judged by names or by the sign of a logged number.

    ## References
    Kingma and Welling, Auto-Encoding Variational Bayes, 2014, appendix B.
    """
    laplaces = [d for d in examination.laplaces if d.located]
    yield from _laplaces(examination, laplaces)
    matrices = [d for d in examination.matrices if d.standard or d.slip]
    yield from _matrices(matrices)
    misaligned = examination.misaligned
    yield from _misaligned(misaligned)
    others = bool(laplaces or matrices or misaligned)
    try:
        found = [*examination.require_divergences(), *examination.upper_pulls]
    except Unavailable:
        if not others:
            raise
        return
    told = [*_entropies(found), *_bent(found), *_densities(examination), *_mixtures(examination)]
    yield from told
    learned = examination.learned_priors
    yield from _learned(learned)
    judged = [d for d in found if d.judgeable]
    if not any((judged, told, learned, examination.densities, others)):
        raise Unavailable("the isolated KL is not one to N(0, I): another prior, or further terms")
    for d in judged:
        yield from _standard(examination, d)


def _standard(examination: Examination, d: Divergence) -> Iterator[Finding | Verified]:
    """A KL to N(0, I), or to another width, which is VAE704's to tell."""
    if d.exact:
        low, high = d.ratios
        measured: dict[str, Number] = {"R": [low, high]}
        meant = examination.subject.beta or 1
        if any(abs(d.weight / whole - 1) < _WHOLE for whole in (meant, meant * d.rows)):
            yield Verified("the KL's formula and its ½ are right", measured)
        else:  # a ½ that is missing as a whole is a weight of 2 as well
            measured["weight a row"] = d.weight
            yield Verified("the KL's formula is right up to its weight", measured)
    elif not d.meaning and d.width is None:
        curve = examination.kl_curve(d)
        yield Finding(
            f"the KL in the loss is not that of the sample: R = {d.ratios[0]:.3g} and "
            f"{d.ratios[1]:.3g} instead of 1",
            help="use `-0.5 * (1 + logvar - mu**2 - logvar.exp())` for a log-variance",
            at=examination.formula_at(d),
            measured={
                "R": list(d.ratios),
                "scale head": [s.head for s in d.settings],
                "sampled scale": [s.scale for s in d.settings],
            },
            causes=frozenset({"latent", "kl"}),
            plots=(kl_plot(curve.heads, curve.loss, curve.true),) if curve else (),
        )


def _entropies(found: list[Divergence]) -> Iterator[Finding]:
    """Losses that know the scale alone."""
    for d in found:
        if d.entropy_only:
            yield Finding(
                "the loss has log q of the sample, and no log p that pulls it to a prior",
                help="subtract the prior's log-density of the sample: `log_q - log_p`",
                at=d.at,
                measured={"pull on the location": 0.0, "weight of log q": d.settings[0].entropy},
                severity=Severity.WARNING,
                causes=frozenset({"latent", "kl"}),
            )


def _bent(found: list[Divergence]) -> Iterator[Finding]:
    """Locations that enter otherwise than by their square."""
    for d in found:
        if d.bent:
            yield Finding(
                f"the location enters the KL as `{d.bent}`, beside the scale's term of a KL to "
                "N(0, I)",
                help="use the location's square: `-0.5 * (1 + logvar - mu**2 - logvar.exp())`",
                at=d.at,
                measured={"pull on the location": d.pull},
                causes=frozenset({"latent", "kl"}),
            )


def _laplaces(examination: Examination, found: list[LaplaceKL]) -> Iterator[Finding | Verified]:
    """KLs of Laplace latents whose location enters as in a KL to a Laplace distribution."""
    for d in found:
        measured: dict[str, Number] = {
            "weight of the location's term": list(d.pulls),
            "weight of the logarithm": [None if math.isnan(w) else w for w in d.logs],
        }
        if d.exact and (times := examination.logged(d)) != 1:
            yield Finding(
                f"the scale's logarithm weighs {times:.3g} times as much as the location and the "
                "likelihood",
                help="use `kl_divergence(Laplace(mu, b), Laplace(0, 1))`, or weigh all of it",
                at=d.at,
                measured=measured,
                causes=frozenset({"latent", "kl"}),
                severity=Severity.WARNING,
            )
        elif d.exact:
            yield Verified("the KL is that of the Laplace distribution that is sampled", measured)
        elif d.clamped is None:
            yield Finding(
                "the scale enters the KL otherwise than in one between Laplace distributions",
                help="use `kl_divergence(Laplace(mu, b), Laplace(0, 1))`",
                at=d.at,
                measured=measured,
                causes=frozenset({"latent", "kl"}),
            )


def _misaligned(found: list[DiscreteKL]) -> Iterator[Finding]:
    """KLs of categories along another axis than the sample's."""
    for d in found:
        yield Finding(
            f"the KL's probabilities add up to 1 along axis {d.axis}, the sample's along {d.own}",
            help=f"take the softmax of the KL along the axis of the categories: `dim={d.own}`",
            at=d.at,
            measured={"weight a row": d.weight, "axis of the KL": d.axis},
            causes=frozenset({"latent", "kl"}),
        )


def _matrices(found: list[MatrixKL]) -> Iterator[Finding | Verified]:
    """KLs of latents whose noise meets a matrix."""
    for d in found:
        measured: dict[str, Number] = {
            "weight of the location's term": d.weight,
            "weight of the covariance's trace": list(d.squares),
            "weight of its log-determinant": list(d.logs),
        }
        if d.standard:
            yield Verified("the KL is that of the covariance that is sampled", measured)
        else:
            yield Finding(
                _SLIPS_OF_MATRICES[d.slip],
                help="use `kl_divergence(MultivariateNormal(mu, scale_tril=L), prior)`",
                at=d.at,
                measured=measured,
                causes=frozenset({"latent", "kl"}),
            )


def _learned(found: list[LearnedPrior]) -> Iterator[Finding | Verified]:
    """KLs to priors that are learned."""
    for p in found:
        if p.exact:
            yield Verified("the KL to the learned prior is that of two normals", p.powers)
        elif p.slip:
            yield Finding(
                _SLIPS[p.slip].format(
                    least=p.least, factor=p.factor, logarithm=p.logarithm, twin=p.twin
                ),
                help="N(a, b²) as prior: `log(b / s) + (s**2 + (mu - a)**2) / (2 * b**2) - .5`",
                at=p.at,
                measured={
                    **p.powers,
                    "means' weight / scales' weight": p.factor,
                    "least at this many prior's scales": p.least,
                    "weight of the prior's logarithm": p.logarithm,
                },
                causes=frozenset({"latent", "kl"}),
                severity=Severity.WARNING if p.slip == "twin" else Severity.ERROR,
            )


def _mixtures(examination: Examination) -> Iterator[Finding]:
    """Priors of several components from whose density the sample is pushed away."""
    for m in examination.mixtures:
        if m.turned:
            yield Finding(
                f"the loss rises with the density of the prior's {m.components} components at the "
                "sample",
                help="subtract the prior's log-density of the sample: `log_q - log_p`",
                at=m.at,
                measured={"components": m.components},
                causes=frozenset({"latent", "kl"}),
            )


def _densities(examination: Examination) -> Iterator[Finding | Verified]:
    """Densities of samples beside another prior; one of another scale is VAE303's to tell."""
    for _, q in sorted(examination.densities.items()):
        if q.exact:
            yield Verified("log q in the loss is the density of the sample", {"scale": [*q.meant]})
        elif not q.apart:
            yield Finding(
                "log q in the loss is not the density of the sample",
                help="use `Normal(mu, std).log_prob(z)` with the sampler's own `std`",
                at=examination.formula_at(q),
                measured={"sampled scale": [*q.sampled], "scale in log q": [*q.meant]},
                causes=frozenset({"latent", "kl"}),
            )
