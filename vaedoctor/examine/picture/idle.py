"""Idle layers in the picture: after the station that was registered before them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from torch import nn

from ...finding import Arrow, Part, Picture
from ..structure.branches import Branch

MOST = 6


def with_idle(picture: Picture, model: nn.Module, idle: Iterable[Branch]) -> Picture:
    """The picture with a part of role `idle` for each registered layer that takes no part."""
    order = {path: i for i, (path, _) in enumerate(model.named_modules())}
    for branch in list(idle)[:MOST]:
        if branch.path in order and picture.parts:
            kind = type(model.get_submodule(branch.path)).__name__
            part = Part("idle", branch.path, None, branch.at, kind)
            picture = _inserted(picture, part, _place(picture.parts, order, branch.path))
    return picture


def _place(parts: Sequence[Part], order: dict[str, int], path: str) -> int:
    """Behind the part that was registered last before `path`; behind x if none was."""
    before = [i for i, p in enumerate(parts) if order.get(p.name, len(order)) < order[path]]
    return max(before, key=lambda i: (order[parts[i].name], i)) + 1 if before else 1


def _inserted(picture: Picture, part: Part, place: int) -> Picture:
    arrows = (
        Arrow(a.start + (a.start >= place), a.end + (a.end >= place), a.label)
        for a in picture.arrows
    )
    parts = (*picture.parts[:place], part, *picture.parts[place:])
    return replace(picture, parts=parts, arrows=tuple(arrows))
