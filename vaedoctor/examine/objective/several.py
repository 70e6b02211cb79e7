"""Several samples of a row made alike, so that any way to join them hands on the weight of one.

An importance-weighted bound is log mean exp of K log-weights. Where the K samples of a row, their
decoder's outputs and their posteriors are the same numbers it is the log-weight of one sample,
which has to be that of the ordinary bound, be it joined by `logsumexp` or by normalised weights.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor

from ...subject.subject import Subject
from ..anatomy.anatomy import Anatomy
from ..anatomy.latents import Latent
from ..anatomy.moves import inputs_of
from ..anatomy.pinning import owned_noise, unit_of
from ..runs.edits import Edit, filled
from ..runs.recording import Value
from ..runs.repeat import repeat
from .importance import counts

LEVEL = 0.5  # of all noise in the run whose values are held


def several(anatomy: Anatomy) -> list[int]:
    """How many samples a row may have; empty where it has one."""
    inputs = [v.shape for v in inputs_of(anatomy.recording) if v.shape]
    return sorted({n for n in counts(anatomy, inputs[0][0]) if n > 1}) if inputs else []


def same_noise(anatomy: Anatomy, latents: Iterable[Latent]) -> dict[int | tuple[int, int], Edit]:
    """Edits that give every element of these latents' noise, where it can be owned, one size."""
    edits: dict[int | tuple[int, int], Edit] = {}
    for latent in latents:
        if latent.draw.op is None or latent.draw.op is latent.meeting or latent.scale is None:
            continue
        value, unit = owned_noise(anatomy.flow, latent), unit_of(anatomy.flow, latent)
        if value.op is not None:
            edits[value.place] = filled(LEVEL * unit)
    return edits


def held_alike(
    subject: Subject,
    anatomy: Anatomy,
    values: list[Value],
    seed: int,
    rewind: Callable[[], None],
) -> dict[int, Tensor]:
    """What the values are where all samples of a row are one; empty where that cannot be had."""
    edits = same_noise(anatomy, anatomy.latents)
    run = (subject, anatomy.recording)
    made = repeat(*run, seed=seed, edits=edits, keep=values, rewind=rewind, grad=False)
    return {i: t.detach() for i, t in made.tensors.items()} if made.same else {}


def tied(values: Tensor, like: Tensor, counts: list[int]) -> Tensor:
    """Values that are the same for all samples of a row wherever those of `like` are."""
    shape, axis = _layout(like, counts)
    if shape[axis] == 1:
        return values
    one = values.reshape(shape).narrow(axis, 0, 1)
    return one.expand(shape).reshape(values.shape).clone()


def one_of(values: Tensor, like: Tensor, counts: list[int], *, add: bool = False) -> Tensor:
    """Those of one sample of each row, or the sum over the samples."""
    shape, axis = _layout(like, counts)
    apart = values.reshape(shape)
    return apart.sum(axis) if add else apart.select(axis, 0)


def samples_in(like: Tensor, counts: list[int]) -> int:
    """How many samples of a row a tensor holds whose samples were made alike; 1 where none."""
    shape, axis = _layout(like, counts)
    return shape[axis]


def _layout(like: Tensor, counts: list[int]) -> tuple[tuple[int, ...], int]:
    """The shape in which an axis holds the samples of a row, all alike; one of length 1 if none.

    They are the first or the second axis, or lie with the rows on one, in either order. Where the
    rows are alike as well, as behind a head that starts at 0, nothing tells which axis it is.
    """
    for count in counts:
        for shape, axis in _layouts(like.shape, count):
            apart = like.detach().reshape(shape)
            same = [bool((apart == apart.narrow(i, 0, 1)).all()) for i in (axis, 1 - axis)]
            if same == [True, False]:
                return shape, axis
    return (1, *like.shape), 0


def _layouts(shape: torch.Size, count: int) -> Iterator[tuple[tuple[int, ...], int]]:
    for axis in (0, 1):
        if len(shape) > axis + 1 and shape[axis] == count:
            yield tuple(shape), axis
    if len(shape) > 1 and shape[0] > count and shape[0] % count == 0:
        rows = shape[0] // count
        yield (count, rows, *shape[1:]), 0
        yield (rows, count, *shape[1:]), 1
