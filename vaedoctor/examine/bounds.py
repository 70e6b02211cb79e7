"""How far location and scale of a latent can reach, whatever the layers before learn.

The raw output of each head's layer is forced far down, to 0 and far up, the noise to +1 and -1:
the sampler's own location (z₊ + z₋)/2 and scale (z₊ - z₋)/2 are read there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ..subject.subject import Subject
from .anatomy import Anatomy
from .divergence import AFFINE, CLAMPS
from .flow import Flow
from .latents import Head, Latent
from .likelihood import RANGES
from .recorder import Edit, Edits
from .recording import Op, Value
from .repeat import repeat

FAR = 30.0  # exp(30) and its square are finite in float32, and every activation is flat by then
ACTIVATIONS = frozenset(RANGES) | CLAMPS | {"elu", "leaky_relu", "neg", "abs", "logsigmoid"}


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


MOST_LATENTS = 1  # three runs a head: of a hierarchy or sequence the first latent is measured


def reaches(
    subject: Subject, anatomy: Anatomy, seed: int, rewind: Callable[[], None]
) -> Iterator[Reach]:
    """The reach of every head that an activation follows."""
    for latent in anatomy.sampled[:MOST_LATENTS]:
        for part, operand, head in (
            ("location", latent.loc, latent.loc_head),
            ("scale", latent.scale, latent.scale_head),
        ):
            if operand is None or head is None or latent.family not in AFFINE:
                continue
            activation = _activation(anatomy.flow, operand, head)
            if activation is None or _shared(latent):
                continue
            found = [
                _forced(subject, anatomy, latent, head, v, seed, rewind) for v in (-FAR, 0.0, FAR)
            ]
            read = [f[part == "scale"] for f in found if f is not None]
            if len(read) == 3 and all(bool(torch.isfinite(r).all()) for r in read):
                together = torch.stack(read)
                low, high = float(together.min()), float(together.max())
                if high - low > 1e-6:
                    yield Reach(latent, part, low, high, activation)


def _shared(latent: Latent) -> bool:
    loc, scale = latent.loc_head, latent.scale_head
    return loc is not None and scale is not None and loc.value is scale.value


def _activation(flow: Flow, operand: Value, head: Head) -> Op | None:
    """The last bounding operation between a head's layer and the sampler; None if none."""
    if not flow.layer(head.op):
        return None
    value, bounding = operand, None
    while value is not head.value and value.op is not None:
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
    latent: Latent,
    head: Head,
    to: float,
    seed: int,
    rewind: Callable[[], None],
) -> tuple[Tensor, Tensor] | None:
    if head.value.op is None or latent.draw.op is None or latent.draw.op is latent.meeting:
        return None
    runs = []
    for sign in (1.0, -1.0):
        edits: Edits = {
            head.value.place: _filled(to),
            latent.draw.value.place: _filled(sign),
        }
        made = repeat(
            subject, anatomy.recording, seed=seed, edits=edits, keep=[latent.z], rewind=rewind
        )
        if latent.z.index not in made.tensors:
            return None
        runs.append(made.tensors[latent.z.index].detach().double())
    plus, minus = runs
    return (plus + minus) / 2, (plus - minus) / 2


def _filled(with_: float) -> Edit:
    return lambda t: torch.full_like(t, with_)
