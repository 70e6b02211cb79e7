"""What pulls each latent to its prior: the KL isolated, priors and flows, and where they stand."""

from __future__ import annotations

from contextlib import suppress
from functools import cached_property

from torch import Tensor

from ..finding import Span
from ..rule import Unavailable
from .anatomy import hierarchy
from .anatomy.latents import Latent, same_posterior
from .examined_families import MOST_LATENTS, ExaminedFamilies
from .objective import (
    called,
    curves,
    density,
    divergence,
    flowkl,
    laplaceoffset,
    learned,
    logdet,
    mirrored,
    mixture,
    offset,
    residual,
    summands,
    swapped,
    together,
    transport,
    unpulled,
)
from .objective.divergence import Divergence
from .objective.pulls import Pull
from .runs.step import runs_unrecorded
from .sampling import noise, noisefamily


class ExaminedPulls(ExaminedFamilies):
    """The terms of the loss on the latents: of what they are, and what they weigh."""

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

    @property
    def unscored(self) -> list[Latent]:
        """Latents beside the decoder whose location and scale the loss sees by the sample alone."""
        return [] if self.composed else hierarchy.unscored(self.anatomy)

    def require_pulls(self) -> list[Pull]:
        """What pulls each latent to its prior, of Gaussian and of categorical latents."""
        others: list[Pull] = [*self._discrete, *self.laplaces, *self.matrices]
        others += self.upper_pulls
        try:
            return [*map(self._pull, self.require_divergences()), *others]
        except Unavailable:
            if self.composed or not self.loss_depends or not others:
                raise
            return others

    @property
    def units_of_one_draw(self) -> list[noise.SharedNoise]:
        """Latents of which the loss holds the KL of independent units, and one draw moves all."""
        judged: list[divergence.Divergence] = []
        with suppress(Unavailable):
            found = self.require_divergences()
            judged = [d for d in found if d.standard or self.learned_weight(d) > 0]
        units = (noise.units_of_one_draw(d.latent) for d in judged)
        return [shared for shared in units if shared is not None]

    @property
    def unpulled(self) -> list[Latent]:
        """The latents that no term of the loss pulls anywhere, where no pull can be measured."""
        if self.composed or not self.loss_depends:
            return []
        return list(unpulled.unpulled(self.anatomy))

    def rises(self, pull: Pull) -> bool:
        """Whether a KL without weight has one a step later, as where a counter raises it from 0."""
        if not isinstance(pull, divergence.Divergence):
            return False

        def step() -> None:
            self._rewind()
            runs_unrecorded(self.subject, seed=self.seed)

        run = (self.subject, self.anatomy, pull.latent, self.seed, step)
        try:
            step()
            return not divergence.isolate(*run).missing
        except Unavailable:
            return False
        finally:
            self._rewind()

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

    def cut_at(self, latent: Latent) -> Span | None:
        """Where location or scale is detached on its way into a term; None where it is not."""
        return summands.cut_at(self.anatomy, latent)

    def left_out_at(self, latent: Latent) -> Span | None:
        """Where a KL that was computed of a latent ends without reaching the loss."""
        return summands.left_out_at(self.anatomy, latent)

    def turned_at(self, latent: Latent) -> Span | None:
        """Where the sign of a latent's KL is turned; None where the loss is no plain sum."""
        return summands.turned_at(self.anatomy, latent)

    def sign_at(self, pull: Pull) -> Span | None:
        """Where a KL's sign is wrong: the sum that turns it, or else what makes the term."""
        known = self.turned_at(pull.latent)
        return known or called.call_of(self.anatomy, pull.latent, pull.at) or pull.at

    def swapped_at(self, pull: Pull) -> Span | None:
        """The call that hands the prior to a KL's function before the posterior; None if none."""
        return swapped.called_at(self.anatomy, pull.latent, pull.at)

    def formula_at(self, pull: Pull) -> Span | None:
        """Where a wrong KL is computed: at the call, where its function is right elsewhere."""
        return called.wrong_call(self.anatomy, pull.latent, pull.at) or pull.at

    def _pull(self, d: divergence.Divergence) -> Pull:
        index = d.latent.z.index
        return self.densities[index] if index in self.densities else self.flow_kls.get(index, d)

    @cached_property
    def flow_kls(self) -> dict[int, flowkl.FlowKL]:
        """KLs behind flows that the loss counts rightly, by the first sample's index."""
        found = {}
        for d in self.require_divergences():
            if d.standard or d.missing:
                continue
            for t in (t for t in self.transports if t.latent is d.latent):
                run = (self.subject, self.anatomy, d, t, self.seed, self._rewind)
                if (made := flowkl.flow_kl(*run)) is not None:
                    found[d.latent.z.index] = made
        return found

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
            if d.standard or d.missing or d.reversed or d.entropy_only:
                continue
            with suppress(Unavailable):
                run = (self.subject, self.anatomy, d, scored, self.seed, self._rewind)
                if (made := mixture.mixture(*run)) is not None:
                    found.append(made)
        return found

    @cached_property
    def _learned(self) -> dict[int, learned.Learned]:
        """The KLs to other priors than N(0, I), by the sample's index."""
        found = {}
        for d in self.require_divergences():
            if d.standard or d.missing:
                continue
            run = (self.subject, self.anatomy, d, self.seed, self._rewind)
            with suppress(Unavailable):
                found[d.latent.z.index] = learned.learned(*run)
        return found

    def learned_weight(self, d: Pull) -> float:
        """The weight a row of a KL to a prior that is learned; 0 where it is none, or not known."""
        if not isinstance(d, divergence.Divergence) or d.standard or d.missing:
            return 0.0
        found = self._learned.get(d.latent.z.index)
        return found.weight if found is not None else 0.0

    def common_weight(self, d: Pull) -> float:
        """The weight a row of N(0, I) in what pulls all rows together; 0 where it is none."""
        if not isinstance(d, divergence.Divergence) or d.standard or d.missing:
            return 0.0
        with suppress(Unavailable):
            run = (self.subject, self.anatomy, d, self.seed, self._rewind)
            return together.moved_together(*run)
        return 0.0

    @cached_property
    def learned_priors(self) -> list[learned.LearnedPrior]:
        """What the KLs to learned Gaussian priors make of location and scale."""
        judged = (
            self._learned.get(d.latent.z.index)
            for d in self.require_divergences()
            if not (d.reversed or d.entropy_only or d.clamped)
        )
        return [k.prior for k in judged if k is not None and k.prior is not None]

    def divergence_of(self, latent: Latent) -> divergence.Divergence | None:
        """The isolated KL of one latent, if it was measured."""
        if self.composed:
            return None
        found = (d for d in self._divergences[0] if same_posterior(d.latent, latent))
        return next(found, None)

    def mirrored(self, latent: Latent) -> bool:
        """Whether the loss asks the same of a latent and of its mirror image about 0."""
        run = (self.subject, self.anatomy, latent, self.seed, self._rewind)
        return self.loss_depends and not self.composed and mirrored.mirrored(*run)

    def kl_curve(self, divergence: Pull) -> curves.KLCurve | None:
        """The KL over the scale head, to prove a finding; None where it cannot be swept."""
        if not isinstance(divergence, Divergence):
            return None
        try:
            return curves.kl_curve(self.subject, self.anatomy, divergence, self.seed, self._rewind)
        except (Unavailable, RuntimeError):
            return None

    @cached_property
    def kl_offsets(self) -> list[offset.Offset]:
        """What every KL that is reported, or else in the loss, is at the prior."""
        found, run = self._divergences[0], (self.seed, self._rewind)
        known = list(offset.all_offsets(self.subject, self.anatomy, found, *run))
        known += laplaceoffset.laplace_offsets(self.subject, self.anatomy, self.laplaces, *run)
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

    @property
    def noise_bent(self) -> bool:
        """Whether noise is no standard normal's where it enters, whatever the loss makes of it."""
        return noisefamily.bent(self.anatomy)

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
