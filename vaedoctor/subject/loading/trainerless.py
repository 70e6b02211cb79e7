"""A `training_step` without its trainer: what it logs is dropped, and it is late in training.

What else it asks the trainer is 0.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ..code.late import EPOCHS, STEPS, Late
from ..code.source import is_library

_SILENT = ("log", "log_dict", "log_metrics", "print", "toggle_optimizer", "untoggle_optimizer")
_ASKED = ("logger",)
_COUNTS = {
    **dict.fromkeys(("current_epoch", "max_epochs"), Late(EPOCHS)),
    **dict.fromkeys(("global_step", "max_steps", "estimated_stepping_batches"), Late(STEPS)),
}


class _Nothing:
    """Answers every question with itself, and counts as 0."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _COUNTS.get(name, self)

    def __call__(self, *args: Any, **kwargs: Any) -> _Nothing:
        return self

    def __iter__(self) -> Iterator[_Nothing]:
        return iter((self, self))  # `generator, discriminator = self.optimizers()`

    def __getitem__(self, key: Any) -> _Nothing:
        return self

    def __index__(self) -> int:
        return 0

    def __float__(self) -> float:
        return 0.0

    def __bool__(self) -> bool:
        return False

    def __eq__(self, other: object) -> bool:
        return other == 0

    def __hash__(self) -> int:
        return 0

    def __lt__(self, other: Any) -> bool:
        return bool(other > 0)

    def __le__(self, other: Any) -> bool:
        return bool(other >= 0)

    def __gt__(self, other: Any) -> bool:
        return bool(other < 0)

    def __ge__(self, other: Any) -> bool:
        return bool(other <= 0)

    def __add__(self, other: Any) -> Any:
        return other

    __radd__ = __add__

    def __mul__(self, other: Any) -> int:
        return 0

    __rmul__ = __mod__ = __truediv__ = __floordiv__ = __mul__


class _Trainer(_Nothing):
    """A trainer that is there, and has nothing to say."""

    def __bool__(self) -> bool:
        return True


class LightningModule(nn.Module):
    """The base class where Lightning is not installed: a module that keeps its hyperparameters."""

    automatic_optimization = True

    def save_hyperparameters(self, *args: Any, **kwargs: Any) -> None:
        """Keep the constructor's arguments as `hparams`, as Lightning does."""
        frame = sys._getframe(1)
        held = {k: v for k, v in frame.f_locals.items() if k not in {"self", "__class__"}}
        signature = inspect.signature(type(self).__init__).parameters
        found = {k: v for k, v in held.items() if k in signature}
        for spare in (p.name for p in signature.values() if p.kind is p.VAR_KEYWORD):
            found |= found.pop(spare, {})
        named = {a for a in args if isinstance(a, str)}
        left_out = (
            {*kwargs.get("ignore", ())}
            if not isinstance(kwargs.get("ignore"), str)
            else {kwargs["ignore"]}
        )
        chosen = {k: v for k, v in found.items() if k not in left_out and (not named or k in named)}
        object.__setattr__(self, "hparams", _Hyperparameters(chosen))

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return next((p.device for p in self.parameters()), torch.device("cpu"))

    @property
    def dtype(self) -> torch.dtype:
        """The type of the parameters."""
        return next((p.dtype for p in self.parameters()), torch.float32)


LightningModule.__module__ = "lightning"  # a library's class, not the user's


class _Hyperparameters(dict[str, Any]):
    """A dict whose entries are attributes as well."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None


@contextmanager
def without_trainer(model: nn.Module) -> Iterator[list[Tensor]]:
    """Let a step of a Lightning-like module run alone; yields the losses it goes backward from.

    The methods and attributes that only a trainer provides are put on the instance and taken away
    again; `manual_backward` collects its loss.
    """
    nothing, losses = _Nothing(), list[Tensor]()
    ways: dict[str, Any] = dict.fromkeys(_SILENT, lambda *args, **kwargs: None)
    ways["manual_backward"] = lambda loss, *args, **kwargs: losses.append(loss)
    ways["optimizers"] = lambda *args, **kwargs: nothing
    ways["lr_schedulers"] = lambda *args, **kwargs: nothing
    inherits = any(k.__name__ == "LightningModule" for k in type(model).__mro__)
    if inherits:
        ways["_trainer"] = _Trainer()
    asked: dict[str, Any] = {**dict.fromkeys(_ASKED, nothing), "trainer": _Trainer()}
    asked |= {n: _COUNTS[n] for n in ("current_epoch", "global_step")}
    ways |= {name: way for name, way in asked.items() if not hasattr(type(model), name)}
    own = {name for kind in _own_classes(model) for name in vars(kind)} | set(model._modules)
    before = dict(vars(model))
    put = {n: w for n, w in ways.items() if n not in own and (n not in before or n[0] == "_")}
    vars(model).update(put)
    try:
        yield losses
    finally:
        for name in put:
            vars(model).pop(name, None)
            if name in before:
                vars(model)[name] = before[name]


def _own_classes(model: nn.Module) -> Iterator[type]:
    """The user's classes: what they define themselves is left as it is."""
    for kind in type(model).__mro__:
        if is_library(kind):
            return
        yield kind
