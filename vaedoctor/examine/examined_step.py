"""The step itself: what ran, what it depends on, what the loss gives back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, cast

from torch import Tensor, nn

from ..finding import Span
from ..rule import Unavailable
from ..subject.subject import Batch, Subject
from ..subject.total import maximised
from ..subject.trials.switches import versions_kept
from .anatomy.anatomy import Anatomy, anatomize
from .anatomy.latents import Latent
from .code.listing import class_span
from .gradients import survey
from .objective.bound import rewards_likeness
from .objective.objective import compose
from .picture import family
from .runs.again import Again, run_again
from .runs.flow import Flow
from .runs.gradients import Gradients, parameter_gradients
from .runs.inventory import registered
from .runs.recording import Recording, tensors_in
from .runs.step import run_recorded, runs_unrecorded
from .sampling import noise
from .shapes.coincidence import with_a_row_less
from .shapes.failure import Failure, explain
from .structure.branches import defined_at
from .structure.census import Census, take_census

if TYPE_CHECKING:
    from .examination import Examination

_OF_MODEL = frozenset(["parameter", "buffer"])


def edits_of(batch: Batch) -> list[int]:
    """How often each tensor of a batch has been written into."""
    tensors = tensors_in([batch.args, batch.kwargs])
    return [t._version for t in tensors if not t.is_inference()]


class ExaminedStep:
    """The recorded step of one subject, its anatomy and its gradients.

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
        counted = edits_of(self.subject.batch)
        first = run_recorded(self.subject, seed=self.seed)
        restore = self._rewind
        if edits_of(self.subject.batch) != counted:
            restore()
            batch = replace(self.subject.batch, edited=True)
            self.subject = replace(self.subject, batch=batch)
            first = run_recorded(self.subject, seed=self.seed)
        objective = self.subject.objective
        if objective is not None and not objective.settled and rewards_likeness(first):
            restore()
            self.subject = replace(self.subject, objective=maximised(objective))
            first = run_recorded(self.subject, seed=self.seed)
        fewer = with_a_row_less(self.subject, first) if first.error is None else None
        if fewer is not None:
            restore()
            second = run_recorded(fewer, seed=self.seed)
            if second.error is None:
                self.subject, first = fewer, second
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
        if any(v.tensor.is_meta and v.source in _OF_MODEL for v in self.recording.values):
            raise Unavailable("weights on `meta` are shapes without values (VAE201)")

    def require_objective(self) -> None:
        """`Unavailable` where the step does not run, or its loss is none of the user's."""
        self._require_run()
        if self.composed:
            raise Unavailable("no objective given or found; supply --objective")

    @cached_property
    def anatomy(self) -> Anatomy:
        """Which values are x, x_hat and the latents."""
        self._require_run()
        return anatomize(self.recording, self.flow)

    @cached_property
    def family(self) -> family.Family:
        """The family of the model, how sure that is, and what it rests on."""
        return family.identify(cast("Examination", self))

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
        if self.anatomy.quantizer is not None and not self.anatomy.latents:
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
        groups = (g for o in self.subject.optimizers for g in o.param_groups)
        owned = frozenset(id(p) for g in groups for p in g["params"])
        return take_census(self.subject.model, self.recording, self.again, owned)

    @cached_property
    def loss(self) -> Tensor | None:
        """The user's loss, or one composed from the anatomy (see `composed`)."""
        self._require_run()
        loss: Tensor | None = self.recording.loss
        return compose(self.anatomy) if loss is None else loss

    @property
    def assembled(self) -> bool:
        """Whether the forward pass itself was composed from the model's parts."""
        parts = self.subject.calling.parts
        return parts is not None and parts.assembled

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

    @property
    def loss_at(self) -> Span | None:
        """The line that makes the loss, or the objective's own."""
        loss = self.recording.loss
        value = self.recording.value_of(loss) if isinstance(loss, Tensor) else None
        if value is not None and value.op is not None and value.op.span is not None:
            return value.op.span
        return self.subject.objective.at if self.subject.objective else None

    @property
    def _rows(self) -> int | None:
        """How many samples the batch holds, if its axis is known."""
        axis, x = self.subject.batch_axis, self.anatomy.x
        return x.shape[axis] if axis is not None and x is not None and x.shape else None

    @cached_property
    def survey(self) -> survey.Survey:
        """Gradients at other batches and at slightly moved weights."""
        return survey.take_survey(self.subject, self.seed, self._rewind)

    @property
    def stuck(self) -> bool:
        """Whether the step raises."""
        return self.recording.error is not None

    def defined_at(self, path: str) -> Span | None:
        """Where the user's code assigns a layer or parameter."""
        return defined_at(self.subject.model, path)

    def built_at(self, span: Span | None, path: str) -> Span | None:
        """Where a container of layers is built, of a layer in one; else the span."""
        holder = path.rpartition(".")[0]
        modules = dict(self.subject.model.named_modules())
        if holder and type(modules.get(holder)) is nn.Sequential:
            return self.defined_at(path)
        return span

    @cached_property
    def ends(self) -> frozenset[int]:
        """Values from which the loss or an output is computed."""
        loss = self.recording.loss
        values = [o.value for o in self.anatomy.outputs]
        last = self.recording.value_of(loss) if loss is not None else None
        return self.flow.ancestors(*values, *([last] if last is not None else []))
