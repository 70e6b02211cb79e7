"""What a model can reach: modules, tensors and helper objects, wherever it keeps them."""

from __future__ import annotations

import ast
import collections
import functools
import types
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

OPAQUE = (type, types.ModuleType, types.BuiltinFunctionType, torch.dtype, torch.device, ast.AST)
_ATOMS = (type(None), str, bytes, int, float)
_MOST = 100_000


def reachable(root: object) -> Iterator[object]:
    """Every object a model can reach through attributes, containers and closures.

    Modules hidden in plain lists, tensors kept as attributes and helper objects are met too;
    of torch's own objects only distributions are entered.
    """
    seen: set[int] = set()
    waiting = [root]
    while waiting and len(seen) < _MOST:
        thing = waiting.pop()
        if id(thing) in seen or isinstance(thing, _ATOMS):
            continue
        seen.add(id(thing))
        yield thing
        waiting.extend(_inside(thing))


def _inside(thing: object) -> Iterable[Any]:
    kind: Any = type(thing)
    return _way_into(kind)(thing)


@functools.lru_cache(maxsize=1 << 10)
def _way_into(kind: type[Any]) -> Callable[[Any], Iterable[Any]]:
    """How to list what an object of a class holds."""
    if issubclass(kind, Tensor):
        return _nothing
    if issubclass(kind, dict):
        return dict.values
    if issubclass(kind, (list, tuple, set, frozenset, collections.deque)):
        return list
    if issubclass(kind, types.FunctionType):
        return _enclosed
    if issubclass(kind, types.MethodType):
        return lambda method: [method.__self__]
    if issubclass(kind, functools.partial):
        return lambda made: [made.func, made.args, made.keywords]
    if issubclass(kind, (*OPAQUE, torch.optim.Optimizer)):
        return _nothing
    outside = not kind.__module__.startswith("torch.")
    if outside or issubclass(kind, (nn.Module, torch.distributions.Distribution)):
        return _attributes
    return _nothing


def _nothing(thing: object) -> Iterable[Any]:
    return ()


def _enclosed(function: types.FunctionType) -> Iterable[Any]:
    return [c.cell_contents for c in function.__closure__ or () if _filled(c)]


def _attributes(thing: object) -> Iterable[Any]:
    kind: Any = type(thing)
    held = [getattr(thing, s, None) for s in _slots_of(kind)]
    return [*held, *getattr(thing, "__dict__", {}).values()]


@functools.lru_cache(maxsize=1 << 10)
def _slots_of(kind: type[Any]) -> tuple[str, ...]:
    slots = [s for base in kind.__mro__ for s in getattr(base, "__slots__", ())]
    return tuple(s for s in slots if not s.startswith("__"))


def _filled(cell: types.CellType) -> bool:
    try:
        cell.cell_contents  # noqa: B018
    except ValueError:
        return False
    return True
