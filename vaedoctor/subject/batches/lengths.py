"""Axes that the code walks along further than they are long."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator, Mapping

from ..code.callees import tree_of_code
from ..construct.asserted import evaluated
from ..trials.slots import Path, Shape, Slot, State, reshaped
from ..trials.witness import Failed, user_frames
from .layers import Layers

_BEYOND = re.compile(r"index (\d+) is out of bounds for dimension (\d+) with size (\d+)")
_LARGEST = 4096


def longer(
    state: State, failed: Failed, slots: Mapping[Path, Slot], text: str, layers: Layers
) -> Iterator[State]:
    """States in which a loop over steps finds as many as it asks for.

    A loop along the rows tells that the steps come first, as `for t in range(x.size(0))` has them.
    """
    found = _BEYOND.search(text)
    if found is None or not failed.operands:
        return
    axis, size = int(found[2]), int(found[3])
    if axis == 0 and size == layers.rows:
        yield from _steps_first(state, slots, layers)
    told = sorted(n for n in layers.hints.values() if type(n) is int and size < n <= _LARGEST)
    ends = [n for n in _ends_of_loops(failed.error) if size < n <= _LARGEST]
    paths = failed.operands[0].paths
    if not paths and axis == 0 and size == layers.rows and ends:  # steps that passed a layer
        paths, told = failed.operands[0].sources, []
    for path in sorted(paths, key=str):
        shape = slots[path].shape
        if axis >= len(shape) or shape[axis] != size or slots[path].kind == "plain":
            continue
        for more in dict.fromkeys(ends or (size + 1, *told[:2], 2 * size)):
            longer_one = (*shape[:axis], more, *shape[axis + 1 :])
            if axis:
                yield _all_of(state, slots, shape[: axis + 1], longer_one[: axis + 1])
            yield reshaped(state, path, longer_one)


def _ends_of_loops(error: BaseException) -> list[int]:
    """How often the loops around the line that raised are run: `for t in range(1, self.steps)`."""
    frames = user_frames(error)
    tree = tree_of_code(frames[0][0].f_code) if frames else None
    if tree is None:
        return []
    held, found = {**frames[0][0].f_globals, **frames[0][0].f_locals}, []
    for node in ast.walk(tree):
        match node:
            case ast.For(iter=ast.Call(func=ast.Name(id="range"), args=[*_, _] as given)):
                end = evaluated(given[min(len(given), 2) - 1], held)
                found += [end] if type(end) is int else []
    return found


def _steps_first(state: State, slots: Mapping[Path, Slot], layers: Layers) -> Iterator[State]:
    for rank, turn in ((3, _turned), (4, _led)):
        other = state
        for path, slot in slots.items():
            if len(slot.shape) >= rank and slot.shape[:1] == (layers.rows,):
                other = reshaped(other, path, turn(slot.shape, layers.steps()))
        if other is not state:
            yield other


def _turned(shape: Shape, _: int) -> Shape:
    return (shape[1], shape[0], *shape[2:])


def _led(shape: Shape, steps: int) -> Shape:
    return (steps, *shape)


def _all_of(
    state: State, slots: Mapping[Path, Slot], before: Iterable[int], after: Iterable[int]
) -> State:
    """Sequences that go side by side grow together."""
    old, new = tuple(before), tuple(after)
    for path, slot in slots.items():
        if len(slot.shape) > 1 and slot.shape[: len(old)] == old:
            state = reshaped(state, path, (*new, *slot.shape[len(new) :]))
    return state
