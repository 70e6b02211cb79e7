"""The step once more with the generators running on: its noise, its modules, its tensors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_pre_hook

from ..subject.subject import Subject
from .recording import Recording, tensors_in
from .repeat import Counter, Mark, run_counted
from .step import run_recorded


@dataclass(frozen=True, slots=True)
class Again:
    """What a second run tells, without keeping its graph.

    `noise` by the index of the operation, `modules` that were called and `tensors` that were met
    by identity, which holds only while the first run's objects are alive.
    """

    noise: Mapping[int, tuple[str, Tensor]]
    modules: frozenset[int]
    tensors: frozenset[int]

    @classmethod
    def of(cls, recording: Recording) -> Again:
        """Read it off a recording."""
        return cls(
            {op.index: (op.name, op.noise) for op in recording.ops if op.noise is not None},
            frozenset(id(c.module) for c in recording.calls),
            frozenset(id(v.tensor) for v in recording.values),
        )


def run_again(subject: Subject, first: Recording) -> Again:
    """Run the step that follows `first`, from the state in which that left the model."""
    again = _counted(subject, first)
    if again is not None:
        return again
    second = run_recorded(subject, seed=None)  # what the first kept is still kept now
    again = Again.of(second)
    second.release()
    return again


def _counted(subject: Subject, first: Recording) -> Again | None:
    """The same without a recording; None where the second step takes another way."""
    draws = [op for op in first.ops if op.noise is not None]
    if not all(op.turn for op in draws):
        return None
    meeting = _Meeting([Mark(op.turn, 0, op.index) for op in draws])
    modules: set[int] = set()
    hook = register_module_forward_pre_hook(lambda module, _: _note(modules, module))
    try:
        ran = run_counted(subject, meeting, seed=None).ran
    finally:
        hook.remove()
    if not ran or meeting.turns != first.turns or len(meeting.kept) != len(draws):
        return None
    noise = {op.index: (op.name, meeting.kept[op.index]) for op in draws}
    return Again(noise, frozenset(modules), frozenset(meeting.met))


def _note(modules: set[int], module: nn.Module) -> None:
    modules.add(id(module))


class _Meeting(Counter):
    """Notes every tensor that is read or made, and keeps the noise as it was drawn."""

    def __init__(self, marks: list[Mark]) -> None:
        super().__init__(marks)
        self.met: set[int] = set()

    def _execute(self, func: Any, args: tuple[Any, ...], kwargs: Any) -> Any:
        out = func(*args, **kwargs)
        self.met.update(map(id, tensors_in((args, kwargs, out))))
        return out

    def _keep(self, mark: Mark, tensor: Tensor) -> None:
        with torch.no_grad():
            super()._keep(mark, tensor.detach().clone())
