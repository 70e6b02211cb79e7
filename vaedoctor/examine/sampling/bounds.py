"""How far location and scale of a latent can reach, whatever the layers before learn.

The raw output of each head's layer is forced far down, to 0 and far up, the noise to +1 and -1:
the sampler's own location (z₊ + z₋)/2 and scale (z₊ - z₋)/2 are read there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ...finding import Span
from ...subject.subject import Subject
from ..anatomy.anatomy import Anatomy
from ..anatomy.heads import Head, path_of
from ..anatomy.latents import PRODUCTS, Latent
from ..objective.probe import AFFINE, CLAMPS
from ..objective.ranges import RANGES
from ..runs.edits import Edit, filled
from ..runs.flow import Flow
from ..runs.recording import Op, Value
from ..runs.repeat import repeat

FAR = 30.0  # exp(30) and its square are finite in float32, and every activation is flat by then
ACTIVATIONS = frozenset(RANGES) | CLAMPS | {"elu", "leaky_relu", "abs", "logsigmoid"}


@dataclass(frozen=True, slots=True)
class Reach:
    """The values that a latent's location or scale takes as its head goes from low to high.

    `activation` is the operation after the head's layer that bounds it.
    """

    latent: Latent
    part: str
    low: float
    high: float
    activation: Op

    @property
    def path(self) -> str:
        """The module that runs the activation."""
        return path_of(self.activation)


MOST_LATENTS = 3  # of a hierarchy; of a sequence each activation is looked at once


def reaches(
    subject: Subject, anatomy: Anatomy, seed: int, rewind: Callable[[], None]
) -> Iterator[Reach]:
    """The reach of every head that an activation follows; all latents are forced together."""
    for part in ("location", "scale"):
        bound = _bound(anatomy, part)
        if not bound:
            continue
        read = [_forced(subject, anatomy, bound, v, seed, rewind) for v in (-FAR, 0.0, FAR)]
        for i, b in enumerate(bound):
            values = [r[i][part == "scale"] for r in read if r is not None]
            if len(values) < 3 or not all(bool(torch.isfinite(v).all()) for v in values):
                continue
            together = torch.stack(values)
            low, high = float(together.min()), float(together.max())
            if high - low > 1e-6:
                yield Reach(b.latent, part, low, high, b.activation)


@dataclass(frozen=True, slots=True)
class _Bound:
    """A head that an activation follows, and what its layer returned, to be forced."""

    latent: Latent
    raw: Value
    activation: Op


def _bound(anatomy: Anatomy, part: str) -> list[_Bound]:
    """Heads of one part with an activation, one for each line."""
    found: dict[Span | None, _Bound] = {}
    for latent in anatomy.sampled:
        operand, head = (
            (latent.loc, latent.loc_head)
            if part == "location"
            else (latent.scale, latent.scale_head)
        )
        if operand is None or head is None or latent.family not in AFFINE or _shared(latent):
            continue
        if head.value.op is None or latent.draw.op is None or latent.draw.op is latent.meeting:
            continue
        raw = head.value
        activation = _activation(anatomy.flow, operand, head, raw)
        if activation is None and raw not in head.op.makes:  # activated before it was split
            raw = head.op.out
            activation = _activation(anatomy.flow, operand, head, raw)
        if activation is not None:
            found.setdefault(activation.span, _Bound(latent, raw, activation))
    return list(found.values())[:MOST_LATENTS]


def _shared(latent: Latent) -> bool:
    loc, scale = latent.loc_head, latent.scale_head
    return loc is not None and scale is not None and loc.value is scale.value


def _activation(flow: Flow, operand: Value, head: Head, raw: Value) -> Op | None:
    """The last bounding operation between what a layer returned and the sampler; None if none."""
    mixed = head.op.name in PRODUCTS and any(flow.learned[v.index] for v in head.op.reads)
    if not flow.layer(head.op) and not mixed:
        return None
    value, bounding = operand, None
    while value is not raw and value.op is not None:
        if value.op.name in ACTIVATIONS and value.op.name not in ("exp", "exp_"):
            bounding = bounding or value.op
        parents = {p.index: p for p in flow.parents(value) if flow.data[p.index]}
        if len(parents) != 1:
            return None
        (value,) = parents.values()
    return bounding


def _forced(
    subject: Subject,
    anatomy: Anatomy,
    bound: list[_Bound],
    to: float,
    seed: int,
    rewind: Callable[[], None],
) -> list[tuple[Tensor, Tensor]] | None:
    """Location and scale of every sampler with the heads at `to`."""
    runs = []
    for sign in (1.0, -1.0):
        edits: dict[int | tuple[int, int], Edit] = {}
        for b in bound:
            edits[b.raw.place] = filled(to)
            edits[b.latent.draw.value.place] = filled(sign)
        keep = [v for b in bound for v in (b.latent.z, b.latent.scale) if v is not None]
        made = repeat(
            subject,
            anatomy.recording,
            seed=seed,
            edits=edits,
            keep=keep,
            rewind=rewind,
            grad=False,
        )
        if any(v.index not in made.tensors for v in keep):
            return None
        runs.append({v.index: made.tensors[v.index].detach().double() for v in keep})
    return [_location_and_scale(b.latent, *runs) for b in bound]


def _location_and_scale(
    latent: Latent, plus: dict[int, Tensor], minus: dict[int, Tensor]
) -> tuple[Tensor, Tensor]:
    """Both as the sample has them; a scale that rounding swallows beside its location, as made."""
    above, below = plus[latent.z.index], minus[latent.z.index]
    location, scale = (above + below) / 2, (above - below) / 2
    if latent.scale is not None:
        made = plus[latent.scale.index]
        swallowed = made.abs() < 1e-6 * location.abs() if made.shape == scale.shape else None
        scale = scale if swallowed is None else torch.where(swallowed, made, scale)
    return location, scale
