"""Which parameters the optimizers own."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import nn

from ..runs.gradients import Arrives, Gradients, kind_of
from .branches import Branch, branches


@dataclass(frozen=True, slots=True)
class Ownership:
    """Branches with a gradient and no optimizer, and tensors the optimizers hold in vain."""

    unowned: tuple[Branch, ...]
    owned: int
    stale: int


def ownership(
    model: nn.Module, optimizers: Iterable[torch.optim.Optimizer], gradients: Gradients
) -> Ownership:
    """Compare the parameter groups of all optimizers with the parameters that get a gradient."""
    held = {
        id(p)
        for optimizer in optimizers
        for group in optimizer.param_groups
        for p in group["params"]
    }
    mine = dict(model.named_parameters())
    unowned = {
        name: mine[name]
        for name, gradient in gradients.by_name.items()
        if name in mine and id(mine[name]) not in held and kind_of(gradient) is Arrives.YES
    }
    owned = sum(id(p) in held for p in mine.values())
    return Ownership(tuple(branches(model, unowned)), owned, len(held) - owned)
