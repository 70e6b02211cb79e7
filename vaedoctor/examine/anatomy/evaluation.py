"""The model in evaluation mode: recorded passes, and the reconstruction they return."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ...subject.subject import Batch, Subject
from ...subject.total import total
from ...subject.trials.switches import seed_everything, set_mode
from ..runs.direct import around_forward
from ..runs.flow import Flow
from ..runs.outputs import named_tensors
from ..runs.recording import Recording, Value
from ..runs.repeat import Counter, Mark
from ..runs.step import run_recorded, without_checkpointing
from ..runs.still import StillNoise
from .anatomy import Anatomy, anatomize


def run_forward(
    subject: Subject,
    *,
    seed: int | None,
    batch: Batch | None = None,
    train: bool = False,
    still: bool = False,
    whole: bool = False,
) -> Recording:
    """One recorded pass, in evaluation mode by default; `whole` runs the user's loss as well.

    `still` puts every draw at its centre, which makes passes of unlike size comparable.
    """
    patient = subject if whole else replace(subject, objective=None)
    with StillNoise() if still else nullcontext(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # one row has no standard deviation, and torch says so
        return run_recorded(patient, seed=seed, train=train, batch=batch)


def samples_in_evaluation(subject: Subject, seed: int, rewind: Callable[[], None]) -> bool:
    """Whether a sample reaches what the model returns in evaluation mode."""
    recording = run_forward(subject, seed=seed)
    try:
        return recording.error is None and bool(anatomize(recording, Flow(recording)).sampled)
    finally:
        recording.release()
        rewind()


def run_quickly(
    subject: Subject,
    anatomy: Anatomy,
    *,
    seed: int,
    batch: Batch,
    whole: bool,
    landmark: Landmark | None = None,
    still: bool = True,
    grad: bool = False,
) -> Tensor | None:
    """The reconstruction of one pass in evaluation mode, without a recording.

    `landmark` says where it is made if forward does not return it; `still` and `whole` are those
    of `run_forward`. None where the pass raises, takes another way or returns no such output: the
    recorded pass tells why.
    """
    model, outputs = subject.model, list[Any]()
    set_mode(model, False)
    seed_everything(seed)

    def passed(run: Callable[[], Any], _: Any) -> Any:
        outputs.append(run())
        return outputs[-1]

    counter = Counter([landmark.mark] if landmark is not None else [])
    try:
        # Switching gradients off is a call of torch too, which the recorded run does not count.
        with (
            torch.set_grad_enabled(grad),
            StillNoise() if still else nullcontext(),
            around_forward(model, passed),
            without_checkpointing(),
            counter,
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("ignore")
            batch = batch.handed()
            if whole and subject.objective is not None:
                total(subject.objective.run(model, batch))
            else:
                batch.run(model)
    except KeyboardInterrupt:
        raise
    except BaseException:  # the user's model may raise anything, SystemExit too
        return None
    if landmark is not None:
        return counter.kept.get(landmark.mark.key) if counter.turns == landmark.turns else None
    name = next((o.name for o in anatomy.outputs if o.value is anatomy.x_hat), None)
    return dict(named_tensors(outputs[0])).get(name or "") if outputs else None


@dataclass(frozen=True, slots=True)
class Landmark:
    """Where a pass of `turns` calls of torch makes the reconstruction."""

    mark: Mark
    turns: int


def returned(anatomy: Anatomy) -> bool:
    """Whether the reconstruction is among the outputs of forward, and not made by the loss."""
    return any(o.value is anatomy.x_hat for o in anatomy.outputs)


def reconstruction_in(recording: Recording, anatomy: Anatomy) -> Value | None:
    """What stands for x_hat in another recording: the output of the same name, or a new look."""
    if recording.error is not None or anatomy.x_hat is None:
        return None
    named = dict(named_tensors(recording.output))
    tensor = named.get(anatomy.x_hat_name)
    if returned(anatomy) and isinstance(tensor, Tensor):
        same_rank = tensor.dim() == anatomy.x_hat.tensor.dim() or tensor.dim() == 0
        if (same_rank or len(named) > 1) and (value := recording.value_of(tensor)) is not None:
            return value
    return anatomize(recording, Flow(recording)).x_hat


@contextmanager
def differentiable(tensor: Tensor) -> Iterator[None]:
    """Let a gradient be taken at an input for the time of an experiment."""
    before = tensor.requires_grad
    tensor.requires_grad_(True)
    try:
        yield
    finally:
        tensor.requires_grad_(before)
