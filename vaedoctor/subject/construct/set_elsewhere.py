"""An attribute that forward reads and only another method sets: `self.warm = True` in `fit`."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

from torch import nn

from ..code.callees import tree_of
from ..code.source import is_library
from ..code.syntax import Function
from .built import Built

_TRAINS = re.compile(r"fit|train", re.IGNORECASE)


def with_what_is_set(built: Built, error: BaseException | None) -> Built | None:
    """The model with the attribute that is missing, as another of its methods sets it.

    Of several constants the one of training; None where no method gives it a constant.
    """
    if not isinstance(error, AttributeError) or not isinstance(error.obj, nn.Module):
        return None
    name, kind = str(error.name), type(error.obj)
    if not isinstance(built.model, kind):
        return None
    found = list(_constants(kind, name))
    if not found:
        return None
    method, value = max(found, key=lambda pair: bool(_TRAINS.search(pair[0])))
    setattr(built.model, name, value)
    note = f"`self.{name} = {value!r}`, as `{method}` sets it"
    return replace(
        built,
        rebuild=built.rebuild and partial(_rebuilt, built.rebuild, name, value),
        remake=built.remake and partial(_remade, built.remake, name, value),
        notes=(*built.notes, note),
    )


def _rebuilt(rebuild: Callable[[int], nn.Module], name: str, value: Any, seed: int) -> nn.Module:
    model = rebuild(seed)
    setattr(model, name, value)
    return model


def _remade(
    remake: Callable[[dict[str, Any]], Built], name: str, value: Any, values: dict[str, Any]
) -> Built:
    built = remake(values)
    setattr(built.model, name, value)
    return built


def switches(kind: Any) -> list[tuple[str, bool]]:
    """The attributes that a constructor sets to True or False and a method branches on."""
    trees: dict[str, Function] = {}
    for name, tree in _methods(kind) if isinstance(kind, type) else ():
        trees.setdefault(name, tree)
    made = trees.pop("__init__", None)
    set_there: dict[str, bool] = {}
    for node in ast.walk(made) if made is not None else ():
        match node:
            case ast.Assign(
                targets=[ast.Attribute(ast.Name("self"), attr)], value=ast.Constant(bool(value))
            ):
                set_there[attr] = value
    asked = [
        n.test for t in trees.values() for n in ast.walk(t) if isinstance(n, ast.If | ast.IfExp)
    ]
    named = {n.attr for test in asked for n in ast.walk(test) if isinstance(n, ast.Attribute)}
    return [(name, value) for name, value in set_there.items() if name in named]


def _constants(kind: type, name: str) -> Iterator[tuple[str, Any]]:
    """The methods that give an attribute a constant, with it."""
    for method, tree in _methods(kind):
        for node in ast.walk(tree):
            match node:
                case ast.Assign(
                    targets=[ast.Attribute(ast.Name("self"), attr)], value=ast.Constant(value=value)
                ) if attr == name and value is not None:
                    yield method, value


def _methods(kind: type) -> Iterator[tuple[str, Function]]:
    for owner in kind.__mro__:
        for name, held in vars(owner).items() if not is_library(owner) else ():
            if inspect.isfunction(held) and (tree := tree_of(held)) is not None:
                yield name, tree
