"""One step of a small model, recorded or examined, for the tests of the measurements."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from vaedoctor.examine.examination import Examination
from vaedoctor.examine.runs.edits import Edit
from vaedoctor.examine.runs.flow import Flow
from vaedoctor.examine.runs.recording import Op, Recording, Value
from vaedoctor.examine.runs.step import run_recorded
from vaedoctor.subject.subject import Batch, Objective, Subject
from vaedoctor.subject.total import total
from vaedoctor.subject.trials.trace import leaves_no_trace


class Bare(nn.Module):
    """A function as a model; keyword arguments become its layers and parameters."""

    def __init__(self, body: Callable[..., Any], **parts: Any) -> None:
        super().__init__()
        self.body = body
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, *inputs: Any) -> Any:
        return self.body(*inputs)


def subject(model: Any, *inputs: Any, loss: Any = None, **options: Any) -> Subject:
    """A subject of a module or function; `loss(output, *inputs)` is its objective."""
    if not isinstance(model, nn.Module):
        model = Bare(model)
    if loss is not None:
        options["objective"] = Objective(lambda m, batch: loss(batch.run(m), *batch.args), "loss")
    return Subject(model, Batch(inputs), **options)


def step(
    model: Any,
    *inputs: Any,
    loss: Any = None,
    seed: int | None = 0,
    edits: Mapping[int, Edit] | None = None,
) -> Recording:
    """One recorded step; it must not raise (see `failed`)."""
    recording = run_recorded(subject(model, *inputs, loss=loss), seed=seed, edits=edits)
    assert recording.error is None, recording.error
    return recording


def failed(model: Any, *inputs: Any, loss: Any = None) -> Recording:
    """One recorded step that raises."""
    recording = run_recorded(subject(model, *inputs, loss=loss), seed=0)
    assert recording.error is not None
    return recording


@contextmanager
def examined(model: Any, *inputs: Any, loss: Any = None, **options: Any) -> Iterator[Examination]:
    """The measurements of one subject, with the restoration that experiments need."""
    patient = subject(model, *inputs, loss=loss, **options)
    with leaves_no_trace(patient.model, patient.batch.args) as rewind:
        yield Examination(patient, seed=0, rewind=rewind)


def op_named(recording: Recording, name: str) -> Op:
    """The only operation of that name."""
    (op,) = [op for op in recording.ops if op.name == name]
    return op


def contents(recording: Recording) -> list[Tensor]:
    """What every value holds at the end, copied."""
    return [v.tensor.detach().clone() for v in recording.values]


def moved(a: list[Tensor], b: list[Tensor]) -> list[bool]:
    """Which values differ between two runs of one step."""
    assert len(a) == len(b)
    return [s.shape != t.shape or not torch.equal(s, t) for s, t in zip(a, b, strict=True)]


def flow_of(recording: Recording) -> tuple[Flow, Value]:
    """The flow of a recording and the value of its only output."""
    value = recording.value_of(recording.output)
    assert value is not None
    return Flow(recording), value


def value(model: nn.Module, objective: Objective, batch: Batch, seed: int = 0) -> float:
    """The loss of one run."""
    torch.manual_seed(seed)
    return float(total(objective.run(model, batch)).detach())
