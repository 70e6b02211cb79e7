"""The step once more with the generators running on: its noise, its modules, its tensors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_pre_hook

from ...subject.subject import Subject
from .recording import Op, Recording, operands, tensors_in
from .repeat import Counter, Mark, run_counted
from .step import run_recorded


@dataclass(frozen=True, slots=True)
class Again:
    """What a second run tells, without keeping its graph.

    `noise` by the index of the operation, `modules` that were called and `tensors` that were met
    by identity, which holds only while the first run's objects are alive. `kept` is the operation
    that reads a tensor of the run before whose graph the loss goes through.
    """

    noise: Mapping[int, tuple[str, Tensor]]
    modules: frozenset[int]
    tensors: frozenset[int]
    kept: Op | None = None

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
    meeting, again = _counted(subject, first)
    if again is not None:
        return again
    second = run_recorded(subject, seed=None)  # what the first kept is still kept now
    again = Again.of(second)
    if meeting is None or meeting.entered:
        third = run_recorded(subject, seed=None)
        again = replace(again, kept=_entangled(third, second))
        third.release()
    second.release()
    return again


def _counted(subject: Subject, first: Recording) -> tuple[_Meeting | None, Again | None]:
    """The same without a recording; None where the second step takes another way."""
    draws = [op for op in first.ops if op.noise is not None]
    old = {v.edge.node for v in first.values if v.edge is not None and v.op is not None}
    if not all(op.turn for op in draws):
        return None, None
    meeting = _Meeting([Mark(op.turn, 0, op.index) for op in draws], old)
    modules: set[int] = set()
    hook = register_module_forward_pre_hook(lambda module, _: _note(modules, module))
    try:
        ran = run_counted(subject, meeting, seed=None).ran
    finally:
        hook.remove()
    same = ran and meeting.turns == first.turns and len(meeting.kept) == len(draws)
    if not same or meeting.entered:
        return meeting, None
    noise = {op.index: (op.name, meeting.kept[op.index]) for op in draws}
    return meeting, Again(noise, frozenset(modules), frozenset(meeting.met))


def _note(modules: set[int], module: nn.Module) -> None:
    modules.add(id(module))


class _Meeting(Counter):
    """Notes every tensor that is read or made, and keeps the noise as it was drawn.

    `entered` says whether one came with a graph of `old`, the nodes of the run before.
    """

    def __init__(self, marks: list[Mark], old: set[Any]) -> None:
        super().__init__(marks)
        self.met: set[int] = set()
        self.entered = False
        self._old = old

    def _execute(self, func: Any, args: tuple[Any, ...], kwargs: Any) -> Any:
        read = operands(args, kwargs)
        self.entered |= any(t.grad_fn in self._old for t in read if not t.is_leaf)
        out = func(*args, **kwargs)
        self.met.update(map(id, (*read, *tensors_in(out))))
        return out

    def _keep(self, mark: Mark, tensor: Tensor) -> None:
        with torch.no_grad():
            super()._keep(mark, tensor.detach().clone())


def _entangled(recording: Recording, before: Recording) -> Op | None:
    """Which operation reads what the run before left behind with its graph, if the loss needs it.

    The backward pass of the first step frees that graph: that of the second one raises.
    """
    old = {v.edge.node for v in before.values if v.edge is not None and v.op is not None}
    entered = [
        v
        for op in recording.ops
        if not op.args and len(op.makes) == 1 and (v := op.out).edge is not None
        if v.edge is not None and v.edge.node in old and _keeps(v.edge.node)
    ]
    loss = recording.loss
    if not entered or not isinstance(loss, Tensor) or not loss.requires_grad:
        return None
    edges = [v.edge for v in entered if v.edge is not None]
    found = torch.autograd.grad(loss, edges, allow_unused=True, retain_graph=True)
    used = [v for v, g in zip(entered, found, strict=True) if g is not None]
    readers = [op for op in recording.ops for v in used if v in op.reads]
    return next(iter(readers), None)


def _keeps(node: Any) -> bool:
    """Whether a graph holds tensors that its backward pass frees: sums alone hold none."""
    waiting, seen = [node], set[Any]()
    while waiting and len(seen) < 1000:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if any(isinstance(getattr(node, a), Tensor) for a in dir(node) if a.startswith("_saved_")):
            return True
        waiting.extend(following for following, _ in node.next_functions)
    return False
