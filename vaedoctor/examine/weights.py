"""Settings of the model that weigh the loss, and whether they do anything."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch

from ..finding import Span
from ..subject.subject import Subject
from .listing import assigned_at
from .recording import Recording
from .step import run_recorded

_WORDS = ("beta", "kl_weight", "kld_weight", "kl_coef", "kl_scale", "lambda_kl", "kl_lambda")


@dataclass(frozen=True, slots=True)
class DeadWeight:
    """A number on the model, named like a loss weight, that changes nothing when doubled."""

    name: str
    value: float
    at: Span | None


def dead_weights(
    subject: Subject, recording: Recording, seed: int, rewind: Callable[[], None]
) -> Iterator[DeadWeight]:
    """Double every such attribute on its own and run the same step again."""
    loss = recording.loss
    for module in subject.model.modules():
        for name, value in list(vars(module).items()):
            plain = isinstance(value, (int, float)) and not isinstance(value, bool)
            if not plain or not any(word in name.lower() for word in _WORDS) or value == 0:
                continue
            setattr(module, name, type(value)(2 * value))
            other = run_recorded(subject, seed=seed)
            rewind()
            same = other.error is None and torch.equal(other.loss.detach(), loss.detach())
            if same:
                yield DeadWeight(name, float(value), assigned_at(type(module), name))
