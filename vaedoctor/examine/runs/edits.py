"""Edits: what replaces the results of chosen operations in a run, the way to intervene.

An edit is keyed by the operation's index, which is the same in every run with the same seed, or by
(index, position) for one of several results (`chunk`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

Edit = Callable[[Tensor], Tensor]
Edits = Mapping[int | tuple[int, int], Edit]


def by_operation(edits: Edits) -> dict[int, dict[int, Edit]]:
    """The edits of each operation, by its index and the position among its results."""
    found: dict[int, dict[int, Edit]] = {}
    for key, edit in edits.items():
        index, position = key if isinstance(key, tuple) else (key, 0)
        found.setdefault(index, {})[position] = edit
    return found


def filled(level: float) -> Edit:
    """One number in the place of all entries."""
    return lambda t: torch.full_like(t, level)


def edited(
    edit: Edit, out: Any, outs: list[Tensor], position: int, inplace: bool
) -> tuple[Any, list[Tensor]]:
    """Replace one tensor an operation returns; an in-place one keeps its identity."""
    old = outs[position]
    new = edit(old)
    if inplace and not old._is_view():
        with torch.set_grad_enabled(new.requires_grad and torch.is_grad_enabled()):
            old.detach_().copy_(new)
        return out, outs
    replaced = [new if item is old else item for item in outs]
    if isinstance(out, Tensor):
        return new, replaced
    items = [new if item is old else item for item in out]
    return (type(out)(*items) if hasattr(out, "_fields") else type(out)(items)), replaced
