"""Shapes that forward checks: `assert x.shape[-2:] == (self.size,) * 2`, `if h % 8: raise ...`.

The check is evaluated where it failed; the data is made as it asks.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ..construct.asserted import check_in, evaluated
from ..trials.slots import Path, Shape, Slot, State, changed, reshaped
from ..trials.witness import Observed

_MOST_AXES = 5
_LARGEST = 4096


def as_it_checks(state: State, seen: Observed, slots: Mapping[Path, Slot]) -> Iterator[State]:
    """The state with the shape, the size or the number of axes that a failed check asks for."""
    error = seen.trial.error
    found = check_in(error) if isinstance(error, AssertionError | ValueError) else None
    if found is None:
        return
    held = {**found[2].f_globals, **found[2].f_locals}
    for node in ast.walk(found[0]):
        match node:
            case ast.Compare(left=left, ops=[ast.Eq() | ast.NotEq()], comparators=[right]):
                for one, other in ((left, right), (right, left)):
                    wanted = evaluated(other, held)
                    yield from _as_wanted(state, one, wanted, held, seen, slots)


def _as_wanted(
    state: State,
    node: ast.expr,
    wanted: Any,
    held: Mapping[str, Any],
    seen: Observed,
    slots: Mapping[Path, Slot],
) -> Iterator[State]:
    match node:
        case ast.BinOp(left=ast.Name(id=name), op=ast.Mod(), right=by) if wanted == 0:
            step, size = evaluated(by, dict(held)), held.get(name)
            if type(step) is int and type(size) is int and 0 < step <= _LARGEST:
                yield from _with_size(state, size, -(-size // step) * step, slots)
        case ast.Name(id=name) if type(wanted) is int and type(held.get(name)) is int:
            yield from _with_size(state, held[name], wanted, slots)
        case (
            ast.Name(id=name)
            | ast.Call(func=ast.Name(id="tuple" | "list"), args=[ast.Name(id=name)])
        ):
            sides: Any = held.get(name)  # `*_, height, width = x.shape` kept in one name
            whole = isinstance(sides, tuple | list) and isinstance(wanted, tuple | list)
            for path, slot in slots.items() if whole and wanted else ():
                if slot.shape[-len(wanted) :] == tuple(sides):
                    new = _changed(slot.shape, slice(-len(wanted), None), wanted)
                    yield from _reshaped(state, path, slot, new)
        case _:
            value, part = _measured(node, held)
            for path in seen.paths(value) if isinstance(value, Tensor) else ():
                old = slots[path].shape
                if part is not None and tuple(value.shape) == old:
                    yield from _reshaped(state, path, slots[path], _changed(old, part, wanted))


def _measured(node: ast.expr, held: Mapping[str, Any]) -> tuple[Any, Any]:
    """The tensor of `x.shape[-2:]`, `x.size(1)`, `x.ndim`, and which part of its shape is read."""
    match node:
        case ast.Attribute(value=ast.Name(id=name), attr="shape"):
            return held.get(name), slice(None)
        case ast.Attribute(value=ast.Name(id=name), attr="ndim"):
            return held.get(name), "axes"
        case ast.Call(func=ast.Attribute(value=ast.Name(id=name), attr="dim"), args=[]):
            return held.get(name), "axes"
        case ast.Call(func=ast.Attribute(value=ast.Name(id=name), attr="size"), args=[at]):
            return held.get(name), _index(at)
        case ast.Subscript(value=ast.Attribute(ast.Name(id=name), "shape"), slice=at):
            return held.get(name), _index(at)
    return None, None


def _index(node: ast.expr) -> int | slice | None:
    try:
        if isinstance(node, ast.Slice):
            ends = (node.lower, node.upper, node.step)
            return slice(*(None if e is None else ast.literal_eval(e) for e in ends))
        value = ast.literal_eval(node)
    except (ValueError, SyntaxError):
        return None
    return value if type(value) is int else None


def _changed(shape: Shape, part: Any, wanted: Any) -> Shape | None:
    """The shape with the part that is compared as it is wanted."""
    if part == "axes":
        if type(wanted) is not int or not 0 < wanted <= _MOST_AXES:
            return None
        missing = wanted - len(shape)
        return (shape[0], *(4,) * missing, *shape[1:]) if missing > 0 else shape[:wanted]
    sizes = list(shape)
    if isinstance(part, int) and type(wanted) is int and -len(sizes) <= part < len(sizes):
        sizes[part] = wanted
    elif isinstance(part, slice) and isinstance(wanted, tuple | list | torch.Size):
        sizes[part] = list(wanted)
    else:
        return None
    fits = all(type(n) is int and 0 < n <= _LARGEST for n in sizes)
    return tuple(sizes) if fits and sizes != list(shape) else None


def _reshaped(state: State, path: Path, slot: Slot, shape: Shape | None) -> Iterator[State]:
    if shape is not None:
        yield changed(state, path, replace(slot, shape=shape))


def _with_size(state: State, size: int, wanted: int, slots: Mapping[Path, Slot]) -> Iterator[State]:
    """Every axis but the rows' that has a size gets the one that is wanted."""
    if not 0 < wanted <= _LARGEST or wanted == size:
        return
    for path, slot in slots.items():
        if size in slot.shape[1:]:
            sizes = (wanted if n == size else n for n in slot.shape[1:])
            yield reshaped(state, path, (slot.shape[0], *sizes))
