"""One latent with its heads and noise forced and its decoder held: what the loss makes of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Set
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from ...finding import Span
from ...rule import Unavailable
from ...subject.subject import Subject
from ..anatomy.anatomy import Anatomy
from ..anatomy.decoders import predictions
from ..anatomy.latents import ADDS, MULS, PRODUCTS, Latent, same_posterior
from ..anatomy.pinning import (
    common_root,
    first_layers,
    held,
    held_to,
    loss_value,
    owned_noise,
    pair_layers,
    prior_layers,
    unit_of,
)
from ..runs.edits import Edit, Edits, filled
from ..runs.flow import CUTS, RESHAPES, SLICES, Flow
from ..runs.recording import Op, Value
from ..runs.repeat import Repeated, repeat
from .quotients import EVEN, Pulled, gradient_at, of_rows, quotient, spread
from .several import held_alike, one_of, same_noise, samples_in, several, tied
from .summands import beside

AFFINE = frozenset({"gaussian", "uniform"})
CLAMPS = frozenset("clamp clamp_ clip clamp_min clamp_max max maximum relu".split())


@dataclass(frozen=True, slots=True)
class Setting:
    """One value forced on the scale head, and what sampler and loss made of it."""

    head: float
    scale: float
    weight: float
    spread: float
    ratio: float
    ratio_spread: float
    reverse: float
    entropy: float
    location: Tensor
    scales: Tensor
    loss: float
    gradient: Tensor
    connected: bool
    slopes: Tensor
    pulls: Tensor

    @property
    def finite(self) -> bool:
        """Whether sampler and loss gave numbers."""
        return math.isfinite(self.scale) and math.isfinite(self.weight)


class Probe:
    """Where to force and to pin for one latent, found once; each measurement is two runs."""

    def __init__(
        self,
        subject: Subject,
        anatomy: Anatomy,
        latent: Latent,
        seed: int,
        rewind: Callable[[], None],
        *,
        families: Set[str] = AFFINE,
        critics: bool = False,
        matrices: bool = False,
    ) -> None:
        self.subject, self.anatomy, self.latent = subject, anatomy, latent
        self.seed, self.rewind = seed, rewind
        flow, loss = anatomy.flow, loss_value(anatomy)
        loc, scale = _location_and_scale(latent, families, matrices)
        self.alike = [x for x in anatomy.latents if same_posterior(x, latent)]
        self.noise = [(owned_noise(flow, x), unit_of(flow, x)) for x in self.alike]
        samples, compared = [x.z for x in self.alike], predictions(anatomy) or [loss]
        self.pins = [op for z in samples for op in first_layers(flow, z, *compared)]
        decoded = [v for op in self.pins for v in op.makes]
        if critics:  # all layers that the loss reads the sample through, a learned density's too
            self.pins += [op for z in samples for op in first_layers(flow, z, loss)]
        self.pins += prior_layers(anatomy, latent, loss)
        self.pins += [op for z in samples for op in pair_layers(flow, z, loss)]
        outputs = [v for op in self.pins for v in op.makes]
        reached = flow.ancestors(loss, stop=outputs)
        around = flow.ancestors(loss, stop=[*outputs, *samples]) - {z.index for z in samples}
        self.mu, self.h = self._heads(loc, scale, around)
        aside = beside(anatomy, self.mu, self.h, flow.descendants(*decoded))
        self.pins += aside
        sampled = flow.descendants(*samples)
        by_density = flow.ancestors(loss, stop=compared)  # that what is decoded is scored by too
        self.judged_aside = any(v.index in sampled for op in aside for v in op.makes)
        self.judged_aside |= any(v.index in by_density for v in decoded)
        self.apart = self.mu is self.h or self.mu.index not in flow.ancestors(self.h)
        unbounded = not flow.noise[self.h.index] and _unbounded(flow, self.h)
        self.signed = bool((self.h.tensor.detach() <= 0).any()) or unbounded
        apart_from_decoder = reached - flow.descendants(*decoded)
        self.at = _kl_line(flow, self, loss, apart_from_decoder)
        after = flow.descendants(self.mu) & apart_from_decoder - flow.ancestors(latent.z)
        clamps = (op for op in flow.recording.ops if op.name in CLAMPS and op.makes)
        self.clamped = next((op.span for op in clamps if self._clamps(op, after)), None)
        self.counts, self.alone = several(anatomy), dict[int, Tensor]()
        self.held = self._held()

    def _clamps(self, op: Op, after: Set[int]) -> bool:
        """Whether a clamp bounds what is made of the location with a gradient to it."""
        flow = self.anatomy.flow
        cut = [v for o in flow.recording.ops if o.name in CUTS for v in o.makes]
        return op.out.index in after and self.mu.index in flow.ancestors(op.out, stop=cut)

    def _heads(self, loc: Value, scale: Value, around: frozenset[int]) -> tuple[Value, Value]:
        """Where to force location and scale: the nearest values that sampler and loss share."""
        flow, latent = self.anatomy.flow, self.latent
        by_loc, by_scale = flow.ancestors(loc), flow.ancestors(scale)
        mu = common_root(flow, loc, around - (by_scale - by_loc))
        h = common_root(flow, scale, around - (by_loc - by_scale))
        if mu is not None and any(mu.index not in flow.ancestors(x.z) for x in self.alike):
            mu = latent.loc_head.value if latent.loc_head else None
        if h is not None and any(h.index not in flow.ancestors(x.z) for x in self.alike):
            h = latent.scale_head.value if latent.scale_head else None
        if mu is None or h is None or mu.op is None or h.op is None:
            raise Unavailable("the posterior's parameters cannot be forced to known values")
        return mu, h

    def _held(self) -> Edits:
        """What holds the decoder; where a row has several samples they are made alike."""
        values = [v for op in self.pins for v in op.makes]
        edits: dict[int | tuple[int, int], Edit] = {v.place: held(v) for v in values}
        if self.counts:
            known = [self.latent.z, self.mu, self.h]
            run = (self.subject, self.anatomy, [*values, *known], self.seed, self.rewind)
            self.alone = held_alike(*run)
            edits |= same_noise(self.anatomy, self.anatomy.latents)
            edits |= {v.place: held_to(self.alone[v.index]) for v in values if self.alone}
        return edits

    @property
    def samples(self) -> int:
        """How many samples of a row the latent holds."""
        return samples_in(self._alike(self.latent.z), self.counts)

    def one_of(self, values: Tensor, of: Value, *, add: bool = False) -> Tensor:
        """Those of one sample of each row, laid out as a recorded value is, or their sum."""
        return one_of(values, self._alike(of), self.counts, add=add)

    def tied(self, values: Tensor, of: Value) -> Tensor:
        """Values laid out as a recorded one is, the same for all samples of a row."""
        return tied(values, self._alike(of), self.counts)

    def _alike(self, of: Value) -> Tensor:
        """What tells the layout of the samples: the sample itself, where the shapes agree."""
        z = self.latent.z
        known = z if z.shape == of.shape else of
        return self.alone.get(known.index, known.tensor)

    def measure(self, forced: float, *, reach: float = 1.0, term: Value | None = None) -> Setting:
        """The weight of the loss, or of one of its terms, with the scale head forced.

        That of the loss is for each row, be it shared among several samples.
        """
        mu, h = self.leaves(forced, reach)
        times = self.samples if term is None else 1
        (above, plus), (below, minus) = (
            self._pulled(mu, h, sign, term, times) for sign in (1.0, -1.0)
        )
        return self._compare(above + below, (plus + minus) / 2, (plus - minus) / 2, mu, h, forced)

    def _pulled(
        self, mu: Tensor, h: Tensor, sign: float, term: Value | None, times: int
    ) -> tuple[Pulled, Tensor]:
        """Half the loss's pull at one sign of the noise, and the sample."""
        loss, z = self.run_at(mu, h, sign, term)
        return Pulled.of(times * loss / 2, mu, h), z

    def read(self, mu: Tensor, h: Tensor, term: Value | None = None) -> tuple[Tensor, ...]:
        """The loss (or the sum of a term) and the sampler's location and scale, by both signs."""
        (above, plus), (below, minus) = (self.run_at(mu, h, sign, term) for sign in (1.0, -1.0))
        return (above + below) / 2, (plus + minus) / 2, (plus - minus) / 2

    def leaves(self, forced: float, reach: float) -> tuple[Tensor, Tensor]:
        """Forced location and scale head, uneven locations up to 1.5 times `reach`."""
        generator = torch.Generator().manual_seed(self.seed)
        like = self.mu.tensor.detach()
        sizes = (torch.rand(like.shape, generator=generator) + 0.5) * reach
        signs = torch.randint(0, 2, like.shape, generator=generator) * 2 - 1
        mu = self.tied((sizes * signs).to(like), self.mu)
        return self.placed(mu, torch.full_like(self.h.tensor.detach(), forced))

    def placed(self, mu: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        """Leaves with these values; one and the same where one tensor holds both."""
        if self.mu is self.h:
            leaf = torch.where(self._scales, h, mu).requires_grad_(True)
            return leaf, leaf
        return mu.requires_grad_(True), h.requires_grad_(True)

    @cached_property
    def _scales(self) -> Tensor:
        """Which elements of a tensor that holds both are read as scale, and not as location."""
        leaf = torch.full_like(self.h.tensor.detach(), 0.5).requires_grad_(True)
        _, location, scale = self.read(leaf, leaf)
        return (gradient_at(scale.sum(), leaf) != 0) & (gradient_at(location.sum(), leaf) == 0)

    def run_at(
        self, mu: Tensor, h: Tensor, level: float, term: Value | None = None
    ) -> tuple[Tensor, Tensor]:
        """The loss or term and the sample of one run with the noise at `level`."""
        made = self.forced(mu, h, level, *(() if term is None else (term,)))
        value = made.loss if term is None else made.tensors[term.index]
        return value.sum(), made.tensors[self.latent.z.index]

    def forced(
        self, mu: Tensor, h: Tensor, level: float, *keep: Value, more: Edits | None = None
    ) -> Repeated:
        """One run with the heads and the noise forced and the decoder held; rewound."""
        noise: Edits = {v.place: filled(level * unit) for v, unit in self.noise}
        return self._edited(mu, h, {**noise, **(more or {})}, *keep)

    def scored(self, mu: Tensor, h: Tensor, z: Tensor) -> Tensor:
        """The loss with the heads forced, the decoder held, and the sample replaced by `z`."""
        samples: Edits = {x.z.place: lambda t: z.clone() for x in self.alike}
        loss: Tensor = self._edited(mu, h, samples).loss
        return loss.sum()

    def _edited(self, mu: Tensor, h: Tensor, more: Edits, *keep: Value) -> Repeated:
        edits: Edits = {
            **self.held,
            **more,
            self.mu.place: lambda t: mu.clone(),
            self.h.place: lambda t: h.clone(),
        }
        kept = self.latent.z, *keep
        made = repeat(
            self.subject,
            self.anatomy.recording,
            seed=self.seed,
            edits=edits,
            keep=kept,
            rewind=self.rewind,
        )
        if not made.same or any(v.index not in made.tensors for v in kept):
            raise Unavailable("the step cannot be repeated with the posterior forced")
        return made

    def _compare(
        self, pull: Pulled, location: Tensor, scale: Tensor, mu: Tensor, h: Tensor, forced: float
    ) -> Setting:
        if bool((scale > 0).any()) and bool((scale <= 0).any()):
            raise Unavailable("the sampler's scale depends on more than its head (a mask)")
        given_mu, given_h = pull.at_mu, pull.at_h
        reference_mu = gradient_at(0.5 * (location**2).sum(), mu)
        reference_h = gradient_at(0.5 * (scale**2 - (scale**2).log()).sum(), h)
        whole_h = given_h
        if self.mu is self.h:
            given_h, reference_h = given_h[self._scales], reference_h[self._scales]
        weights = quotient(given_mu, reference_mu)
        weight = float(weights.mean()) if weights.numel() else 0.0
        ratios = quotient(given_h, weight * reference_h) if weight else given_h.new_zeros(0)
        uneven = spread(weights)
        row_wise = of_rows(weights, location) if uneven > EVEN else None
        if row_wise is not None and given_h.numel() == weights.numel():
            each, uneven = row_wise
            ratios = quotient(given_h.flatten(), each.to(given_h) * reference_h.flatten())
        ratio = float(ratios.mean()) if ratios.numel() else 0.0
        ratio_uneven = spread(ratios)
        reverse, entropy = math.inf, 0.0
        entropies, pulls = given_h.new_zeros(0), given_h.new_zeros(0)
        if max(uneven, ratio_uneven, abs(ratio - 1)) > EVEN:
            reverse, entropies = self._as_another(location, scale, mu, h, given_mu, whole_h)
            entropy = float(entropies.mean()) if spread(entropies) < EVEN else 0.0
            if weights.numel() == location.numel():
                pulls = weights * location.detach().flatten()
        return Setting(
            forced,
            float(scale.detach().mean()),
            weight,
            uneven,
            ratio,
            ratio_uneven,
            reverse,
            entropy,
            location.detach(),
            scale.detach(),
            pull.loss,
            given_h.double(),
            pull.connected,
            -entropies,
            pulls,
        )

    def _as_another(
        self,
        location: Tensor,
        scale: Tensor,
        mu: Tensor,
        h: Tensor,
        given_mu: Tensor,
        given_h: Tensor,
    ) -> tuple[float, Tensor]:
        """How uneven the loss is as a KL the other way round, and how much it weighs entropies."""
        backwards = gradient_at(0.5 * ((1 + location**2) / scale**2 + (scale**2).log()).sum(), mu)
        if self.mu is self.h:
            backwards = backwards.masked_fill(self._scales, 0)
        entropies = quotient(given_h, gradient_at(-scale.log().sum(), h))
        return spread(quotient(given_mu, backwards)), entropies


def is_matrix(latent: Latent) -> bool:
    """Whether what the noise is multiplied by is a matrix."""
    scale = latent.scale
    return scale is not None and latent.meeting.name in PRODUCTS and scale.shape != latent.z.shape


def _location_and_scale(latent: Latent, families: Set[str], matrices: bool) -> tuple[Value, Value]:
    """Those of a sampler whose noise can be owned; Unavailable where it is another one."""
    if latent.loc is None or latent.scale is None or latent.family not in families:
        but = f" ({latent.family})" if latent.family not in AFFINE else ""
        raise Unavailable(f"the sampler is not location + scale * Gaussian noise{but}")
    if is_matrix(latent) and not matrices:
        raise Unavailable("the sampler's scale is a matrix")
    if latent.draw.op is None or latent.draw.op is latent.meeting:
        raise Unavailable("the noise cannot be owned: it is drawn together with the sample")
    return latent.loc, latent.scale


def _unbounded(flow: Flow, value: Value) -> bool:
    """Whether a value is a layer's own output or a part of it, or such ones added or scaled."""
    if value.op is None:
        return False
    parents = [v for v in value.op.reads if flow.data[v.index]]
    if value.op.name in RESHAPES | SLICES | ADDS or (value.op.name in MULS and len(parents) == 1):
        return bool(parents) and all(_unbounded(flow, p) for p in parents)
    return flow.layer(value.op)


def _kl_line(flow: Flow, probe: Probe, loss: Value, terms: Set[int]) -> Span | None:
    """The first line beside the sampler's own where the loss reads location and scale together.

    One that reads them around the sample, as log q does, goes before one that reads the sample.
    """
    sampler = flow.ancestors(probe.latent.z)
    both = (flow.descendants(probe.mu) & flow.descendants(probe.h) & terms) - sampler
    held_back = [v for op in probe.pins for v in op.makes]
    for stop in ([*held_back, *(x.z for x in probe.alike)], held_back):
        for op in flow.recording.ops:
            if not op.makes or op.out.index not in both or op in probe.pins:
                continue
            if probe.mu is probe.h and op.name in SLICES | RESHAPES:
                continue  # taken apart
            if {probe.mu.index, probe.h.index} <= flow.ancestors(op.out, stop=stop):
                return op.span
    return loss.op.span if loss.op is not None else None
