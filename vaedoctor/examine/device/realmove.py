"""The real move to an accelerator, where there is one: the virtual one must agree with it."""

from __future__ import annotations

from collections.abc import Callable

import torch

from ...subject.code import cuda
from ...subject.subject import Subject
from ..runs.recording import Recording
from ..runs.step import run_recorded


def accelerator() -> torch.device | None:
    """This machine's accelerator; None without one."""
    known = getattr(torch, "accelerator", None)  # torch 2.6 and later
    with cuda.visible():
        if known is not None:
            found: torch.device | None = known.current_accelerator()
            return found if known.is_available() else None
        return torch.device("cuda") if torch.cuda.is_available() else None


def refused(
    subject: Subject, device: torch.device, seed: int, rewind: Callable[[], None]
) -> bool | None:
    """Whether the step is refused on a device for a tensor elsewhere; None if it fails otherwise.

    Parameters, buffers and the batch are moved, the step runs, and everything is put back.
    """
    with cuda.visible():
        subject.model.to(device)
        batch = subject.batch.mapped(lambda t: t.detach().to(device))
        recording = run_recorded(subject, seed=seed, batch=batch)
    found = _about_devices(recording)
    rewind()
    return found


def _about_devices(recording: Recording) -> bool | None:
    error = recording.error
    if error is None:
        return False
    failed = next((op for op in reversed(recording.ops) if op.error is error), None)
    mixed = failed is not None and len({v.tensor.device for v in failed.reads}) > 1
    told = isinstance(error, (RuntimeError, TypeError)) and "device" in str(error)
    return True if mixed or told else None
