"""A recorded step once more with edits, without recording it: only what is asked for is kept.

In a run that takes the same way the n-th call of torch is the same operation, so edits and
results are found by counting. That costs little more than the bare step and keeps no intermediate
result alive.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from ...subject.subject import Subject
from ...subject.total import total
from ...subject.trials.switches import seed_everything, set_mode
from .direct import around_forward
from .edits import Edit, Edits, by_operation, edited
from .recording import Recording, Value, tensors_in
from .step import run_recorded, without_checkpointing


@dataclass(slots=True)
class Repeated:
    """The second run: its loss, its output and what stands for the values asked for, by index.

    `same` says whether the run took the way of the recorded one to its end.
    """

    tensors: dict[int, Tensor] = field(default_factory=dict)
    loss: Any = None
    output: Any = None
    same: bool = False


def repeat(
    subject: Subject,
    recording: Recording,
    *,
    seed: int,
    edits: Edits,
    keep: Iterable[Value],
    rewind: Callable[[], None],
    grad: bool = True,
) -> Repeated:
    """Run the step of `recording` again with `edits`, in train mode, and rewind.

    Without `grad` no graph is made, unless the step asks for one itself.
    """
    wanted = list(keep)
    changes = by_operation(edits)
    if countable(recording, changes, wanted):
        made = counted(subject, recording, seed, changes, wanted, rewind, grad=grad)
        if made.same or grad:
            return made
        return counted(subject, recording, seed, changes, wanted, rewind)
    other = run_recorded(subject, seed=seed, edits=edits)
    rewind()
    found = {v.index: other.values[v.index].tensor for v in wanted if v.index < len(other.values)}
    same = other.error is None and len(other.ops) == len(recording.ops)
    repeated = Repeated(found, other.loss, other.output, same)
    other.release()
    return repeated


def mark_of(value: Value) -> Mark | None:
    """How to find a value again without a recording; None where no call of torch returns it."""
    return _mark(value) if _returned(value) else None


def _returned(value: Value) -> bool:
    """Whether the operation hands the value out, rather than changing it behind a view."""
    op = value.op
    return op is not None and op.turn > 0 and op.makes.index(value) < len(op.positions)


def countable(recording: Recording, changes: Iterable[int], wanted: Iterable[Value]) -> bool:
    """Whether calls of torch return all that is to be changed and all that is wanted."""
    return all(recording.ops[i].turn for i in changes) and all(_returned(v) for v in wanted)


def counted(
    subject: Subject,
    recording: Recording,
    seed: int,
    changes: Mapping[int, Mapping[int, Edit]],
    wanted: Iterable[Value],
    rewind: Callable[[], None],
    kind: type[Counter] | None = None,
    grad: bool = True,
) -> Repeated:
    """Run the step again under a counter of `kind`, in train mode, and rewind."""
    edits = {recording.ops[i].turn: (recording.ops[i].inplace, c) for i, c in changes.items()}
    counter = (kind or Counter)([_mark(v) for v in wanted], edits)
    ran = run_counted(subject, counter, seed=seed, grad=grad)
    rewind()
    same = ran.ran and counter.turns == recording.turns
    return Repeated(counter.kept, ran.loss, ran.output, same)


@dataclass(slots=True)
class Ran:
    """A step that was not recorded: whether it came to its end, its loss and its output."""

    ran: bool = False
    loss: Any = None
    output: Any = None


def run_counted(subject: Subject, counter: Counter, *, seed: int | None, grad: bool = True) -> Ran:
    """Run the step in train mode under a counter; the caller rewinds.

    `seed` None leaves the generators running.
    """
    model, ran = subject.model, Ran()
    set_mode(model, True)
    if seed is not None:
        seed_everything(seed)

    def passed(run: Callable[[], Any], _: Any) -> Any:
        ran.output = run()
        return ran.output

    with torch.set_grad_enabled(grad):
        try:
            with around_forward(model, passed), without_checkpointing(), counter:
                batch = subject.batch.handed()
                if subject.objective is None:
                    batch.run(model)
                else:
                    ran.loss = total(subject.objective.run(model, batch))
            ran.ran = True
        except KeyboardInterrupt:
            raise
        except BaseException:  # the user's model may raise anything, SystemExit too
            ran.loss = None
    return ran


@dataclass(frozen=True, slots=True)
class Mark:
    """Where a value comes from: the call of torch, counted, and the position in its result."""

    turn: int
    position: int
    key: int


def _mark(value: Value) -> Mark:
    assert value.op is not None
    return Mark(value.op.turn, value.place[1], value.index)


class Counter(TorchFunctionMode):
    """Counts the calls of torch, keeps the tensors at `marks` and edits what some calls return.

    `edits` are by turn: whether the call works in place, and the edit of each position.
    """

    def __init__(
        self,
        marks: Iterable[Mark],
        edits: Mapping[int, tuple[bool, Mapping[int, Edit]]] = types.MappingProxyType({}),
    ) -> None:
        super().__init__()
        self.turns = 0
        self.kept: dict[int, Tensor] = {}
        self._edits = edits
        self._marks: dict[int, list[Mark]] = {}
        for mark in marks:
            self._marks.setdefault(mark.turn, []).append(mark)

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        self.turns += 1
        turn = self.turns
        out = self._execute(func, args, kwargs or {})
        if turn not in self._edits and turn not in self._marks:
            return out
        outs = [out] if isinstance(out, Tensor) else list(tensors_in(out))
        inplace, edits = self._edits.get(turn, (False, {}))
        for position, edit in edits.items():
            if position < len(outs):
                out, outs = edited(edit, out, outs, position, inplace)
        for mark in self._marks.get(turn, ()):
            if mark.position < len(outs):
                self._keep(mark, outs[mark.position])
        return out

    def _keep(self, mark: Mark, tensor: Tensor) -> None:
        self.kept[mark.key] = tensor

    def _execute(self, func: Any, args: tuple[Any, ...], kwargs: Any) -> Any:
        """Run one call; a counter that plays a part answers in its place."""
        return func(*args, **kwargs)
