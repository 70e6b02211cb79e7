"""Data that comes with the data, in another shape: the one with which the loss runs.

Of a made-up batch only the data's shape is told by the layers. A state, a target beside it was
taken to be alike, and forward may run with more than one shape of it; the loss tells which. Of rows
a layer tells only the width: they may be the steps of a sequence.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import TargetError
from ..subject import Batch, Objective
from ..trials.trial import attempt, forward_parameters
from .own_batch import runs_alone

_STEPS = 7
_LENGTHS = (4, 16, 64)
_UNLIKE = re.compile(
    r"tensor a \((\d+)\) must match the size of tensor b \((\d+)\) at non-singleton dimension (\d+)"
)
_TOO_SHORT = re.compile(
    r"Padding size should be less than the corresponding input dimension|expected 0 < n_fft"
)
_NO_CLASSES = re.compile(r"expected (target dtype|scalar type) (to be )?Long")
_TOO_FEW_AXES = re.compile("Dimension out of range|too many indices|not enough values to unpack")

Search = Callable[[Batch], tuple[Objective | None, tuple[str, ...]]]
Found = tuple[Batch, Objective, tuple[str, ...]]


def refilled(
    model: nn.Module, batch: Batch, search: Search, seed: int, raised: str
) -> Found | None:
    """The first other filling with which forward and the loss that is found run, if any.

    `raised` is what is said about the loss that does not run on the batch as it is.
    """
    if not (batch.guessed and batch.ran):
        return None
    steps = _in_steps(model, batch) if _TOO_FEW_AXES.search(raised) else ()
    sizes = _UNLIKE.search(raised)
    longer = _as_long(model, batch, *map(int, sizes.groups())) if sizes else ()
    short = _longer(model, batch) if _TOO_SHORT.search(raised) else ()
    numbered = _numbered(model, batch) if _NO_CLASSES.search(raised) else ()
    for other in (*short, *numbered, *longer, *_fillings(model, batch), *steps):
        if not attempt(partial(other.run, model), model, seed=seed).ran:
            continue
        try:
            chosen, notes = search(other)
        except TargetError:
            continue
        if chosen is not None and runs_alone(model, other, chosen, seed):
            return other, chosen, notes
    return None


def _fillings(model: nn.Module, batch: Batch) -> Iterator[Batch]:
    """The batch with one axis less of what comes with the data, then of the data itself."""
    names = [p.name for p in forward_parameters(model)]
    given: dict[int | str, Any] = dict(enumerate(batch.args)) | dict(batch.kwargs)
    reals = [k for k, v in given.items() if isinstance(v, Tensor) and v.is_floating_point()]
    for place in reals[1:]:
        name = place if isinstance(place, str) else names[place] if place < len(names) else ""
        tried = {tuple(given[place].shape)}
        for like in (given[place], given[reals[0]]):
            for axis in range(1, like.dim()):
                value = like.select(axis, 0).clone()
                if value.dim() > 1 and tuple(value.shape) not in tried:
                    tried.add(tuple(value.shape))
                    yield _with(batch, place, name, value)


def _as_long(model: nn.Module, batch: Batch, one: int, other: int, axis: int) -> Iterator[Batch]:
    """The batch with what comes with the data as long as what it is compared with.

    A past and a future, of which nothing tells that the future is as long as what is made of it.
    """
    names = [p.name for p in forward_parameters(model)]
    for place, value in enumerate(batch.args[1:], start=1):
        if not isinstance(value, Tensor) or not 0 < axis < value.dim():
            continue
        wanted = {one: other, other: one}.get(value.shape[axis])
        if wanted is not None:
            index = torch.arange(wanted, device=value.device) % value.shape[axis]
            name = names[place] if place < len(names) else ""
            yield _with(batch, place, name, value.index_select(axis, index))


def _longer(model: nn.Module, batch: Batch) -> Iterator[Batch]:
    """The batch with a longer signal: a window of the loss's may not fit into a short one."""
    names = [p.name for p in forward_parameters(model)]
    first = next(iter(batch.args), None)
    if isinstance(first, Tensor) and first.is_floating_point() and first.dim() in (2, 3):
        for times in _LENGTHS:
            more = first.repeat(*(1 for _ in first.shape[1:]), times)
            yield _with(batch, 0, names[0] if names else "x", more)


def _numbered(model: nn.Module, batch: Batch) -> Iterator[Batch]:
    """The batch with the number of a class in place of a real number that each row has."""
    names = [p.name for p in forward_parameters(model)]
    for place, value in enumerate(batch.args[1:], start=1):
        if isinstance(value, Tensor) and value.is_floating_point() and value.dim() == 1:
            name = names[place] if place < len(names) else ""
            numbers = torch.arange(len(value), device=value.device) % 2
            yield _with(batch, place, name, numbers)


def _in_steps(model: nn.Module, batch: Batch) -> Iterator[Batch]:
    """The batch with rows of the data that are the steps of a sequence."""
    names = [p.name for p in forward_parameters(model)]
    first = next(iter(batch.args), None)
    if isinstance(first, Tensor) and first.is_floating_point() and first.dim() == 2:
        steps = torch.stack([first.roll(i, 0) for i in range(_STEPS)], 1)
        yield _with(batch, 0, names[0] if names else "x", steps)


def _with(batch: Batch, place: int | str, name: str, value: Tensor) -> Batch:
    shape = "×".join(map(str, value.shape))
    shape += "" if value.is_floating_point() else " whole numbers"
    origin = f"{batch.origin}; `{name}` is {shape} after all, with which the loss runs"
    if isinstance(place, str):
        return replace(batch, kwargs={**batch.kwargs, place: value}, origin=origin)
    args = tuple(value if i == place else a for i, a in enumerate(batch.args))
    return replace(batch, args=args, origin=origin)
