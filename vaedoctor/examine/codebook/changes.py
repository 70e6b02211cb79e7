"""What training steps change in a table of codes, and the averages that are kept beside it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ...finding import Span
from ...subject.subject import Subject
from ..anatomy.evaluation import run_forward
from ..code.listing import writes_attribute
from ..runs.flow import Flow
from ..runs.recording import Op, Recording, Value
from ..sampling.noise import perturbed
from .codebook import Codebook


@dataclass(frozen=True, slots=True)
class Average:
    """A buffer beside a table, of its shape, that training forwards move.

    `at` is the last line that reads it after that, or moves it where none does. `copied` says that
    code of the class writes to the table, though not in these forwards.
    """

    name: str
    at: Span | None
    copied: bool


@dataclass(frozen=True, slots=True)
class Changes:
    """How far each table moves (by name) in training forwards and in an evaluation forward.

    `averages` are the averages of its codes that are kept beside a table that does not move.
    """

    training: dict[str, float]
    evaluation: dict[str, float]
    edits: dict[str, Op]
    averages: dict[str, Average]


def changes(
    subject: Subject, books: list[Codebook], seed: int, rewind: Callable[[], None]
) -> Changes:
    """Two training forwards, then one in evaluation mode, without putting the model back."""
    names = {b.name: b.table for b in books}
    before, kept = _contents(subject.model, names), _buffers(subject.model)
    first = run_forward(subject, seed=seed, train=True)
    averages = _averages(subject.model, names, kept, first)
    run_forward(subject, seed=None, train=True)
    trained = _contents(subject.model, names)
    recording = run_forward(subject, seed=seed, batch=perturbed(subject.batch))
    after = _contents(subject.model, names)
    edits = {n: op for n, v in names.items() if (op := _edit(recording, v)) is not None}
    rewind()
    moved = _moved(before, trained)
    still = {n: a for n, a in averages.items() if not moved[n]}
    return Changes(moved, _moved(trained, after), edits, still)


def _buffers(model: nn.Module) -> dict[str, Tensor]:
    return {n: b.detach().clone() for n, b in model.named_buffers()}


def _averages(
    model: nn.Module, names: Mapping[str, Value], before: dict[str, Tensor], recording: Recording
) -> dict[str, Average]:
    """Of each table the buffer of its shape, in the same module, that the run has moved."""
    found: dict[str, Average] = {}
    flow = Flow(recording)
    for name, now in model.named_buffers():
        for table, value in names.items():
            beside = table != name and table.rpartition(".")[0] == name.rpartition(".")[0]
            if not beside or now.shape != value.shape or torch.equal(now, before[name]):
                continue
            here = now.untyped_storage().data_ptr()
            made = [v for op in recording.ops for v in op.makes if v.memory == here]
            if made and made[-1].op is not None and flow.data[made[-1].index]:
                module, _, attribute = table.rpartition(".")
                written = writes_attribute(type(model.get_submodule(module)), attribute)
                last = [made[-1].op, *flow.consumers.get(made[-1].index, ())][-1]
                found[table] = Average(name, last.span, written)
    return found


def _contents(model: nn.Module, names: dict[str, Value]) -> dict[str, Tensor]:
    """The tables as the model holds them now: a buffer may have been assigned anew."""
    held = {**dict(model.named_buffers()), **dict(model.named_parameters())}
    return {n: held.get(n, v.tensor).detach().clone() for n, v in names.items()}


def _moved(a: dict[str, Tensor], b: dict[str, Tensor]) -> dict[str, float]:
    return {
        n: float((a[n].float() - b[n].float()).abs().max()) if a[n].shape == b[n].shape else 1.0
        for n in a
    }


def _edit(recording: Recording, table: Value) -> Op | None:
    """The operation that wrote to the table's memory."""
    here = table.memory
    for op in recording.ops:
        if here and op.inplace and any(v.memory == here for v in op.makes):
            return op
    return None
