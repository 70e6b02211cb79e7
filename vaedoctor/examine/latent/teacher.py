"""Decoders that are given the step they are to guess: teacher forcing without a shift.

With every sample held, one step p of x is exchanged in all rows. What the loss compares x_hat with
changes at the elements that hold step p; an autoregressive decoder knows earlier steps only, so
that its scores of these elements stay. Where they move, the decoder has seen its own answer.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ...subject.subject import Subject
from ..anatomy.anatomy import Anatomy
from ..objective.likelihood import meeting
from ..runs.edits import Edits
from ..runs.recording import Op, Recording
from ..runs.step import run_recorded
from .exchanged import exchanged

_SCORES = frozenset({"cross_entropy", "nll_loss"})  # their classes are axis 1, if there are rows
_FIRM = 0.1  # of the largest move: batch statistics over the steps move all of them a little


@dataclass(frozen=True, slots=True)
class Seen:
    """The `share` of the elements that hold an exchanged step whose own score moved.

    `at` is the operation that compares the two.
    """

    share: float
    at: Op


def own_answers(
    subject: Subject, anatomy: Anatomy, seed: int, rewind: Callable[[], None]
) -> Seen | None:
    """What a decoder knows of the steps that it is to guess; None where that is not known.

    Of a made-up batch nothing tells by how many steps its target is shifted, nor of a parameter
    `target` of the loss, which the input was taken for.
    """
    if subject.batch.guessed or (subject.objective is not None and subject.objective.elsewhere):
        return None
    x, met = anatomy.x, meeting(anatomy)
    axis = _steps(anatomy)
    if x is None or met is None or axis is None or any(f.z.op is None for f in anatomy.sampled):
        return None
    operands = _operands(anatomy, met)
    if operands is None:
        return None
    held: Edits = {f.z.place: _always(f.z.tensor.detach()) for f in anatomy.sampled}
    moved = own = 0
    for step in sorted({2, x.shape[axis] // 3}):
        other = _with_another(x.tensor.detach(), axis, step)
        twin = run_recorded(
            subject, seed=seed, edits=held, batch=exchanged(subject.batch, x.tensor, other)
        )
        marks = _changed(anatomy.recording, twin, met, *operands)
        twin.release()
        rewind()
        if marks is None:
            return None
        scores, targets = marks
        own += int(targets.sum())
        moved += int((scores & targets).sum())
    return Seen(moved / own, met) if own else None


def _steps(anatomy: Anatomy) -> int | None:
    """The axis of x that counts steps, where there is one latent a sequence; None if not known."""
    x = anatomy.x
    if x is None or len(x.shape) < 2 or not anatomy.sampled:
        return None
    shapes = {f.z.shape for f in anatomy.sampled}
    rows = {shape[0] for shape in shapes if len(shape) == 2}
    places = [a for a in (0, 1) if rows == {x.shape[a]}]
    if len(places) != 1 or any(len(shape) != 2 for shape in shapes):
        return None
    axis = 1 - places[0]
    return axis if x.shape[axis] >= 4 else None


def _operands(anatomy: Anatomy, met: Op) -> tuple[int, int, int | None] | None:
    """Which operands are the scores and the target, and the axis of classes among the scores."""
    if len(met.reads) < 2 or anatomy.x_hat is None:
        return None
    after = anatomy.flow.descendants(anatomy.x_hat) | {anatomy.x_hat.index}
    made = [i for i, v in enumerate(met.reads) if v.index in after]
    given = [i for i, v in enumerate(met.reads) if v.index not in after]
    if len(made) != 1 or not given:
        return None
    scores, target = met.reads[made[0]], met.reads[given[0]]
    if met.name in _SCORES and len(scores.shape) == len(target.shape) + 1 > 1:
        return made[0], given[0], 1
    return (made[0], given[0], None) if scores.shape == target.shape else None


def _with_another(x: Tensor, axis: int, step: int) -> Tensor:
    """The same with one step of every row taken from another row."""
    index = torch.tensor([step], device=x.device)
    part = x.index_select(axis, index)
    return x.index_copy(axis, index, part.roll(1, 1 - axis))


def _changed(
    usual: Recording, twin: Recording, met: Op, scores: int, target: int, classes: int | None
) -> tuple[Tensor, Tensor] | None:
    """At which elements of a comparison its scores and its target are others than usual."""
    if twin.error is not None or len(twin.ops) != len(usual.ops):
        return None
    reads = twin.ops[met.index].reads
    if [v.shape for v in reads] != [v.shape for v in met.reads]:
        return None
    apart = (reads[scores].tensor.detach() - met.reads[scores].tensor.detach()).abs()
    if classes is not None:
        apart = apart.amax(classes)
    other = reads[target].tensor.detach() != met.reads[target].tensor.detach()
    return apart > _FIRM * apart.max(), other


def _always(value: Tensor) -> Callable[[Tensor], Tensor]:
    return lambda _: value
