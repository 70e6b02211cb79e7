"""States that a guess can be in: told apart, kept small, read off a parameter."""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Iterator

import torch
from torch import nn

from ..code.signatures import annotations_of
from ..trials.slots import Slot, State, reshaped, slots_of
from ..trials.witness import Observed


def key(state: State) -> str:
    """A text that is the same for two states exactly if they are."""
    return repr(sorted(slots_of(state).items(), key=str)) + repr(_kinds(state))


def _kinds(state: State) -> list[tuple[str, str]]:
    return [(n, node.kind) for n, node in state.items()]


def is_small(state: State) -> bool:
    """Whether a state can be tried without harm."""
    return all(
        torch.Size(s.shape).numel() <= 30_000_000 and all(n > 0 for n in s.shape)
        for s in slots_of(state).values()
    )


def halved(state: State) -> Iterator[State]:
    """The data with half the pixels along each axis, or half the steps."""
    path, slot = next(iter(slots_of(state).items()), ((), Slot()))
    if slot.kind == "complex" and len(slot.shape) > 1:  # a signal, or one in several channels
        yield reshaped(state, path, (*slot.shape[:-1], max(slot.shape[-1] // 2, 1)))
        return
    if slot.kind != "real" or len(slot.shape) < 3:
        return
    first = 2 if len(slot.shape) > 3 or slot.shape[1] < slot.shape[2] else 1
    sides = tuple(max(n // 2, 1) if n >= 8 else n for n in slot.shape[first:])
    yield reshaped(state, path, (*slot.shape[:first], *sides))
    if len(slot.shape) == 5:
        yield reshaped(state, path, (*slot.shape[:3], *sides[1:]))
    if len(slot.shape) == 3 and first == 1:
        yield reshaped(state, path, (slot.shape[0], sides[0], slot.shape[2]))


def plain(parameter: inspect.Parameter, beside: Slot) -> Slot | None:
    """A number where the annotation asks for one; a length is as long as the data is."""
    said = parameter.annotation
    name = said if isinstance(said, str) else getattr(said, "__name__", "")
    values = {"int": 1, "float": 1.0, "bool": False}
    if name == "int" and beside.kind == "length":
        return Slot(kind="plain", value=beside.top)
    return Slot(kind="plain", value=values[name]) if name in values else None


def is_option(model: nn.Module, name: str) -> bool:
    """Whether forward says by its annotation that an argument is a mere number, word or switch."""
    hint = annotations_of(model.forward).get(name)
    union = typing.get_origin(hint) in (typing.Union, types.UnionType)
    kinds = set(typing.get_args(hint) if union else [hint]) - {type(None)}
    return bool(kinds) and kinds <= {int, float, bool, str}


def rows_axis(state: State, seen: Observed, rows: int) -> int:
    """The axis of a batch's `rows` rows: 0, or 1 where the steps come first.

    Steps do not come first in a recurrent layer that was told `batch_first=True`, nor where what
    is said of each row, an index or a length, has as many entries as the first axis.
    """
    slots = list(slots_of(state).values())
    rows = next((s.shape[0] for s in slots if s.kind == "length"), rows)
    main = slots[0].shape if slots else ()
    if not (len(main) > 1 and main[0] != rows and main[1] == rows):
        return 0
    beside = {s.shape for s in slots[1:] if s.kind in {"index", "length"}}
    rows_first = any(
        isinstance(c.module, nn.RNNBase) and c.module.batch_first and c.shape == main
        for c in seen.trial.calls
    )
    return int(not rows_first and ((main[0],) not in beside or (rows,) in beside))
