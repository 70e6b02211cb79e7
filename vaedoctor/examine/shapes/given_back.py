"""Whether a model takes pictures of the size that it gives back, where its input was made up."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ...subject.subject import Subject
from ..anatomy.anatomy import Anatomy
from ..runs.flow import Flow
from ..runs.step import run_recorded
from .failure import Failure, explain


@dataclass(frozen=True, slots=True)
class GivenBack:
    """The sizes of a made-up picture and of its reconstruction, and what refuses the latter."""

    x: tuple[int, ...]
    x_hat: tuple[int, ...]
    refused: Failure


def given_back(
    subject: Subject, anatomy: Anatomy, seed: int, rewind: Callable[[], None]
) -> GivenBack | None:
    """Give the model a picture of x_hat's size; None where it takes it, or gives back x's own.

    A layer that holds the encoder to one size, and a decoder that makes another, fit together for
    no data set. Pictures with other channels than x_hat, and flat data, are not judged.
    """
    x, x_hat = anatomy.x, anatomy.x_hat
    if x is None or x_hat is None or not subject.batch.guessed:
        return None
    if len(x.shape) != 4 or x.shape[:2] != x_hat.shape[:2] or _enlarged(x.shape, x_hat.shape):
        return None

    def as_large(tensor: Tensor) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        if tensor.shape != x.shape or not tensor.is_floating_point():
            return tensor
        return torch.rand(x_hat.shape, generator=generator).to(tensor)

    batch = subject.batch.mapped(as_large)
    recording = run_recorded(subject, seed=seed, batch=batch, run=batch.run)
    rewind()
    refused = explain(subject.model, recording, Flow(recording), guessed=False)
    if refused is None or refused.mismatch is None or refused.cause != "shapes":
        return None
    return GivenBack(x.shape, x_hat.shape, refused)


def _enlarged(x: tuple[int, ...], x_hat: tuple[int, ...]) -> bool:
    """Whether both sides of x_hat are those of x, times one whole number (1 as well)."""
    times, rest = divmod(x_hat[2], x[2])
    return rest == 0 and x_hat[3] == times * x[3]
