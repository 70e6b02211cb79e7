"""All measurements of one check-up, each experiment run once, lazily, and kept."""

from __future__ import annotations

from contextlib import suppress
from functools import cached_property

from ..rule import Unavailable
from .device import leftbehind
from .examined_objective import ExaminedObjective
from .gradients import anomaly, backward, dead, lost, scale
from .gradients.survey import alive_mirrored
from .numerics import digits, halves, headroom, numerics, precision, reach
from .objective import density
from .runs.gradients import is_zero
from .runs.recording import Op
from .sampling import underflow
from .shapes import batches, broadcasts, given_back, isolation, normalised, rows
from .structure import ownership, reload


class Examination(ExaminedObjective):
    """Lazy access to every record of one subject.

    What is not here is in the rooms it is put together from: the step, sampling, the objective.
    """

    @cached_property
    def losses_of_gradient(self) -> list[lost.Lost]:
        """Parameters without gradient, grouped by what keeps it from them."""
        gradients = self.require_gradients()
        return list(lost.lost_gradients(self.anatomy, gradients, self.subject.model))

    @cached_property
    def dead_branches(self) -> list[dead.Dead]:
        """Branches whose gradient stays exactly zero on other batches and nudged weights."""
        gradients = self.require_gradients()
        zero = [g for g in gradients.by_name.values() if g is not None and is_zero(g)]
        if not zero:
            return []
        largest = self.survey.largest
        found = dead.dead_branches(self.anatomy, gradients, largest, self.subject.model)
        return [
            b
            for b in list(found)
            if not b.narrow or not alive_mirrored(self.subject, self.seed, b.narrow, self._rewind)
        ]

    @cached_property
    def gradient_scale(self) -> scale.GradientScale:
        """Gradient to weight ratios of encoder and decoder."""
        return scale.gradient_scale(self.anatomy, self.require_gradients())

    @cached_property
    def steepest(self) -> scale.Steepest:
        """Where the gradient loses, and gains, the most on its way back through the encoder."""
        return scale.steepest(self.anatomy, self.require_gradients())

    @cached_property
    def steepest_decoding(self) -> scale.Steepest:
        """The same of the way back through the decoder."""
        return scale.steepest(self.anatomy, self.require_gradients(), decoder=True)

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

    @property
    def densities_or_none(self) -> dict[int, density.Density]:
        """The same; empty where no latent's KL can be isolated."""
        with suppress(Unavailable):
            return self.densities
        return {}

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
    def isolation(self) -> isolation.Isolation:
        """How much a row of x_hat depends on other rows of x in evaluation mode."""
        return rows.isolate_rows(self.subject, self.anatomy, self.seed, self._rewind)

    @cached_property
    def normalised_over_rows(self) -> list[normalised.Normalised]:
        """Softmax over the batch where the loss takes the result for classes of a row."""
        return normalised.normalised_over_rows(self.subject, self.anatomy)

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
    def given_back(self) -> given_back.GivenBack | None:
        """What refuses a made-up picture of x_hat's size; None where nothing does."""
        return given_back.given_back(self.subject, self.anatomy, self.seed, self._rewind)

    @cached_property
    def outer_products(self) -> list[broadcasts.Outer]:
        """Elementwise operations that pair every row with every row by accident."""
        if self.subject.batch_axis is None:
            raise Unavailable("rows are declared not to be samples (batch_axis=None)")
        count = broadcasts.batch_rows(self.anatomy, self.subject.batch_axis)
        return list(broadcasts.outer_products(self.anatomy, count))

    @cached_property
    def scattered(self) -> leftbehind.Scattered | None:
        """A parameter on another device than the rest, mixed with them; None if none."""
        self._require_sound()
        return leftbehind.scattered(self.subject.model, self.recording)

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
    def non_finite(self) -> numerics.NonFinite | None:
        """Where NaN or infinity begins; None where the loss and the outputs are finite."""
        self._require_sound()
        if self.stuck:
            if not numerics.about_values(self.recording.error):
                raise Unavailable("the training step raises before it can be measured")
        elif numerics.bad_end(self.recording.loss, self.recording.output) is None:
            return None
        found = numerics.first_non_finite(self.subject, self.seed, self._rewind)
        if found is not None and found.op is not None and found.raw and self.subject.batch.guessed:
            raise Unavailable(f"`{found.op.name}` does not take the made-up batch; supply --input")
        return found

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
            run = (self.subject, self.anatomy, self.ends, self.seed, self._rewind)
            return list(reach.reach(*run))
        finally:
            self._rewind()

    @property
    def refused_scale(self) -> underflow.Refused | None:
        """A scale of zero because of which the step raised."""
        return underflow.refused(self.recording) if self.stuck else None

    @property
    def negative_scale(self) -> underflow.Negative | None:
        """A negative scale because of which the step raised."""
        return underflow.negative(self.recording) if self.stuck else None

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
