"""The loss: the KL isolated, the reconstruction, and their weights."""

from __future__ import annotations

import itertools
from contextlib import suppress
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, cast

from torch import Tensor

from ..finding import Span
from ..rule import Unavailable
from .anatomy import hierarchy
from .anatomy.latents import Latent, same_posterior
from .examined_sampling import ExaminedSampling
from .gradients import cuts
from .objective import (
    categorical,
    curves,
    decoded,
    density,
    discrete,
    divergence,
    importance,
    laplace,
    learned,
    likelihood,
    logdet,
    mixture,
    modalities,
    offset,
    reduction,
    residual,
    summands,
    swapped,
    transport,
    weights,
)
from .objective.pulls import Pull
from .sampling import noisefamily
from .shapes import coverage, shapes

if TYPE_CHECKING:
    from .examination import Examination

MOST_LATENTS = 3  # of a hierarchy or sequence: the KL of the first and the last is isolated


class ExaminedObjective(ExaminedSampling):
    """What the loss is made of, and what its terms weigh."""

    @cached_property
    def compared(self) -> shapes.Compared | None:
        """The shapes of reconstruction and input where they are compared."""
        return shapes.compared(cast("Examination", self))

    @cached_property
    def _divergences(self) -> tuple[list[divergence.Divergence], str]:
        """The isolated KL of the first latents, and why any was left out."""
        found, reason = [], self.no_latent
        sampled = self.anatomy.sampled
        alike = (any(same_posterior(x, y) for y in sampled[:i]) for i, x in enumerate(sampled))
        apart = [x for x, known in zip(sampled, alike, strict=True) if not known]
        some = apart if len(apart) <= MOST_LATENTS else [*apart[: MOST_LATENTS - 1], apart[-1]]
        for latent in some:
            try:
                found.append(
                    divergence.isolate(self.subject, self.anatomy, latent, self.seed, self._rewind)
                )
            except Unavailable as why:
                reason = str(why)
        return found, reason

    def require_divergences(self) -> list[divergence.Divergence]:
        """The isolated KL of every latent for which it can be had; Unavailable where of none."""
        self.require_objective()
        if isinstance(self.loss, Tensor) and not self.loss_depends:
            raise Unavailable("the loss does not depend on any parameter (VAE714)")
        found, reason = self._divergences
        if not found:
            raise Unavailable(reason)
        return found

    @cached_property
    def _discrete(self) -> list[discrete.DiscreteKL]:
        """The isolated KL of the first categorical latents."""
        found: list[discrete.DiscreteKL] = []
        for latent in self.anatomy.sampled:
            known = any(same_posterior(d.latent, latent) for d in found)
            if known or len(found) == MOST_LATENTS or not discrete.is_discrete(latent):
                continue
            with suppress(Unavailable):
                found.append(self._discrete_kl(latent))
        return found

    @cached_property
    def laplaces(self) -> list[laplace.LaplaceKL]:
        """The isolated KL of the first Laplace latents."""
        found: list[laplace.LaplaceKL] = []
        for latent in self.anatomy.sampled if self.loss_depends and not self.composed else ():
            known = any(same_posterior(d.latent, latent) for d in found)
            if known or len(found) == MOST_LATENTS or not laplace.is_laplace(latent):
                continue
            with suppress(Unavailable):
                run = (self.subject, self.anatomy, latent, self.seed, self._rewind)
                found.append(laplace.laplace_kl(*run))
        return found

    def _discrete_kl(self, latent: Latent) -> discrete.DiscreteKL:
        run = (self.subject, self.anatomy, latent, self.seed, self._rewind)
        return discrete.discrete_kl(*run)

    @cached_property
    def undrawn(self) -> discrete.DiscreteKL | None:
        """Probabilities that the decoder takes though the loss holds their KL; None if none."""
        if self.composed or not self.loss_depends:
            return None
        for latent in itertools.islice(discrete.softmaxes_decoded(self.anatomy), 2):
            with suppress(Unavailable):
                found = self._discrete_kl(latent)
                if found.standard:
                    return found
        return None

    @property
    def unscored(self) -> list[Latent]:
        """Latents beside the decoder whose location and scale the loss sees by the sample alone."""
        return [] if self.composed else hierarchy.unscored(self.anatomy)

    def require_pulls(self) -> list[Pull]:
        """What pulls each latent to its prior, of Gaussian and of categorical latents."""
        try:
            return [*map(self._pull, self.require_divergences()), *self._discrete, *self.laplaces]
        except Unavailable:
            others: list[Pull] = [*self._discrete, *self.laplaces]
            if self.composed or not self.loss_depends or not others:
                raise
            return others

    def carried(self, pull: Pull, others: list[Pull]) -> bool:
        """Whether x reaches x_hat through a latent, around those of other pulls."""
        apart = [other.latent for other in others if other is not pull]
        return hierarchy.carries(self.anatomy, pull.latent, apart)

    def term_at(self, latent: Latent) -> Span | None:
        """Where the term on a latent is made that joins the rest; None where there is no sum."""
        return summands.term_at(self.anatomy, latent)

    def coefficients(self, latent: Latent) -> list[float]:
        """What the term on a latent is multiplied by where it joins the rest of the loss."""
        return list(summands.coefficients(self.anatomy, latent))

    def left_out_at(self, latent: Latent) -> Span | None:
        """Where a KL that was computed of a latent ends without reaching the loss."""
        return summands.left_out_at(self.anatomy, latent)

    def turned_at(self, latent: Latent) -> Span | None:
        """Where the sign of a latent's KL is turned; None where the loss is no plain sum."""
        return summands.turned_at(self.anatomy, latent)

    def swapped_at(self, pull: Pull) -> Span | None:
        """The call that hands the prior to a KL's function before the posterior; None if none."""
        return swapped.called_at(self.anatomy, pull.latent, pull.at)

    def _pull(self, d: divergence.Divergence) -> Pull:
        return self.densities.get(d.latent.z.index, d)

    @cached_property
    def residuals(self) -> list[residual.Residual]:
        """Samples whose squared distance from the location the loss weighs by their scale."""
        return list(residual.residuals(self.anatomy))

    @cached_property
    def densities(self) -> dict[int, density.Density]:
        """Log q of the samples whose prior is not N(0, I), by the sample's index."""
        found = {}
        for d in self.require_divergences():
            if d.standard or d.missing or d.reversed or d.entropy_only:
                continue
            with suppress(Unavailable):
                run = (self.subject, self.anatomy, d, self.seed, self._rewind)
                if (made := density.density(*run)) is not None:
                    found[d.latent.z.index] = made
        return found

    @cached_property
    def mixtures(self) -> list[mixture.Mixture]:
        """Priors of several components: whether these add up to one density."""
        found = []
        for d in self._divergences[0]:  # of categories alone there is none
            scored = self.densities.get(d.latent.z.index)
            if scored is None:
                continue
            with suppress(Unavailable):
                run = (self.subject, self.anatomy, d, scored, self.seed, self._rewind)
                if (made := mixture.mixture(*run)) is not None:
                    found.append(made)
        return found

    def learned_weight(self, d: Pull) -> float:
        """The weight a row of a KL to a prior that is learned; 0 where it is none, or not known.

        A negative one is measured again far from the prior, where no capacity is left.
        """
        if not isinstance(d, divergence.Divergence) or d.standard or d.missing:
            return 0.0
        way, weight = d.gaussian
        if way != "forward" or weight >= 0:
            return weight if way == "forward" else 0.0
        run = (self.subject, self.anatomy, d.latent, self.seed, self._rewind)
        far = divergence.isolate(*run, reach=divergence.FAR).gaussian
        return max(weight, far[1]) if far[0] == "forward" else 0.0

    @cached_property
    def learned_priors(self) -> list[learned.LearnedPrior]:
        """What the KLs to learned Gaussian priors make of location and scale."""
        found = []
        for d in self.require_divergences():
            if d.standard or d.missing or d.reversed or d.entropy_only or d.clamped:
                continue
            run = (self.subject, self.anatomy, d, self.seed, self._rewind)
            with suppress(Unavailable):
                if (made := learned.learned_prior(*run)) is not None:
                    found.append(made)
        return found

    @property
    def loss_depends(self) -> bool:
        """Whether the user's loss depends on any parameter."""
        return isinstance(self.loss, Tensor) and self.loss.grad_fn is not None

    def divergence_of(self, latent: Latent) -> divergence.Divergence | None:
        """The isolated KL of one latent, if it was measured."""
        if self.composed:
            return None
        found = (d for d in self._divergences[0] if same_posterior(d.latent, latent))
        return next(found, None)

    def kl_curve(self, divergence: Pull) -> curves.KLCurve | None:
        """The KL over the scale head, to prove a finding; None where it cannot be swept."""
        if isinstance(divergence, discrete.DiscreteKL | density.Density | laplace.LaplaceKL):
            return None
        try:
            return curves.kl_curve(self.subject, self.anatomy, divergence, self.seed, self._rewind)
        except (Unavailable, RuntimeError):
            return None

    @property
    def reconstruction_stands_in(self) -> bool:
        """Whether the reconstruction in the loss is ours, beside a KL of the user's."""
        return self.subject.objective is not None and self.subject.objective.stands_in

    @cached_property
    def _likelihood(self) -> likelihood.Likelihood | None:
        if self.reconstruction_stands_in:
            return None
        return likelihood.likelihood(self.anatomy)

    @property
    def likelihood_or_none(self) -> likelihood.Likelihood | None:
        """The reconstruction term of the user's loss, where it fits a plain likelihood."""
        return None if self.stuck or self.composed else self._likelihood

    def require_likelihood(self) -> likelihood.Likelihood:
        """The reconstruction term, or `Unavailable` where it fits no plain likelihood."""
        self.require_objective()
        if self.reconstruction_stands_in:
            raise Unavailable("forward returns a KL and no reconstruction; supply --objective")
        if self._likelihood is None:
            raise Unavailable("the reconstruction term fits no plain likelihood")
        return self._likelihood

    @property
    def pulled_away(self) -> int:
        """How many elements that are decoded the loss pulls away from the data, if all; else 0."""
        if self.composed or self.reconstruction_stands_in:
            return 0
        known = likelihood.pulled(self.anatomy)
        if known is not None and (known.away or known.towards):
            return known.away
        return decoded.pulled_away(self.anatomy)

    @cached_property
    def turned_beside(self) -> list[modalities.Turned]:
        """What is decoded beside x_hat that the loss rewards for being worse."""
        if self.composed or not self.loss_depends:
            return []
        return modalities.turned(self.subject, self.anatomy)

    @cached_property
    def comparisons(self) -> list[likelihood.Comparison]:
        """Operations of the loss that compare the input with the model's output."""
        if self.failure is not None:
            return list(likelihood.compared_in(self.recording, self.flow, None))
        if self.reconstruction_stands_in:
            return []
        x_hat = self.anatomy.x_hat
        return list(likelihood.compared_in(self.recording, self.flow, x_hat))

    @property
    def compared_at(self) -> Span | None:
        """The first line at which the loss compares the input with the model's output."""
        compared = next((c.op for c in self.comparisons), None)
        if compared is None and self.failure is None:
            compared = likelihood.meeting(self.anatomy)
        return compared.span if compared is not None else self.loss_at

    @property
    def reconstruction_turned_at(self) -> Span | None:
        """Where the sign of the reconstruction term is turned, or where it is compared."""
        kl_too = False
        with suppress(Unavailable):
            kl_too = any(d.standard and d.weight < 0 for d in self.require_divergences())
        found = None
        if self.failure is None:
            found = summands.reconstruction_turned_at(self.anatomy, kl_too)
        return found or self.compared_at

    @property
    def loss_cut(self) -> cuts.Cut | None:
        """The operation between x_hat (or else a parameter) and the loss that cuts the gradient."""
        loss, x_hat = self.recording.loss, self.anatomy.x_hat
        value = self.recording.value_of(loss) if isinstance(loss, Tensor) else None
        if value is None or x_hat is None:
            return None
        leaves = (v for v in self.recording.values if v.source == "parameter" and v.requires_grad)
        starts = (x_hat, *leaves)
        return next((cut for v in starts if (cut := cuts.cut_between(self.flow, v, value))), None)

    @cached_property
    def batch_reduction(self) -> reduction.Reduction | None:
        """How KL and reconstruction scale with the batch; None where not measured."""
        full, recon = self.require_pulls()[0], self._likelihood
        if self.subject.batch_axis != 0 or self.reconstruction_stands_in:
            return None
        run = (self.subject, self.anatomy, full, recon, self.seed, self._rewind)
        found = reduction.batch_reduction(*run)
        at = self.term_at(full.latent)
        return replace(found, at=at) if found is not None and at is not None else found

    @property
    def one_weight(self) -> float | None:
        """The KL's weight over the reconstruction's where that proves them reduced alike."""
        full, recon = self.require_pulls()[0], self._likelihood
        return reduction.one_weight(full, recon) if recon is not None else None

    @cached_property
    def kl_offsets(self) -> list[offset.Offset]:
        """What every KL that is reported, or else in the loss, is at the prior."""
        found, run = self._divergences[0], (self.seed, self._rewind)
        known = list(offset.all_offsets(self.subject, self.anatomy, found, *run))
        return [*known, *offset.discrete_offsets(self.subject, self.anatomy, self._discrete, *run)]

    @cached_property
    def log_dets(self) -> list[logdet.LogDet]:
        """The log-determinants that flows report, beside those of their Jacobians."""
        return list(logdet.log_dets(self.anatomy))

    @cached_property
    def noise_misfits(self) -> list[noisefamily.Misfit]:
        """Samplers whose noise is not the one that the KL in the loss takes it for."""
        if self.composed:
            return list(noisefamily.one_sided(self.anatomy))
        if not self.loss_depends:
            return []
        found = (self.subject, self.anatomy, self.seed, self._rewind)
        return list(noisefamily.misfits(*found, self._scored_as_normal))

    def _scored_as_normal(self, latent: Latent) -> bool:
        with suppress(Unavailable):
            scored = self.densities.get(latent.z.index)
            return scored is not None and scored.exact
        return False

    @cached_property
    def transports(self) -> list[transport.Transport]:
        """What the loss makes of every flow behind a sample."""
        if self.composed or not self.loss_depends:
            return []
        return list(transport.transports(self.subject, self.anatomy, self.seed, self._rewind))

    @cached_property
    def aggregations(self) -> list[importance.Aggregation]:
        """Log-sum-exps over the importance weights of several samples."""
        return list(importance.aggregations(self.anatomy, self._rows))

    @cached_property
    def turned_likelihoods(self) -> list[importance.Aggregation]:
        """Joins of log-weights that fall with a better reconstruction beside a KL that is right."""
        fallen = [a for a in self.aggregations if not a.rewards]
        with suppress(Unavailable):
            pulls = self.require_pulls() if fallen else []
            if any((d.standard and d.weight > 0) or self.learned_weight(d) > 0 for d in pulls):
                return fallen
        return []

    @cached_property
    def kl_div_misuses(self) -> list[categorical.Misuse]:
        """Calls of `F.kl_div` with operands of the wrong kind or another first axis."""
        return list(categorical.misuses(self.recording, self._rows))

    @cached_property
    def loss_weights(self) -> dict[str, float]:
        """What the model keeps that is named like a weight of the loss."""
        return weights.loss_weights(self.subject.model)

    @cached_property
    def dead_weights(self) -> list[weights.DeadWeight]:
        """Loss weights that change nothing.

        One that the step does read is none where no KL is at work: its warm-up may begin at 0.
        """
        run = (self.subject, self.recording, self.seed, self._rewind)
        found = list(weights.dead_weights(*run))
        acts = False
        with suppress(Unavailable):
            acts = any(w.read for w in found) and any(not d.missing for d in self.require_pulls())
        return [w for w in found if acts or not w.read]

    @property
    def weighed_at(self) -> Span | None:
        """The sum in which the first KL joins the rest of the loss; None where it is no sum."""
        with suppress(Unavailable):
            return summands.joins_at(self.anatomy, self.require_pulls()[0].latent)
        return None

    @cached_property
    def coverage(self) -> coverage.Coverage:
        """Which parts of the reconstruction the user's loss looks at."""
        return coverage.coverage(self.subject, self.anatomy, self.seed, self._rewind)
