"""All measurements of one check-up, each experiment run once, lazily, and kept."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import cached_property

from torch import Tensor

from ..finding import Span
from ..rule import Unavailable
from ..subject.objective import maximised
from ..subject.subject import Subject
from ..subject.trace import versions_kept
from . import (
    anomaly,
    backward,
    batches,
    bounds,
    broadcasts,
    categorical,
    codebook,
    conditions,
    coverage,
    curves,
    dead,
    decoding,
    density,
    digits,
    discrete,
    divergence,
    family,
    halves,
    headroom,
    heads,
    importance,
    leftbehind,
    likelihood,
    logdet,
    modes,
    noise,
    noisefamily,
    numerics,
    offset,
    ownership,
    paths,
    pins,
    precision,
    reach,
    reduction,
    reload,
    rows,
    saturation,
    scale,
    shapes,
    summands,
    survey,
    swaps,
    transport,
    underflow,
    weights,
)
from .again import Again, run_again
from .anatomy import Anatomy, anatomize
from .bound import rewards_likeness
from .census import Census, defined_at, take_census
from .failure import Failure, explain
from .flow import Flow
from .gradients import Arrives, Gradients, parameter_gradients
from .inventory import registered
from .latents import Latent, same_posterior
from .listing import class_span
from .objective import compose
from .pulls import Pull
from .recording import Op, Recording
from .step import run_recorded, runs_unrecorded

MOST_LATENTS = 3  # of a hierarchy or sequence: the KL of the first ones is isolated


class Examination:
    """Lazy access to every record of one subject.

    Must be used inside `leaves_no_trace`, whose `rewind` puts the model back between experiments.
    """

    def __init__(self, subject: Subject, *, seed: int, rewind: Callable[[], None]) -> None:
        self.subject = subject
        self.seed = seed
        self._rewind = rewind

    @property
    def place(self) -> Span | None:
        """The class line of the model: where a finding without a better place goes."""
        return self.subject.at or class_span(type(self.subject.model))

    @cached_property
    def _pair(self) -> tuple[Recording, Again]:
        """One training step, and the same again with the generators running on."""
        first = run_recorded(self.subject, seed=self.seed)
        restore = self._rewind
        objective = self.subject.objective
        if objective is not None and not objective.settled and rewards_likeness(first):
            restore()
            self.subject = replace(self.subject, objective=maximised(objective))
            first = run_recorded(self.subject, seed=self.seed)
        first.registered = registered(self.subject)
        put_back = versions_kept(self.subject.model)

        def rewind() -> None:
            restore()
            put_back()

        self._rewind = rewind
        if first.error is None:
            again = run_again(self.subject, first)
        else:
            again = Again.of(first)
            self._rewind()
            if runs_unrecorded(self.subject, seed=self.seed):
                first.fault = RuntimeError(f"the model runs, but not recorded: {first.error}")
        self._rewind()
        return first, again

    def release(self) -> None:
        """Let go of the recorded step and its graph, when every rule has read its measurements."""
        if "_pair" in vars(self):
            self._pair[0].release()

    @property
    def recording(self) -> Recording:
        """One training step: forward pass and loss, recorded in train mode."""
        return self._pair[0]

    @property
    def again(self) -> Again:
        """The step once more, without reseeding."""
        return self._pair[1]

    @cached_property
    def entries(self) -> noise.Entries:
        """Tensors that came in from Python or NumPy: noise, or the model's own values."""
        if self.recording.error is not None:
            return noise.Entries()
        return noise.examine_entries(self.subject, self.recording, self.seed, self._rewind)

    @cached_property
    def flow(self) -> Flow:
        """What every value of the step depends on."""
        return Flow(self.recording, dict(self.entries.carried), self.entries.outside)

    @cached_property
    def failure(self) -> Failure | None:
        """What made the step raise, if anything did."""
        self._require_sound()
        guessed = self.subject.batch.guessed
        return explain(self.subject.model, self.recording, self.flow, guessed=guessed)

    def _require_sound(self) -> None:
        if self.recording.fault is not None:
            raise self.recording.fault

    def _require_run(self) -> None:
        self._require_sound()
        if self.recording.error is not None:
            raise Unavailable("the training step raises before it can be measured")

    @cached_property
    def anatomy(self) -> Anatomy:
        """Which values are x, x_hat and the latents."""
        self._require_run()
        return anatomize(self.recording, self.flow)

    @cached_property
    def family(self) -> family.Family:
        """The family of the model, how sure that is, and what it rests on."""
        return family.identify(self)

    def rewind(self) -> None:
        """Put the model back."""
        self._rewind()

    def require_latents(self) -> list[Latent]:
        """The stochastic nodes, or `Unavailable` with the reason."""
        if not self.anatomy.latents:
            raise Unavailable(self.no_latent)
        return self.anatomy.latents

    @property
    def no_latent(self) -> str:
        """Why there is no latent to judge."""
        if self.anatomy.quantizer is not None:
            return f"the latent is quantised, not sampled ({self.family})"
        if self.anatomy.unsampled is not None:
            return "no sample is made in this forward pass"
        sure = not self.anatomy.latents and self.family.confidence != "low"
        known = f" ({self.family})" if sure else ""
        return f"no stochastic latent found in this forward pass{known}"

    @cached_property
    def census(self) -> Census:
        """Which layers and parameters exist, and what the step did with them."""
        self._require_run()
        return take_census(self.subject.model, self.recording, self.again)

    @cached_property
    def loss(self) -> Tensor | None:
        """The user's loss, or one composed from the anatomy (see `composed`)."""
        self._require_run()
        loss: Tensor | None = self.recording.loss
        return compose(self.anatomy) if loss is None else loss

    @property
    def assembled(self) -> bool:
        """Whether the forward pass itself was composed from the model's parts."""
        return self.subject.calling.parts is not None

    @property
    def composed(self) -> bool:
        """Whether no objective was given or found and vaedoctor made one up."""
        return self.recording.loss is None

    @cached_property
    def gradients(self) -> Gradients:
        """The loss's gradient at every trainable parameter."""
        return parameter_gradients(self.recording, self.loss, self.composed)

    def require_gradients(self) -> Gradients:
        """The gradients, or `Unavailable` where the backward pass raises or there is no loss."""
        if self.gradients.loss is None:
            raise Unavailable("no loss and no reconstruction found; supply --objective")
        if self.gradients.error is not None:
            raise Unavailable("the backward pass raises (VAE606)")
        return self.gradients

    @cached_property
    def reparameterizations(self) -> list[paths.Reparameterization]:
        """How the gradient passes each latent whose parameters carry a gradient."""
        latents = self.anatomy.latents
        try:
            found = [paths.reparameterization(self.anatomy, latent) for latent in latents]
        except RuntimeError:
            if self.gradients.error is not None:
                raise Unavailable("the backward pass raises (VAE606)") from None
            raise
        return [r for r in found if r is not None]

    @cached_property
    def decoding(self) -> decoding.Decoding:
        """What the decoder is fed: the sample, posterior parameters, or neither."""
        return decoding.examine_decoding(self.anatomy, self.subject.model)

    @cached_property
    def identical_heads(self) -> list[heads.Identical]:
        """Pairs of location and scale that are one tensor."""
        return list(heads.identical_heads(self.anatomy))

    @cached_property
    def frozen_noise(self) -> list[noise.FrozenNoise]:
        """Noise that two passes with running generators share."""
        return list(noise.frozen_noise(self.anatomy, self.again, self.subject.model))

    def outside_at(self, latent: Latent) -> Span | None:
        """The line at which noise from outside torch enters."""
        return noise.entered_at(latent, self.flow, self.subject.model)

    @cached_property
    def shared_noise(self) -> list[noise.SharedNoise]:
        """Latents whose rows are all moved by one draw."""
        if self.subject.batch_axis is None:
            raise Unavailable("rows are declared not to be samples (batch_axis=None)")
        return list(noise.shared_noise(self.anatomy))

    @cached_property
    def losses_of_gradient(self) -> list[paths.Lost]:
        """Parameters without gradient, grouped by what keeps it from them."""
        gradients = self.require_gradients()
        return list(paths.lost_gradients(self.anatomy, gradients, self.subject.model))

    @cached_property
    def dead_branches(self) -> list[dead.Dead]:
        """Branches whose gradient stays exactly zero on other batches and nudged weights."""
        gradients = self.require_gradients()
        zero = [g for g in gradients.by_name.values() if g is not None and not (g != 0).any()]
        if not zero:
            return []
        largest = self.survey.largest
        return list(dead.dead_branches(self.anatomy, gradients, largest, self.subject.model))

    @cached_property
    def gradient_scale(self) -> scale.GradientScale:
        """Gradient to weight ratios of encoder and decoder."""
        return scale.gradient_scale(self.anatomy, self.require_gradients())

    @cached_property
    def steepest(self) -> scale.Steepest:
        """Where the gradient loses, and gains, the most on its way back through the encoder."""
        return scale.steepest(self.anatomy, self.require_gradients())

    @cached_property
    def backward_fault(self) -> backward.BackwardFault | None:
        """What autograd raised, explained; None where the backward pass runs."""
        fault = backward.backward_fault(self.recording, self.gradients)
        return fault or backward.kept_graph(self.again)

    @cached_property
    def ownership(self) -> ownership.Ownership | None:
        """What the optimizers own; None where none is known."""
        optimizers = self.subject.optimizers
        if not optimizers:
            return None
        return ownership.ownership(self.subject.model, optimizers, self.require_gradients())

    @cached_property
    def compared(self) -> shapes.Compared | None:
        """The shapes of reconstruction and input where they are compared."""
        return shapes.compared(self)

    @cached_property
    def _divergences(self) -> tuple[list[divergence.Divergence], str]:
        """The isolated KL of the first latents, and why any was left out."""
        found, reason = [], self.no_latent
        sampled = self.anatomy.sampled
        alike = (any(same_posterior(x, y) for y in sampled[:i]) for i, x in enumerate(sampled))
        apart = [x for x, known in zip(sampled, alike, strict=True) if not known]
        for latent in apart[:MOST_LATENTS]:
            try:
                found.append(
                    divergence.isolate(self.subject, self.anatomy, latent, self.seed, self._rewind)
                )
            except Unavailable as why:
                reason = str(why)
        return found, reason

    def require_divergences(self) -> list[divergence.Divergence]:
        """The isolated KL of every latent for which it can be had; Unavailable where of none."""
        if self.composed:
            raise Unavailable("no objective given or found; supply --objective")
        if isinstance(self.loss, Tensor) and not self.loss.requires_grad:
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

    def require_pulls(self) -> list[Pull]:
        """What pulls each latent to its prior, of Gaussian and of categorical latents."""
        try:
            return [*map(self._pull, self.require_divergences()), *self._discrete]
        except Unavailable:
            if self.composed or not self.loss_depends or not self._discrete:
                raise
            return [*self._discrete]

    def term_at(self, latent: Latent) -> Span | None:
        """Where the term on a latent is made that joins the rest; None where there is no sum."""
        return summands.term_at(self.anatomy, latent)

    def turned_at(self, latent: Latent) -> Span | None:
        """Where the sign of a latent's KL is turned; None where the loss is no plain sum."""
        return summands.turned_at(self.anatomy, latent)

    def _pull(self, d: divergence.Divergence) -> Pull:
        return self.densities.get(d.latent.z.index, d)

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

    @property
    def densities_or_none(self) -> dict[int, density.Density]:
        """The same; empty where no latent's KL can be isolated."""
        with suppress(Unavailable):
            return self.densities
        return {}

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

    @property
    def loss_depends(self) -> bool:
        """Whether the user's loss depends on any parameter."""
        return isinstance(self.loss, Tensor) and self.loss.requires_grad

    def divergence_of(self, latent: Latent) -> divergence.Divergence | None:
        """The isolated KL of one latent, if it was measured."""
        if self.composed:
            return None
        found = (d for d in self._divergences[0] if same_posterior(d.latent, latent))
        return next(found, None)

    def kl_curve(self, divergence: Pull) -> curves.KLCurve | None:
        """The KL over the scale head, to prove a finding; None where it cannot be swept."""
        if isinstance(divergence, discrete.DiscreteKL | density.Density):
            return None
        try:
            return curves.kl_curve(self.subject, self.anatomy, divergence, self.seed, self._rewind)
        except (Unavailable, RuntimeError):
            return None

    def unit_kl(self, latent: Latent) -> tuple[float, ...]:
        """The KL of each unit to N(0, I), largest first; empty where it cannot be had."""
        with suppress(Unavailable):
            return curves.unit_kl(latent)
        return ()

    @cached_property
    def swaps(self) -> swaps.Swaps | None:
        """The reconstruction error with another latent; None where it cannot be had."""
        try:
            return swaps.swap_latents(self.subject, self.anatomy, self.seed, self._rewind)
        except (Unavailable, RuntimeError):
            return None

    @cached_property
    def _likelihood(self) -> likelihood.Likelihood | None:
        return likelihood.likelihood(self.anatomy)

    @property
    def likelihood_or_none(self) -> likelihood.Likelihood | None:
        """The reconstruction term of the user's loss, where it fits a plain likelihood."""
        return None if self.stuck or self.composed else self._likelihood

    def require_likelihood(self) -> likelihood.Likelihood:
        """The reconstruction term, or `Unavailable` where it fits no plain likelihood."""
        if self.composed:
            raise Unavailable("no objective given or found; supply --objective")
        if self._likelihood is None:
            raise Unavailable("the reconstruction term fits no plain likelihood")
        return self._likelihood

    @cached_property
    def comparisons(self) -> list[likelihood.Comparison]:
        """Operations of the loss that compare the input with the model's output."""
        if self.failure is not None:
            return list(likelihood.compared_in(self.recording, self.flow, None))
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
    def loss_at(self) -> Span | None:
        """The line that makes the loss, or the objective's own."""
        loss = self.recording.loss
        value = self.recording.value_of(loss) if isinstance(loss, Tensor) else None
        if value is not None and value.op is not None and value.op.span is not None:
            return value.op.span
        return self.subject.objective.at if self.subject.objective else None

    @property
    def loss_cut(self) -> paths.Cut | None:
        """The operation between x_hat (or else a parameter) and the loss that cuts the gradient."""
        loss, x_hat = self.recording.loss, self.anatomy.x_hat
        value = self.recording.value_of(loss) if isinstance(loss, Tensor) else None
        if value is None or x_hat is None:
            return None
        leaves = (v for v in self.recording.values if v.source == "parameter" and v.requires_grad)
        starts = (x_hat, *leaves)
        return next((cut for v in starts if (cut := paths.cut_between(self.flow, v, value))), None)

    @cached_property
    def batch_reduction(self) -> reduction.Reduction | None:
        """How KL and reconstruction scale with the batch; None where not measured."""
        full, recon = self.require_pulls()[0], self.require_likelihood()
        if self.subject.batch_axis != 0:
            return None
        which = next(i for i, x in enumerate(self.anatomy.sampled) if x is full.latent)
        run = (self.subject, full, which, recon, self.seed, self._rewind)
        found = reduction.batch_reduction(*run)
        at = self.term_at(full.latent)
        return replace(found, at=at) if found is not None and at is not None else found

    @property
    def one_weight(self) -> float | None:
        """The KL's weight over the reconstruction's where that proves them reduced alike."""
        return reduction.one_weight(self.require_pulls()[0], self.require_likelihood())

    @cached_property
    def head_reaches(self) -> list[bounds.Reach]:
        """The reach of location and scale behind every head that an activation follows."""
        return list(bounds.reaches(self.subject, self.anatomy, self.seed, self._rewind))

    @cached_property
    def kl_offsets(self) -> list[offset.Offset]:
        """What every reported KL is at the prior."""
        found = self.require_divergences()
        run = (self.subject, self.anatomy, found, self.seed, self._rewind)
        return list(offset.all_offsets(*run))

    @cached_property
    def log_dets(self) -> list[logdet.LogDet]:
        """The log-determinants that flows report, beside those of their Jacobians."""
        return list(logdet.log_dets(self.anatomy))

    @cached_property
    def noise_misfits(self) -> list[noisefamily.Misfit]:
        """Samplers whose noise is not the one that the KL in the loss takes it for."""
        if self.composed or not self.loss_depends:
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

    @property
    def _rows(self) -> int | None:
        """How many samples the batch holds, if its axis is known."""
        axis, x = self.subject.batch_axis, self.anatomy.x
        return x.shape[axis] if axis is not None and x is not None and x.shape else None

    @cached_property
    def kl_div_misuses(self) -> list[categorical.Misuse]:
        """Calls of `F.kl_div` with operands of the wrong kind or another first axis."""
        return list(categorical.misuses(self.recording, self._rows))

    @cached_property
    def dead_weights(self) -> list[weights.DeadWeight]:
        """Loss weights kept on the model that change nothing."""
        return list(weights.dead_weights(self.subject, self.recording, self.seed, self._rewind))

    @cached_property
    def survey(self) -> survey.Survey:
        """Gradients at other batches and at slightly moved weights."""
        return survey.take_survey(self.subject, self.seed, self._rewind)

    @cached_property
    def anomaly(self) -> anomaly.Anomaly | None:
        """The first operation that made a gradient non-finite, by anomaly mode; None if none."""
        gradients = self.require_gradients()
        return anomaly.find(self.subject, self.recording, gradients, self.seed, self._rewind)

    @cached_property
    def reloaded(self) -> reload.Reload:
        """A fresh instance with the same `state_dict`, compared on the same noise."""
        self._require_run()
        return reload.reload(self.subject, self.seed, self._rewind)

    @cached_property
    def pinned(self) -> pins.Pinned:
        """The step with every latent held fixed: what x_hat still knows of x."""
        return pins.pin_latents(self.subject, self.anatomy, self.seed, self._rewind)

    @cached_property
    def clamps(self) -> list[saturation.Clamped]:
        """Clamps on the way from the encoder to the sample or the loss, and their saturation."""
        return list(saturation.clamps(self.anatomy))

    @cached_property
    def posterior_shapes(self) -> list[shapes.PosteriorShapes]:
        """Location and scale that differ in shape or were split along the batch axis."""
        return list(shapes.posterior_shapes(self))

    @cached_property
    def isolation(self) -> rows.Isolation:
        """How much a row of x_hat depends on other rows of x in evaluation mode."""
        return rows.isolate_rows(self.subject, self.anatomy, self.seed, self._rewind)

    @cached_property
    def sizes(self) -> batches.Sizes:
        """Fewer rows, one row and twice the rows, against the batch as it is."""
        try:
            isolated = not self.isolation.mixed
        except Unavailable as why:
            if "batch_axis" in str(why):
                raise
            isolated = False
        return batches.try_sizes(
            self.subject, self.anatomy, self.seed, self._rewind, compare=isolated
        )

    @cached_property
    def outer_products(self) -> list[broadcasts.Outer]:
        """Elementwise operations that pair every row with every row by accident."""
        if self.subject.batch_axis is None:
            raise Unavailable("rows are declared not to be samples (batch_axis=None)")
        count = broadcasts.batch_rows(self.anatomy, self.subject.batch_axis)
        return list(broadcasts.outer_products(self.anatomy, count))

    @cached_property
    def eval_latents(self) -> list[modes.EvalLatent]:
        """What enters the decoder in evaluation mode, beside the posterior's parameters."""
        return modes.eval_latents(self.subject, self.anatomy, self.seed, self._rewind)

    @cached_property
    def embeddings(self) -> list[modes.Embedding]:
        """What `encode` and its kin return twice in evaluation mode."""
        return modes.embeddings(self.subject, self.seed, self._rewind)

    @cached_property
    def conditions(self) -> list[conditions.Condition]:
        """What conditions and masks among the inputs change."""
        return conditions.conditions(self.subject, self.anatomy, self.seed, self._rewind)

    @cached_property
    def coverage(self) -> coverage.Coverage:
        """Which parts of the reconstruction the user's loss looks at."""
        return coverage.coverage(self.subject, self.anatomy, self.seed, self._rewind)

    @cached_property
    def codebooks(self) -> list[codebook.Codebook]:
        """Every look-up of a nearest code, or `Unavailable` where there is none."""
        found = codebook.find_codebooks(self.anatomy)
        if not found:
            raise Unavailable("no look-up of a nearest code in this forward pass")
        return found

    @cached_property
    def code_changes(self) -> codebook.Changes:
        """How the tables change in training forwards and in an evaluation forward."""
        return codebook.changes(self.subject, self.codebooks, self.seed, self._rewind)

    def codebook_gradient(self, book: codebook.Codebook) -> Arrives:
        """What gradient a look-up's table gets from the loss."""
        return codebook.table_gradient(self.anatomy, book)

    def codebook_term_at(self, book: codebook.Codebook) -> Span | None:
        """The line of the loss's term on a look-up, or of the look-up itself."""
        return codebook.term_at(self.anatomy, book)

    @cached_property
    def codebook_weights(self) -> list[tuple[codebook.Codebook, codebook.Weights]]:
        """The look-ups that have both a commitment and a codebook term, with their weights."""
        if self.composed:
            raise Unavailable("the codebook's loss is not known; supply --objective")
        weighed = [(b, codebook.weights(self.anatomy, b)) for b in self.codebooks]
        return [(book, weight) for book, weight in weighed if weight is not None]

    @cached_property
    def declared_betas(self) -> frozenset[float]:
        """Weights that the code names for the commitment, or multiplies a term of the loss with."""
        return frozenset(codebook.declared_betas(self.subject.model, self.recording))

    @property
    def codebooks_or_none(self) -> list[codebook.Codebook]:
        """Every look-up of a nearest code; empty where there is none."""
        return codebook.find_codebooks(self.anatomy)

    @cached_property
    def rounding(self) -> codebook.Rounding | None:
        """A rounding between the encoder and the reconstruction, as of FSQ; None if none."""
        return codebook.rounding(self.anatomy)

    @property
    def stuck(self) -> bool:
        """Whether the step raises."""
        return self.recording.error is not None

    @cached_property
    def scattered(self) -> leftbehind.Scattered | None:
        """A parameter on another device than the rest, mixed with them; None if none."""
        self._require_sound()
        return leftbehind.scattered(self.subject.model, self.recording)

    def defined_at(self, path: str) -> Span | None:
        """Where the user's code assigns a layer or parameter."""
        return defined_at(self.subject.model, path)

    @cached_property
    def move(self) -> leftbehind.Moved:
        """The model as if on an accelerator: what stays behind, and what names a device."""
        if self.scattered is not None:
            raise Unavailable("the parameters are on several devices (VAE201)")
        found = [] if self.stuck else self.anatomy.latents
        latent = found[0].z.tensor.detach().clone() if found else None
        return leftbehind.examine_move(
            self.subject, self.seed, self._rewind, latent=latent, stuck=self.stuck
        )

    @cached_property
    def ends(self) -> frozenset[int]:
        """Values from which the loss or an output is computed."""
        loss = self.recording.loss
        values = [o.value for o in self.anatomy.outputs]
        last = self.recording.value_of(loss) if loss is not None else None
        return self.flow.ancestors(*values, *([last] if last is not None else []))

    @cached_property
    def non_finite(self) -> numerics.NonFinite | None:
        """Where NaN or infinity begins; None where the loss and the outputs are finite."""
        self._require_sound()
        if self.stuck:
            if not numerics.about_values(self.recording.error):
                raise Unavailable("the training step raises before it can be measured")
        elif numerics.bad_end(self.recording.loss, self.recording.output) is None:
            return None
        return numerics.first_non_finite(self.subject, self.seed, self._rewind)

    def fed_by_scale(self, op: Op | None) -> bool:
        """Whether an operation is a logarithm or quotient of a sampler's scale."""
        if op is None or self.stuck or op.name in numerics.EXPONENTIALS:
            return False
        scales = {x.scale.index for x in self.anatomy.latents if x.scale is not None}
        twins = [o for o in self.recording.ops if o.index == op.index and o.name == op.name]
        return any(scales & self.flow.ancestors(*o.reads) for o in twins if o.reads)

    @cached_property
    def headroom(self) -> list[headroom.Headroom]:
        """Exponentials near the largest argument their number type holds."""
        self._require_run()
        found = (self.subject, self.recording, self.flow, self.ends)
        return headroom.headroom(*found, self.seed, self._rewind)

    @cached_property
    def reached(self) -> list[reach.Reached]:
        """Logarithms, roots and divisions that can be fed zero or less."""
        self._require_run()
        try:
            return list(reach.reach(self.subject, self.anatomy, self.ends, self.seed))
        finally:
            self._rewind()

    @cached_property
    def underflows(self) -> list[underflow.Underflow]:
        """Samplers whose scale has underflowed; what bounds it by zero is VAE311's to say."""
        blown = self.non_finite.op.index if self.non_finite and self.non_finite.op else -1
        found = [
            u
            for u in underflow.underflows(self.anatomy)
            if u.op is None or u.op.index != blown  # one that overflows as well: VAE801
        ]
        if all(u.vanished for u in found):
            return found
        with suppress(Unavailable):
            if any(s.scale <= 0 for d in self.require_divergences() for s in d.settings):
                return [u for u in found if u.vanished]
        return found

    @cached_property
    def fixed_type(self) -> tuple[precision.FixedType | None, str]:
        """What keeps the model from float64 or bfloat16, and in which type it ran."""
        self._require_run()
        try:
            return precision.fixed_type(self.subject, self.seed, self._rewind)
        finally:
            self._rewind()

    @cached_property
    def _half_runs(self) -> list[halves.HalfRun]:
        """The step in float16 and in bfloat16, shared by what looks for its faults."""
        latent = digits.judged(self.subject, self.anatomy)
        keep = [v for v in (latent.loc, latent.scale) if v is not None] if latent else []
        return halves.half_runs(self.subject, self.recording, keep, self.seed, self._rewind)

    @cached_property
    def lost_digits(self) -> digits.LostDigits | None:
        """How far half precision moves the KL of a trained posterior; None where it is little."""
        self._require_run()
        latent = digits.judged(self.subject, self.anatomy)
        if latent is None:
            return None
        found = (self.subject, self.recording, latent, self._half_runs)
        return digits.lost_digits(*found, self.seed, self._rewind)

    @cached_property
    def half_overflow(self) -> halves.Overflow | None:
        """What is not finite under autocast and is in float32."""
        self._require_run()
        if self.non_finite is not None:
            raise Unavailable("the step is not finite in float32 either (VAE801)")
        if not halves.near_a_limit(self.recording):
            return None
        found = (self.subject, self.recording, self._half_runs)
        return halves.half_overflow(*found, self.seed, self._rewind)
