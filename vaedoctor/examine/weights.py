"""Settings of the model that weigh the loss, and whether they do anything."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import nn

from ..finding import Span
from ..subject.subject import Subject
from .listing import assigned_at, is_own_code
from .recording import Recording
from .step import run_recorded

_WEIGHT = re.compile(
    r"(.*_)?(beta|kld?_?(weight|coef|coeff|coefficient|scale|lambda|factor)|(lambda|weight)_?kld?)"
)


@dataclass(frozen=True, slots=True)
class DeadWeight:
    """A number on the model, named like a loss weight, that changes nothing when doubled."""

    name: str
    value: float
    at: Span | None


def dead_weights(
    subject: Subject, recording: Recording, seed: int, rewind: Callable[[], None]
) -> Iterator[DeadWeight]:
    """Double every such attribute on its own and run the same step again.

    The bounds of a schedule (`beta_max`) and what the step itself sets are no weights.
    """
    loss = recording.loss
    for module, name, value in _held(subject.model):
        # a small weight of a small term is lost in the last digit of the sum when doubled
        factors = (2, 2**20) if isinstance(value, float) else (2,)
        for factor in factors:
            setattr(module, name, factor * value)
            other = run_recorded(subject, seed=seed)
            kept = getattr(module, name) == factor * value  # a schedule sets it anew
            rewind()
            if not kept or other.error is not None:
                break
            if not torch.equal(other.loss.detach(), loss.detach()):
                break
        else:
            yield DeadWeight(name, float(value), assigned_at(type(module), name))


def loss_weights(model: nn.Module) -> dict[str, float]:
    """The numbers on a model that are named like a weight of its loss."""
    return {name: float(value) for _, name, value in _held(model)}


def _held(model: nn.Module) -> Iterator[tuple[nn.Module, str, int | float]]:
    for module in model.modules():
        if not is_own_code(type(module)):
            continue  # the `beta` of an `nn.Softplus` is its slope
        for name, value in list(vars(module).items()):
            plain = isinstance(value, (int, float)) and not isinstance(value, bool)
            if plain and _WEIGHT.fullmatch(name.lower()) and value != 0:
                yield module, name, value
