"""The scalar that training minimises, of whatever a loss returns."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from .subject import Batch, Objective
from .trials.trial import items

TOTAL_KEYS = ("loss", "total_loss", "total", "objective", "elbo", "nelbo", "negative_elbo")


def total(value: Any) -> Tensor:
    """The scalar of whatever a loss returns; `ValueError` says what it returned instead.

    A tensor is itself; of a mapping or record the entry `loss`, `total_loss`, ...; of a tuple the
    first scalar that requires a gradient.
    """
    if isinstance(value, Tensor):
        if value.numel() != 1:
            raise ValueError(f"the loss is not a scalar: its shape is {list(value.shape)}")
        return _scalar(value)
    entries = items(value)
    named = {str(k).lower(): v for k, v in entries}
    loss = getattr(value, "loss", None)
    for candidate in (*(named.get(k) for k in TOTAL_KEYS), loss):
        if isinstance(candidate, Tensor):
            return total(candidate)
    scalars = [v for _, v in entries if isinstance(v, Tensor) and v.numel() == 1]
    for scalar in sorted(scalars, key=lambda s: not s.requires_grad):
        return _scalar(scalar)
    if entries:
        shapes = ", ".join(str(list(v.shape)) for _, v in entries if isinstance(v, Tensor))
        found = f"tensors of shape {shapes}" if shapes else "no tensor"
        raise ValueError(f"the loss holds no scalar: it returned {found}")
    raise ValueError(f"the loss is not a tensor: it returned `{type(value).__name__}`")


def _scalar(value: Tensor) -> Tensor:
    return value if value.dim() == 0 else value.reshape(())


def maximised(objective: Objective) -> Objective:
    """The objective that minimises the negative of a bound."""

    def run(model: nn.Module, batch: Batch) -> Tensor:
        return -total(objective.run(model, batch))

    origin = f"{objective.origin}; it rises as x_hat gets better, so its negative is minimised"
    return replace(objective, run=run, origin=origin, settled=True)
