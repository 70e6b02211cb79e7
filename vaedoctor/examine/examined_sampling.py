"""From the heads to the decoder: samplers, noise, codes, modes."""

from __future__ import annotations

from contextlib import suppress
from functools import cached_property
from typing import TYPE_CHECKING, cast

from ..finding import Span
from ..rule import Unavailable
from .anatomy import decoders, evaluation
from .anatomy.latents import Latent
from .codebook import changes, codebook, codeplaces, codeterms, rounding, undecoded
from .examined_step import ExaminedStep
from .gradients import cuts, reparameterized
from .latent import conditions, embeddings, modes, pins, swaps
from .objective import curves
from .runs.gradients import Arrives
from .runs.recording import Op
from .sampling import bounds, decoding, discarded, heads, noise, saturation
from .shapes import shapes

if TYPE_CHECKING:
    from .examination import Examination


class ExaminedSampling(ExaminedStep):
    """What is sampled, and what the decoder makes of it."""

    @cached_property
    def reparameterizations(self) -> list[reparameterized.Reparameterization]:
        """How the gradient passes each latent whose parameters carry a gradient."""
        latents = self.anatomy.latents
        try:
            found = [reparameterized.reparameterization(self.anatomy, latent) for latent in latents]
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
    def discarded(self) -> discarded.Discarded | None:
        """A sample that is made and not decoded, while its mean is."""
        return discarded.find_discarded(self.anatomy, self.decoding)

    @cached_property
    def samples_in_evaluation(self) -> bool:
        """Whether a sample reaches the reconstruction in evaluation mode."""
        return evaluation.samples_in_evaluation(self.subject, self.seed, self._rewind)

    @property
    def ignored_at(self) -> Span | None:
        """Where the sample is lost on its way to a reconstruction that does not depend on it."""
        return discarded.ignored_at(self.anatomy, self.decoding)

    @property
    def decoded_otherwise(self) -> bool:
        """Whether layers make an output of a latent that is not x_hat."""
        return decoders.decoded_otherwise(self.anatomy) is not None

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
    def head_reaches(self) -> list[bounds.Reach]:
        """The reach of location and scale behind every head that an activation follows."""
        return list(bounds.reaches(self.subject, self.anatomy, self.seed, self._rewind))

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
        return list(shapes.posterior_shapes(cast("Examination", self)))

    @cached_property
    def eval_latents(self) -> list[modes.EvalLatent]:
        """What enters the decoder in evaluation mode, beside the posterior's parameters."""
        return modes.eval_latents(self.subject, self.anatomy, self.seed, self._rewind)

    @cached_property
    def embeddings(self) -> list[embeddings.Embedding]:
        """What `encode` and its kin return twice in evaluation mode."""
        return embeddings.embeddings(self.subject, self.seed, self._rewind)

    @cached_property
    def conditions(self) -> list[conditions.Condition]:
        """What conditions and masks among the inputs change."""
        return conditions.conditions(self.subject, self.anatomy, self.seed, self._rewind)

    @cached_property
    def codebooks(self) -> list[codebook.Codebook]:
        """Every look-up of a nearest code, or `Unavailable` where there is none."""
        found = codebook.find_codebooks(self.anatomy)
        if not found:
            raise Unavailable("no look-up of a nearest code in this forward pass")
        return found

    @cached_property
    def code_changes(self) -> changes.Changes:
        """How the tables change in training forwards and in an evaluation forward."""
        return changes.changes(self.subject, self.codebooks, self.seed, self._rewind)

    @cached_property
    def undecoded(self) -> undecoded.Undecoded | None:
        """Codes that are chosen and not decoded; None where they are, or none is chosen."""
        run = (self.subject, self.anatomy, self.seed, self._rewind)
        return undecoded.undecoded(*run) if not self.anatomy.latents else None

    def codebook_gradient(self, book: codebook.Codebook) -> Arrives:
        """What gradient a look-up's table gets from the loss."""
        return codebook.table_gradient(self.anatomy, book)

    def codebook_term_at(self, book: codebook.Codebook) -> Span | None:
        """The line of the loss's term on a look-up, or of the look-up itself."""
        return codeterms.term_at(self.anatomy, book)

    def codebook_weighed_at(self, book: codebook.Codebook, weight: float) -> Span | None:
        """The line that multiplies the codebook's own term by a weight."""
        return codeterms.weighed_at(self.anatomy, book, weight)

    @cached_property
    def idle_commitments(self) -> list[tuple[codebook.Codebook, Op]]:
        """Of codebooks that averages move, the terms of the loss that hold no encoder."""
        if self.composed:
            return []
        moved = self.code_changes.training
        books = [b for b in self.codebooks if moved.get(b.name, 0.0) > 0]
        found = [(b, codeterms.idle_commitment(self.anatomy, b)) for b in books]
        return [(book, op) for book, op in found if op is not None]

    @cached_property
    def turned_commitments(self) -> list[tuple[codebook.Codebook, Op, float]]:
        """The terms of the loss that push vectors away from their codes, with the cosine."""
        if self.composed:
            return []
        found = [(b, codeterms.turned_commitment(self.anatomy, b)) for b in self.codebooks]
        return [(book, *turned) for book, turned in found if turned is not None]

    @cached_property
    def codebook_weights(self) -> list[tuple[codebook.Codebook, codeterms.Weights]]:
        """The look-ups that have both a commitment and a codebook term, with their weights."""
        if self.composed:
            raise Unavailable("the codebook's loss is not known; supply --objective")
        weighed = [(b, codeterms.weights(self.anatomy, b)) for b in self.codebooks]
        return [(book, weight) for book, weight in weighed if weight is not None]

    @cached_property
    def declared_betas(self) -> frozenset[float]:
        """Weights that the code names for the commitment, or multiplies a term of the loss with."""
        return frozenset(codeterms.declared_betas(self.subject.model, self.recording))

    @property
    def codebooks_or_none(self) -> list[codebook.Codebook]:
        """Every look-up of a nearest code; empty where there is none."""
        return codebook.find_codebooks(self.anatomy)

    def cut_behind(self, op: Op) -> cuts.Cut | None:
        """What drops the gradient on every way from an operation to the reconstruction, if any."""
        x_hat = self.anatomy.x_hat
        return cuts.barrier(self.flow, op.out, x_hat) if x_hat is not None else None

    def handed_on_at(self, op: Op) -> Span | None:
        """Where what is read at an index, or rounded, is handed to the decoder."""
        return codeplaces.handed_on(self.anatomy, op)

    @cached_property
    def rounding(self) -> rounding.Rounding | None:
        """A rounding between the encoder and the reconstruction, as of FSQ; None if none."""
        return rounding.rounding(self.anatomy)
