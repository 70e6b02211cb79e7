"""The loss as a whole: the reconstruction term, the weights of its terms, how they are reduced."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, cast

from torch import Tensor

from ..finding import Span
from ..rule import Unavailable
from .examined_pulls import ExaminedPulls
from .gradients import cuts
from .objective import (
    categorical,
    costs,
    decoded,
    density,
    importance,
    likelihood,
    modalities,
    reducing,
    reduction,
    scored,
    summands,
    weights,
)
from .objective.divergence import EXACT
from .objective.laplace import LaplaceKL
from .objective.pulls import Pull
from .runs.recording import Op
from .sampling import noisefamily
from .shapes import coverage, shapes

if TYPE_CHECKING:
    from .examination import Examination


class ExaminedObjective(ExaminedPulls):
    """The reconstruction, what the terms weigh beside each other, and what the loss leaves out."""

    @cached_property
    def compared(self) -> shapes.Compared | None:
        """The shapes of reconstruction and input where they are compared."""
        return shapes.compared(cast("Examination", self))

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
    def costs(self) -> likelihood.Likelihood | None:
        """What the elements of x_hat cost by a likelihood that is none of the plain ones."""
        if self.stuck or self.composed or self.reconstruction_stands_in or self._likelihood:
            return None
        return costs.costs(self.anatomy)

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
        x_hat, recon = self.anatomy.x_hat, self.likelihood_or_none
        found = list(likelihood.compared_in(self.recording, self.flow, x_hat))
        rates = likelihood.rate_compared(self.anatomy, recon) if recon and not found else None
        return [*found, *([rates] if rates else [])]

    @cached_property
    def scored(self) -> list[scored.Scored]:
        """Calls for probabilities, or their logarithms, that are given something else."""
        return list(scored.scored(self.recording, self.flow))

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
        for way in (cuts.barrier, cuts.cut_between):
            found = next((cut for v in starts if (cut := way(self.flow, v, value))), None)
            if found is not None:
                return found
        return None

    @cached_property
    def batch_reduction(self) -> reduction.Reduction | None:
        """How KL and reconstruction scale with the batch; None where not measured."""
        full, recon = self._unproven, self._likelihood
        if self.subject.batch_axis != 0 or self.reconstruction_stands_in:
            return None
        run = (self.subject, self.anatomy, full, recon, self.seed, self._rewind)
        found = reduction.batch_reduction(*run)
        if found is None:
            return None
        summed = found.kl <= found.reconstruction
        at = reducing.odd_one_at(self.anatomy, full.latent, full.rows, summed=summed)
        return replace(found, at=at or self.term_at(full.latent) or found.at)

    @property
    def one_weight(self) -> float | None:
        """The KL's weight over the reconstruction's where that proves them reduced alike."""
        full, recon = self._unproven, self._likelihood
        return reduction.one_weight(full, recon) if recon is not None else None

    @property
    def _unproven(self) -> Pull:
        """The first KL whose weight alone does not prove it reduced as the reconstruction is."""
        sampled = {id(x) for x in self.anatomy.sampled}
        pulls = [d for d in self.require_pulls() if id(d.latent) in sampled]
        recon = self._likelihood
        if not pulls:
            raise Unavailable("the KL of a latent beside the decoder alone can be isolated")
        weighed = (d for d in pulls[1:] if recon is not None and reduction.weight_of(d))
        first = reduction.weight_of(pulls[0])
        weights = [(d, reduction.weight_of(d)) for d in pulls[1:]]
        apart = (d for d, weight in weights if first and reduction.by_rows(weight / first, d))
        if recon is None:
            return next(apart, pulls[0])
        if reduction.one_weight(pulls[0], recon) is None:
            return next((d for d in apart if reduction.one_weight(d, recon) is None), pulls[0])
        return next((d for d in weighed if reduction.one_weight(d, recon) is None), pulls[0])

    @cached_property
    def aggregations(self) -> list[importance.Aggregation]:
        """Log-sum-exps over the importance weights of several samples."""
        return list(importance.aggregations(self.anatomy, self._rows))

    @cached_property
    def proposals(self) -> list[density.Density]:
        """Log q in the weights of several samples, where its gradient is that of a right KL.

        A factor on the noise leaves the gradient of a single sample's bound as it was, and makes
        the weights of several those of another proposal.
        """
        found = []
        for d in self.require_divergences() if self.aggregations else ():
            with suppress(Unavailable):
                run = (self.subject, self.anatomy, d, self.seed, self._rewind)
                if d.standard and d.exact and (made := density.density(*run)) is not None:
                    at = noisefamily.bent_at(d.latent) or made.sampled_at
                    found.append(replace(made, sampled_at=at))
        return found

    def excess_of(self, joined: importance.Aggregation) -> float | None:
        """What the bound is where all log-weights are 0; None where that cannot be had."""
        return importance.excess(self.subject, self.anatomy, joined, self.seed, self._rewind)

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

    @property
    def merged_rows(self) -> list[tuple[Op, int]]:
        """Calls of `F.kl_div` that divide by some variables of each row as if they were rows.

        The KL then weighs exactly as many times less than a reconstruction that is summed.
        """
        recon, rows = self.likelihood_or_none, self._rows
        found = list(categorical.merged(self.recording, rows)) if rows else []
        if not found or recon is None or not recon.weight or recon.averaged(1 / recon.weight):
            return []
        weights = {1.0, *self.loss_weights.values()} - {0.0}
        units = {value * half for value in weights for half in (1.0, 0.5)}
        with suppress(Unavailable):
            times = [reduction.weight_of(d) / recon.weight for d in self.require_pulls()]
            return [(op, n) for op, n in found if categorical.weighs_less(times, n, units)]
        return []

    @cached_property
    def loss_weights(self) -> dict[str, float]:
        """What the model keeps that is named like a weight of the loss."""
        return weights.loss_weights(self.subject.model)

    @cached_property
    def dead_weights(self) -> list[weights.DeadWeight]:
        """Loss weights that change nothing.

        One that the step does read is none where no KL is at work: its warm-up may begin at 0, and
        of free bits the KL may still be held at the bound.
        """
        run = (self.subject, self.recording, self.seed, self._rewind)
        found = list(weights.dead_weights(*run))
        acts = False
        with suppress(Unavailable):
            pulls = self.require_pulls() if any(w.read for w in found) else []
            acts = any(not d.missing and d.clamped is None for d in pulls)
        return [w for w in found if acts or not w.read]

    def logged(self, d: LaplaceKL) -> float:
        """How often a Laplace scale's logarithm counts where location and likelihood count once.

        1 where they do not, and where the loss weighs its term as the logarithm is weighed.
        """
        recon, times = self.likelihood_or_none, d.logs[0] / d.pulls[0]
        slip = any(abs(times / n - 1) < EXACT for n in (2.0, 0.5))
        if recon is None or not slip or abs(d.weight / recon.weight - 1) > EXACT:
            return 1.0
        meant = [
            self.subject.beta or 1.0,
            *self.loss_weights.values(),
            *self.coefficients(d.latent),
        ]
        return 1.0 if any(abs(w / times - 1) < EXACT for w in meant if w > 0) else times

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
