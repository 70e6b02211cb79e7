"""Data in a container: a dict with one tensor for each modality, what may hold it, a tuple."""

from __future__ import annotations

import ast
import collections.abc
import math
import re
import typing
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from ..code.meant import readers
from ..construct.said import entry
from ..trials.slots import Group, Path, Shape, Slot, State, changed, slots_of
from ..trials.witness import Observed
from .layers import Layers

_MAPPINGS = (dict, collections.abc.Mapping, collections.abc.MutableMapping)
_LISTED = re.compile(r"\b(list|tuple|sequence)s?\b", re.IGNORECASE)
OF_DICTS = {"items", "keys", "values", "get", "pop", "copy"}


def takes_names(model: nn.Module, parameter: str) -> bool:
    """Whether forward says by its annotation that an argument is a dict of tensors."""
    try:
        hint = typing.get_type_hints(model.forward).get(parameter)
    except Exception:
        return False
    return typing.get_origin(hint) in _MAPPINGS and Tensor in typing.get_args(hint)


def names_of(model: nn.Module) -> list[str]:
    """The names that a model keeps its parts under, one part for each modality."""
    for module in model.modules():
        if isinstance(module, nn.ModuleDict) and len(module):
            return list(module)
    return []


def by_names(names: Iterable[Any], beside: Slot, layers: Layers) -> Group:
    """A dict with what the first layer under each name takes, an encoder's before others."""
    return Group("dict", {name: _under(name, beside, layers) for name in names})


def _under(name: Any, beside: Slot, layers: Layers) -> Slot:
    found = [m for m in layers.known if str(name) in layers.names[id(m)].split(".")]
    found.sort(key=lambda m: "enc" not in layers.names[id(m)].lower())
    slots = layers.slots(found[0]) if found else []
    if not slots:
        return beside
    told = _told(layers.names[id(found[0])], slots[0], layers)
    return slots[0] if told is None else replace(slots[0], shape=told)


def _told(name: str, slot: Slot, layers: Layers) -> Shape | None:
    """The shape that a part around a layer keeps, of as many numbers: `self.input_dim`."""
    parts = name.split(".")
    for end in range(len(parts) - 1, 0, -1):
        for value in vars(layers.part(".".join(parts[:end]))).values():
            whole = type(value) is tuple and all(type(n) is int for n in value)
            if whole and len(value) > 1 and math.prod(value) == slot.shape[-1]:
                return (layers.rows, *value)
    return None


def as_names(state: State, seen: Observed, model: nn.Module, layers: Layers) -> Iterator[State]:
    """A tensor that is asked for its entries by name: `x["rna"]`, `"rna" in x`, `x.items()`."""
    error, failed = seen.trial.error, seen.failed
    names = names_of(model)
    paths: frozenset[Path] = frozenset()
    if failed is not None and failed.operands and failed.name in {"__getitem__", "__contains__"}:
        asked = [k for k in failed.others if isinstance(k, str)]
        names = names if names and set(asked) <= set(names) else asked
        paths = failed.operands[0].paths if asked else paths
    elif isinstance(error, AttributeError) and isinstance(error.obj, Tensor):
        names = names or ["x"]
        paths = seen.paths(error.obj) if error.name in OF_DICTS else paths
    elif isinstance(error, KeyError) and names and error.args:  # `for name in x: parts[name]`
        paths = seen.paths(error.args[0])
    for path in paths:
        yield changed(state, path, by_names(names, slots_of(state)[path], layers))


def keys_got(state: State, model: nn.Module) -> Iterator[Path]:
    """The entries of a dict that forward asks for with `.get("key")` and that are not there."""
    for name, node in state.items():
        if isinstance(node, Group) and node.kind == "dict":
            for tree, own in readers(model, name):
                for call in ast.walk(tree):
                    match call:
                        case ast.Call(
                            func=ast.Attribute(value=ast.Name(id=held), attr="get"),
                            args=[ast.Constant(value=str(key)), *_],
                        ) if held == own and key not in node.entries:
                            yield name, key


def as_held(state: State, error: BaseException | None) -> Iterator[State]:
    """A dict that is asked for an attribute: `batch.data["rna"]`."""
    if isinstance(error, AttributeError) and type(error.obj) is dict:
        for name, node in state.items():
            if (
                isinstance(node, Group)
                and node.kind == "dict"
                and set(node.entries) == set(error.obj)
            ):
                yield {**state, name: Group("object", {str(error.name): node})}


def as_positions(state: State, model: nn.Module) -> Iterator[State]:
    """A tensor of which forward reads places by number: `x, y = batch[0], batch[1]`."""
    for name, given in state.items():
        if isinstance(given, Slot) and (places := places_read(model, name)):
            yield {**state, name: Group("tuple", dict.fromkeys(places, given))}


def said_places(model: nn.Module, name: str) -> list[int]:
    """The places of an argument that are read by number, where forward's docstring says a list."""
    said = " ".join(entry(type(model).forward, name))
    return places_read(model, name) if _LISTED.search(said) else []


def places_read(model: nn.Module, name: str) -> list[int]:
    """The places of an argument that are read by number, from the first on; not one alone.

    Wherever forward hands it on to: `self.encode(x)` reads `x[0]` and `x[1]`.
    """
    found: set[int] = set()
    for tree, own in readers(model, name):
        for node in ast.walk(tree):
            match node:
                case ast.Subscript(value=held, slice=ast.Constant(value=int(place))) if place >= 0:
                    while isinstance(held, ast.Subscript) and isinstance(held.slice, ast.Slice):
                        held = held.value
                    if isinstance(held, ast.Name) and held.id == own:
                        found.add(place)
    whole = set(range(max(found, default=0) + 1))
    return sorted(found) if found == whole != {0} else []
