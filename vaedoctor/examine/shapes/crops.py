"""One end of a picture that the loss leaves out though the encoder is shown it."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ...subject.subject import Subject
from ..anatomy.anatomy import Anatomy
from ..anatomy.evaluation import differentiable
from ..runs.recording import Value
from ..runs.step import run_recorded


def cropped(
    subject: Subject,
    anatomy: Anatomy,
    value: Value,
    axis: int,
    slices: list[int],
    seed: int,
    rewind: Callable[[], None],
) -> bool:
    """Whether slices of a reconstructed picture are cut off at one end, and not on purpose.

    A crop at both ends takes a border off; an end that is alike in every row is padding; and where
    the encoder is shown one part alone the other is to be completed from it.
    """
    x = anatomy.x
    if x is None or x.shape != value.shape or len(x.shape) != 4 or axis < 2:
        return False
    if (0 in slices) == (x.shape[axis] - 1 in slices) or not x.tensor.is_floating_point():
        return False
    index = torch.tensor(slices, device=x.tensor.device)
    left_out = x.tensor.detach().index_select(axis, index)
    if bool((left_out == left_out[:1]).all()):
        return False
    seen = _seen(subject, anatomy, x.tensor, seed, rewind)
    if seen is None:
        return False
    reached = (seen != 0).movedim(axis, 0).flatten(1).any(1)
    kept = reached.index_fill(0, index, False)
    return bool(reached[index].any() and kept.any())


def _seen(
    subject: Subject, anatomy: Anatomy, x: Tensor, seed: int, rewind: Callable[[], None]
) -> Tensor | None:
    """The gradient of the first sample that reaches x_hat at the input."""
    if not anatomy.sampled:
        return None
    sample = anatomy.sampled[0].z
    with differentiable(x):
        recording = run_recorded(subject, seed=seed)
        made = recording.values[sample.index] if sample.index < len(recording.values) else None
        known = made is not None and made.shape == sample.shape and made.tensor.requires_grad
        found = None
        if made is not None and known:
            (found,) = torch.autograd.grad(made.tensor.sum(), x, allow_unused=True)
    recording.release()
    rewind()
    return found
