"""Gradients once more: on other batches, and with every weight nudged.

A gradient that is exactly zero at step 0 often means a zero-initialised layer behind it. Moving
all weights by a little and asking again tells that apart from a dead path.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ...subject.subject import Batch, Subject
from ..anatomy.anatomy import anatomize
from ..objective.objective import compose
from ..runs.flow import Flow
from ..runs.gradients import parameter_gradients
from ..runs.recording import operands
from ..runs.repeat import Counter, Mark, run_counted
from ..runs.step import run_recorded
from ..sampling.noise import perturbed

NUDGE = 1e-2  # standard deviation added to every weight, relative to its own scale (or 1)


@dataclass(frozen=True, slots=True)
class Survey:
    """For each parameter, its largest absolute gradient in every run that ran."""

    runs: int
    largest: dict[str, float]


def take_survey(subject: Subject, seed: int, rewind: Callable[[], None]) -> Survey:
    """The largest gradient of every parameter over two other batches and nudged weights."""
    largest: dict[str, float] = {}
    runs = 0
    moved = perturbed(subject.batch)
    for batch, nudged in ((moved, False), (perturbed(moved), True), (subject.batch, True)):
        gradients = _gradients(subject, seed + 1 + runs, batch, nudged)
        if nudged:
            rewind()  # not before the second step: what the first one left is read by it
        if gradients is None:
            continue
        runs += 1
        for name, gradient in gradients.items():
            size = 0.0 if gradient is None else float(gradient.detach().abs().max())
            largest[name] = max(largest.get(name, 0.0), size)
    return Survey(runs, largest)


def alive_mirrored(subject: Subject, seed: int, weight: str, rewind: Callable[[], None]) -> bool:
    """Whether a weight of the opposite sign, which was as likely a draw, gets a gradient."""
    named = dict(subject.model.named_parameters())
    if weight not in named:
        return False
    named[weight].data.neg_()
    gradient = (_gradients(subject, seed, subject.batch, False) or {}).get(weight)
    rewind()
    return gradient is not None and bool((gradient != 0).any())


def _gradients(
    subject: Subject, seed: int, batch: Batch, nudged: bool
) -> dict[str, Tensor | None] | None:
    if nudged:
        nudge(subject.model, seed)
    if subject.objective is not None:
        return _of_loss(replace(subject, batch=batch), seed)
    recording = run_recorded(subject, seed=seed, batch=batch)
    if recording.error is not None:
        return None
    loss = recording.loss
    if loss is None:
        loss = compose(anatomize(recording, Flow(recording)))
    found = parameter_gradients(recording, loss, recording.loss is None)
    recording.release()
    return None if found.error is not None else found.by_name


def _of_loss(subject: Subject, seed: int) -> dict[str, Tensor | None] | None:
    """The gradients of the user's own loss, without a recording."""
    named = {n: p for n, p in subject.model.named_parameters() if p.requires_grad}
    counter = _Meeting([])
    ran = run_counted(subject, counter, seed=seed)
    if not ran.ran:
        return None
    met = [n for n, p in named.items() if id(p) in counter.met]
    if not named or not isinstance(ran.loss, Tensor) or not ran.loss.requires_grad:
        return dict.fromkeys(met)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            found = torch.autograd.grad(ran.loss, [*named.values()], allow_unused=True)
        except KeyboardInterrupt:
            raise
        except BaseException:  # whatever autograd or a user's backward raises
            return None
    gradients = dict(zip(named, found, strict=True))
    return {n: g for n, g in gradients.items() if g is not None or n in met}


class _Meeting(Counter):
    """Notes every tensor that a call of torch is given."""

    def __init__(self, marks: Iterable[Mark]) -> None:
        super().__init__(marks)
        self.met: set[int] = set()

    def _execute(self, func: Any, args: tuple[Any, ...], kwargs: Any) -> Any:
        self.met.update(map(id, operands(args, kwargs)))
        return func(*args, **kwargs)


def nudge(model: torch.nn.Module, seed: int) -> None:
    """Move every floating parameter by a little noise, relative to its own scale."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if not parameter.is_floating_point() or parameter.numel() == 0:
                continue
            scale = float(parameter.detach().abs().mean()) or 1.0
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.data.add_(noise.to(parameter) * NUDGE * scale)
