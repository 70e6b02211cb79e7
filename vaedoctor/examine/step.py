"""One training step of the subject, recorded: forward pass, and the user's loss if there is one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import checkpoint

from ..subject.objective import total
from ..subject.subject import Subject
from ..subject.trace import reachable, seed_everything
from .recorder import Edits, Recorder
from .recording import Recording, tensors_in


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
    model.train(train)
    if seed is not None:
        seed_everything(seed)
    recorder = kind(model, leaf_names(subject, batch), edits)
    recording = recorder.recording
    with torch.enable_grad():
        try:
            with without_checkpointing(), recorder:
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
    registered = (*model.modules(), *model.parameters(), *model.buffers())
    recording.registered = frozenset(map(id, registered))
    return recording


def runs_unrecorded(subject: Subject, *, seed: int, batch: Any = None, grad: bool = True) -> bool:
    """Whether the step runs when nobody watches: then an exception while recording is ours."""
    batch = batch or subject.batch
    subject.model.train()
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
    """Run reentrant checkpoints' functions directly: same values, and a graph that can be asked.

    `torch.autograd.grad` refuses a graph with reentrant checkpoints, which only save memory.
    """
    direct = staticmethod(lambda run, _, *args: run(*args))
    setattr(checkpoint.CheckpointFunction, "apply", direct)  # noqa: B010
    try:
        yield
    finally:
        del checkpoint.CheckpointFunction.apply


def leaf_names(subject: Subject, batch: Any) -> dict[int, tuple[str, str]]:
    """What every known leaf tensor is: (kind, name) by identity.

    Kinds: parameter, buffer, input, condition, and attribute (a tensor that hangs on the model
    without being registered, on itself or on a module it keeps in a plain container).
    """
    things = list(reachable(subject.model))
    named = {id(t): ("attribute", "") for t in things if isinstance(t, Tensor)}
    for hidden in unregistered_modules(subject.model, things):
        for name, parameter in hidden.named_parameters():
            named[id(parameter)] = ("stray", name)
        for name, buffer in hidden.named_buffers():
            named[id(buffer)] = ("attribute", name)
    for name, buffer in subject.model.named_buffers():
        named[id(buffer)] = ("buffer", name)
    for name, parameter in subject.model.named_parameters():
        named[id(parameter)] = ("parameter", name)
    items: Iterable[tuple[int | str, Any]] = [*enumerate(batch.args), *batch.kwargs.items()]
    for key, item in items:
        kind = "condition" if key in subject.conditions else "input"
        if isinstance(item, Mapping):
            for inner, value in item.items():
                inner_kind = "condition" if inner in subject.conditions else kind
                for tensor in tensors_in(value):
                    named[id(tensor)] = (inner_kind, str(inner))
        else:
            for tensor in tensors_in(item):
                named[id(tensor)] = (kind, str(key))
    return named


def unregistered_modules(
    model: nn.Module, things: Iterable[object] | None = None
) -> list[nn.Module]:
    """Modules the model can reach through plain lists, dicts or objects, but does not register."""
    registered = {id(m) for m in model.modules()}
    return [
        thing
        for thing in (reachable(model) if things is None else things)
        if isinstance(thing, nn.Module) and id(thing) not in registered
    ]
