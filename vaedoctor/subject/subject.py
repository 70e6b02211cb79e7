"""Who is examined: the model, a batch, the objective, the optimizer."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from ..finding import Span
from .calling import Calling
from .records import with_fields

LOADED = "item "
"""The names of a loader's further entries where they have none: `item 1` and so on."""


@dataclass(frozen=True, slots=True)
class Around:
    """Another item of the loop that feeds the model: a row's shape, its type.

    `same` is the data itself, perhaps in another shape; of as many numbers in a `range` is what a
    denoising model is to give back.
    """

    shape: tuple[int, ...]
    dtype: torch.dtype
    same: bool
    range: tuple[float, float] | None = None

    def beside(self, x: Tensor) -> Tensor:
        """The item for as many rows as `x` has; zeros where it has nothing of the data."""
        if self.same or self.range:
            made = x.reshape(x.shape[0], *self.shape)
            low, high = self.range or (-math.inf, math.inf)
            fits = bool(((x >= low) & (x <= high)).all())
            return made if fits else made.clamp(low, high)
        return torch.zeros((x.shape[0], *self.shape), dtype=self.dtype, device=x.device)


@dataclass(frozen=True, slots=True)
class Batch:
    """The arguments of one forward pass, and where they come from.

    `origin` is a phrase for the report ("given", "your own example in line 12", "made up from
    `encoder.linear1`"); `guessed` says that nobody but vaedoctor chose the values.
    `ran` is False when no guess made the forward pass run to its end. `axis` is where the samples
    of a made-up batch are, None where rows are no samples (the nodes of one graph). `beside` names
    the keyword arguments that forward does not take: a loader's further entries, for the loss.
    `work` counts the multiplications of one pass, where they were counted. `around` are further
    items of the loop that the batch comes from, by their names there. `edited` says that the model
    writes into what it is given: each run then gets copies, which its graph may keep.
    """

    args: tuple[Any, ...]
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    origin: str = "given"
    guessed: bool = False
    ran: bool = True
    axis: int | None = 0
    beside: frozenset[str] = frozenset()
    work: int = 0
    around: Mapping[str, Around] = field(default_factory=dict)
    edited: bool = False

    def run(self, model: nn.Module) -> Any:
        """One forward pass."""
        return model(*self.args, **{k: v for k, v in self.kwargs.items() if k not in self.beside})

    def handed(self) -> Batch:
        """The batch as one run gets it."""
        return self.mapped(Tensor.clone) if self.edited else self

    def mapped(self, change: Callable[[Tensor], Tensor]) -> Batch:
        """The batch with every tensor changed."""
        args = tuple(rebuilt(a, change) for a in self.args)
        kwargs = {k: rebuilt(v, change) for k, v in self.kwargs.items()}
        return replace(self, args=args, kwargs=kwargs)


def rebuilt(item: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """A part of a batch with every tensor in it changed: in dicts, sequences and records."""
    if isinstance(item, Tensor):
        return change(item)
    if isinstance(item, PackedSequence):
        return item  # its tensors belong together
    if isinstance(item, dict):
        return {k: rebuilt(v, change) for k, v in item.items()}
    if isinstance(item, tuple) and hasattr(item, "_fields"):
        return type(item)(*(rebuilt(v, change) for v in item))
    if isinstance(item, (list, tuple)):
        return type(item)(rebuilt(v, change) for v in item)
    return with_fields(item, lambda v: rebuilt(v, change))


@dataclass(frozen=True, slots=True)
class Objective:
    """The user's loss.

    `run(model, batch)` does one forward pass through `model` and returns whatever the user's loss
    returns: a scalar, or a tuple or dict that holds one. `settled` is False where nothing says that
    it is minimised: a method `elbo` that no code calls may be a bound, to be maximised.
    `unweighed` names a parameter of the loss, a weight, that nothing tells: it is 1. `stands_in`
    says that the reconstruction in it is ours, beside a KL of the user's: only the KL is judged.
    `elsewhere` names a parameter such as `target`, which the input was taken for: a loop may give
    it something else, as the next steps of a sequence.
    """

    run: Callable[[nn.Module, Batch], Any]
    name: str
    origin: str = "given"
    at: Span | None = None
    settled: bool = True
    unweighed: str | None = None
    stands_in: bool = False
    elsewhere: str | None = None


@dataclass(frozen=True, slots=True)
class Subject:
    """Everything a check-up needs to know about its patient.

    `conditions` are the positions or names of batch items that are conditions or masks rather
    than data; `batch_axis` None says that rows are not samples; `beta` is the intended KL weight;
    `rebuild` makes a fresh, equal instance where that is known to be possible; `notes` tell how
    the subject was loaded; `at` is the class line, the place of last resort for a finding;
    `calling` is how the forward pass is called; `made_up` says that vaedoctor chose arguments of
    the constructor, `untold` that it did so for a class of a library, whose options nobody told;
    `made_there` that the file makes new tensors on the accelerator by default;
    `moves` is False where the modules that a script joins, and its tensors, never leave the CPU;
    `backwards` counts the places where the model's file goes backward from a loss;
    `memory` is where experiments keep what they need to know about the model
    again and again.
    """

    model: nn.Module
    batch: Batch
    objective: Objective | None = None
    optimizers: tuple[torch.optim.Optimizer, ...] = ()
    optimizer_at: Span | None = None
    conditions: frozenset[int | str] = frozenset()
    beta: float | None = None
    batch_axis: int | None = 0
    rebuild: Callable[[int], nn.Module] | None = None
    target: str = ""
    at: Span | None = None
    notes: tuple[str, ...] = ()
    calling: Calling = field(default_factory=Calling)
    made_up: bool = False
    untold: bool = False
    made_there: bool = False
    moves: bool = True
    backwards: int = 0
    memory: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)
