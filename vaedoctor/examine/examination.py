"""All measurements of one check-up, each experiment run once, lazily, and kept."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property

from torch import Tensor

from ..finding import Span
from ..rule import Unavailable
from ..subject.subject import Subject
from . import (
    anomaly,
    backward,
    dead,
    decoding,
    heads,
    noise,
    ownership,
    paths,
    pins,
    reload,
    saturation,
    scale,
    shapes,
    survey,
)
from .anatomy import Anatomy, anatomize
from .census import Census, take_census
from .failure import Failure, explain
from .flow import Flow
from .gradients import Gradients, parameter_gradients
from .latents import Latent
from .listing import class_span
from .objective import compose
from .recording import Again, Recording
from .step import run_recorded, runs_unrecorded


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
        if first.error is None:
            again = Again.of(run_recorded(self.subject, seed=None))
        else:
            again = Again.of(first)
            self._rewind()
            if runs_unrecorded(self.subject, seed=self.seed):
                first.fault = RuntimeError(f"the model runs, but not recorded: {first.error}")
        self._rewind()
        return first, again

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

    def require_latents(self) -> list[Latent]:
        """The stochastic nodes, or `Unavailable` with the reason."""
        if not self.anatomy.latents:
            raise Unavailable(self.no_latent)
        return self.anatomy.latents

    @property
    def no_latent(self) -> str:
        """Why there is no latent to judge."""
        if self.anatomy.quantizer is not None:
            return "the latent is quantised, not sampled"
        if self.anatomy.unsampled is not None:
            return "no sample is made in this forward pass"
        return "no stochastic latent found in this forward pass"

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
    def backward_fault(self) -> backward.BackwardFault | None:
        """What autograd raised, explained; None where the backward pass runs."""
        return backward.backward_fault(self.recording, self.gradients)

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
