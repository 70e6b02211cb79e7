"""One guarded forward pass: how far it got, which layer came first, what it gave."""

from __future__ import annotations

import dataclasses
import inspect
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import (
    register_module_forward_hook,
    register_module_forward_pre_hook,
)

from .switches import seed_everything, set_mode
from .trace import leaves_no_trace


@dataclass(frozen=True, slots=True)
class Call:
    """One layer that was reached, and the shape of the first tensor it was given."""

    module: nn.Module
    shape: tuple[int, ...] | None
    first: Tensor | None = None


@dataclass(slots=True)
class Trial:
    """What one forward pass did: `completed` counts the layers that ended without an error.

    `running` are those that had not ended, the innermost last; `given` is the shape of what the
    last one to end gave.
    """

    ran: bool = False
    value: Any = None
    error: BaseException | None = None
    calls: list[Call] = field(default_factory=list)
    running: list[Call] = field(default_factory=list)
    completed: int = 0
    given: tuple[int, ...] = ()


def attempt(run: Callable[[], Any], model: nn.Module, *, seed: int = 0) -> Trial:
    """Run once in train mode, leave no trace, and never raise (a `KeyboardInterrupt` passes)."""
    trial = Trial()
    with leaves_no_trace(model, run), warnings.catch_warnings(), _watched(trial):
        warnings.simplefilter("ignore")
        seed_everything(seed)
        try:
            set_mode(model, True)
            trial.value = run()
            trial.ran = True
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            trial.error = error
    return trial


@contextmanager
def _watched(trial: Trial) -> Iterator[None]:
    def before(module: nn.Module, args: tuple[Any, ...]) -> None:
        first = next((a for a in args if isinstance(a, Tensor)), None)
        call = Call(module, None if first is None else tuple(first.shape), first)
        trial.calls.append(call)
        trial.running.append(call)

    def after(module: nn.Module, args: Any, output: Any) -> None:
        trial.completed += 1
        trial.given = tuple(output.shape) if isinstance(output, Tensor) else ()
        while trial.running and trial.running.pop().module is not module:
            pass

    # Global hooks watch every layer without touching the model's own.
    handles = [register_module_forward_pre_hook(before), register_module_forward_hook(after)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """Tensors and distributions in a nested output, each with the path that leads to it."""
    if isinstance(value, Tensor | torch.distributions.Distribution):
        yield path, value
    else:
        for key, inner in items(value):
            yield from leaves(inner, (*path, key))


def items(value: Any) -> list[tuple[Any, Any]]:
    """The entries of a mapping, dataclass, namedtuple, tuple or list with their keys."""
    if isinstance(value, Mapping):
        return list(value.items())
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return [(f.name, getattr(value, f.name, None)) for f in dataclasses.fields(value)]
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return list(zip(value._fields, value, strict=True))
    if isinstance(value, tuple | list):
        return list(enumerate(value))
    if type(value).__name__ in {"SimpleNamespace", "Namespace"}:
        return list(vars(value).items())
    return []


def pick(value: Any, path: tuple[Any, ...]) -> Any:
    """The part of a nested output at a path."""
    for key in path:
        value = (
            value[key]
            if isinstance(value, Mapping)
            else (getattr(value, key) if isinstance(key, str) else value[key])
        )
    return value


def forward_parameters(model: nn.Module) -> list[inspect.Parameter]:
    """The parameters of the model's forward, keyword catch-alls left out."""
    try:
        found = inspect.signature(model.forward).parameters.values()
    except (TypeError, ValueError):
        return []
    return [p for p in found if p.kind is not p.VAR_KEYWORD]


def home(model: nn.Module) -> tuple[torch.dtype, torch.device]:
    """The floating dtype and the device of the model's first parameter; of one with values."""
    for p in sorted(model.parameters(), key=lambda p: p.is_meta):
        if p.is_floating_point():
            return p.dtype, p.device
    return torch.get_default_dtype(), torch.device("cpu")
