"""What a loss leaves out: an end of a picture, the mirror of a matrix, what the encoder lacks."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ...subject.subject import Subject
from ..anatomy.anatomy import Anatomy
from ..anatomy.evaluation import differentiable
from ..anatomy.moves import inputs_of
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


def withheld(
    subject: Subject,
    anatomy: Anatomy,
    value: Value,
    axis: int,
    slices: list[int],
    seed: int,
    rewind: Callable[[], None],
) -> bool:
    """Whether the encoder is shown none of these columns either, and the others of the input."""
    x = anatomy.x
    if x is None or x.shape != value.shape or not x.tensor.is_floating_point():
        return False
    seen = _seen(subject, anatomy, x.tensor, seed, rewind)
    if seen is None:
        return False
    reached = (seen != 0).movedim(axis, 0).flatten(1).any(1)
    index = torch.tensor(slices, device=reached.device)
    return not bool(reached[index].any()) and bool(reached.any())


def mirrored(anatomy: Anatomy, value: Value, gradient: Tensor) -> bool:
    """Whether all that is left out is the mirror of what is scored, or lies on the diagonal.

    One half says all of the symmetric adjacency of a graph without loops.
    """
    if gradient.dim() < 3 or gradient.shape[-1] != gradient.shape[-2]:
        return False
    alike = [v.tensor.detach() for v in (value, *inputs_of(anatomy.recording))]
    if not any(t.shape == gradient.shape and torch.equal(t, t.mT) for t in alike):
        return False
    scored = (gradient != 0).flatten(0, -3).any(0)
    diagonal = torch.eye(len(scored), dtype=torch.bool, device=scored.device)
    return bool((scored | scored.mT | diagonal).all())


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
