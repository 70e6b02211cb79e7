"""One training step of the subject, recorded: forward pass, and the user's loss if there is one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.utils import checkpoint

from ...subject.subject import Subject
from ...subject.total import total
from ...subject.trials.switches import seed_everything, set_mode
from .edits import Edits
from .inventory import inventory, leaf_names
from .recorder import Recorder
from .recording import Recording


def run_recorded(
    subject: Subject,
    *,
    seed: int | None,
    train: bool = True,
    edits: Edits | None = None,
    batch: Any = None,
    kind: Callable[..., Recorder] = Recorder,
    run: Callable[[nn.Module], Any] | None = None,
) -> Recording:
    """Run the subject once in the given mode and record it. An exception ends the recording.

    `seed` None leaves the generators running; `batch` replaces the subject's own, `kind` the
    recorder, `run` the step itself. The caller restores what the run changes (`leaves_no_trace`).
    """
    batch = batch or subject.batch
    model = subject.model
    known = inventory(subject)
    recorder = kind(model, leaf_names(known, subject, batch), known.paths, edits)
    set_mode(model, train)
    if seed is not None:
        seed_everything(seed)
    recording = recorder.recording
    with torch.enable_grad():
        try:
            with without_checkpointing(), recorder:
                batch = batch.handed()
                if run is not None:
                    recording.output = run(model)
                elif subject.objective is None:
                    batch.run(model)
                else:
                    recording.returned = subject.objective.run(model, batch)
                    recording.loss = total(recording.returned)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # the user's model may raise anything, SystemExit too
            recording.error = error
    return recording


def runs_unrecorded(subject: Subject, *, seed: int, batch: Any = None, grad: bool = True) -> bool:
    """Whether the step runs when nobody watches: then an exception while recording is ours."""
    batch = batch or subject.batch
    set_mode(subject.model, True)
    seed_everything(seed)
    with torch.set_grad_enabled(grad):
        try:
            if subject.objective is None:
                batch.run(subject.model)
            else:
                subject.objective.run(subject.model, batch)
        except KeyboardInterrupt:
            raise
        except BaseException:  # the user's model may raise anything, SystemExit too
            return False
    return True


@contextmanager
def without_checkpointing() -> Iterator[None]:
    """Run the functions of checkpoints directly: same values, and a graph that can be asked.

    `torch.autograd.grad` refuses a graph with reentrant checkpoints, which only save memory. The
    others run their function again when the gradient is taken, in the mode that the model is in
    then.
    """
    direct = staticmethod(lambda run, _, *args: run(*args))
    again = "_checkpoint_without_reentrant_generator"
    before = getattr(checkpoint, again, None)
    setattr(checkpoint.CheckpointFunction, "apply", direct)  # noqa: B010
    if before is not None:
        setattr(checkpoint, again, _directly)
    try:
        yield
    finally:
        del checkpoint.CheckpointFunction.apply
        if before is not None:
            setattr(checkpoint, again, before)


def _directly(*_: Any, **__: Any) -> Iterator[None]:
    """What surrounds the function of a checkpoint: nothing."""
    yield
