"""Save, build a fresh instance, load, and run both on the same noise."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from ...rule import Unavailable
from ...subject.subject import Subject
from ...subject.trials.reachable import reachable
from ...subject.trials.trace import leaves_no_trace
from ..code.listing import assigned_at
from ..runs.outputs import named_tensors
from ..runs.recording import Recording
from ..runs.step import run_recorded
from .branches import Place, hiding_places


@dataclass(frozen=True, slots=True)
class Reload:
    """The largest difference of the outputs, and the tensors outside the state that differ."""

    difference: float
    lost: tuple[Place, ...]


def reload(subject: Subject, seed: int, rewind: Callable[[], None]) -> Reload:
    """Compare the model with a fresh instance that loaded its `state_dict`, in eval mode.

    Raises Unavailable where no fresh instance can be built or the state does not fit it.
    """
    if subject.rebuild is None:
        raise Unavailable("no fresh instance can be built; give the class, not an instance")
    try:  # another seed: what the constructor draws must come from the state
        twin = subject.rebuild(seed + 12345)
        twin.load_state_dict(copy.deepcopy(subject.model.state_dict()))
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        raise Unavailable(f"a fresh instance does not load the state: {error}") from None
    mine = run_recorded(subject, seed=seed, train=False)
    lost = _different(subject.model, twin)
    rewind()
    if mine.error is None and mine.output is None:  # a loss that calls `self.forward(x)`
        subject = replace(subject, objective=None)
        mine = run_recorded(subject, seed=seed, train=False)
        rewind()
    with leaves_no_trace(twin):
        theirs = run_recorded(replace(subject, model=twin), seed=seed, train=False)
    if mine.error is not None or theirs.error is not None:
        raise Unavailable("the model does not run in eval mode")
    gaps = _gaps(mine, theirs)
    if not gaps:
        raise Unavailable("forward returns nothing that could be compared")
    return Reload(max(gaps), tuple(lost))


def _gaps(mine: Recording, theirs: Recording) -> list[float]:
    """The largest difference of each pair of tensors that forward returned."""
    pairs = zip(named_tensors(mine.output), named_tensors(theirs.output), strict=False)
    return [
        float((a.detach().double() - b.detach().double()).abs().max())
        for (_, a), (_, b) in pairs
        if a.shape == b.shape and a.numel() and not a.is_complex()
    ]


def _different(model: nn.Module, twin: nn.Module) -> list[Place]:
    """What the model holds outside its state and a fresh instance holds with another value."""
    others = dict(_plain(twin))
    return [place for place, value in _places(model) if _differs(value, others, place)]


def _differs(value: Any, others: dict[str, Any], place: Place) -> bool:
    other = others.get(place.expression)
    if isinstance(value, Tensor):
        if not isinstance(other, Tensor) or other.shape != value.shape:
            return False
        return not torch.equal(other.detach(), value.detach())
    return type(other) is type(value) and bool(other != value)


def _plain(model: nn.Module) -> list[tuple[str, Any]]:
    return [(place.expression, value) for place, value in _places(model)]


def _places(model: nn.Module) -> list[tuple[Place, Any]]:
    """Tensors and numbers that hang on the model and are not in its `state_dict`."""
    found: list[tuple[Place, Any]] = []
    for path, owner in model.named_modules():
        state = set(owner.state_dict())
        for name, buffer in owner.named_buffers(recurse=False):
            if name not in state:
                found.append((_place(path, owner, name), buffer))
        for name, value in vars(owner).items():
            if not name.startswith("_") and name != "training" and _is_numbers(value):
                found.append((_place(path, owner, name), value))
    hidden = dict(hiding_places(model))
    found.extend(
        (hidden[id(t)], t)
        for t in reachable(model)
        if isinstance(t, Tensor) and id(t) in hidden and t.is_leaf
    )
    return found


def _is_numbers(value: object) -> bool:
    if isinstance(value, (list, tuple)):
        return bool(value) and all(_is_numbers(v) for v in value)
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _place(path: str, owner: nn.Module, name: str) -> Place:
    prefix = f"self.{path}." if path else "self."
    return Place(owner, name, f"{prefix}{name}", assigned_at(type(owner), name))
