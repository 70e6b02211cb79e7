"""A method that is the whole pass: of a model without `forward`, or whose `forward` only encodes.

Which method it is, its code says: one that takes the data alone, encodes, draws and decodes.
"""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import nn

from .code.callees import tree_of
from .code.source import is_library

_ENCODES = re.compile(r"(\w*_)?enc(od\w*)?(_\w+)?", re.IGNORECASE)
_DECODES = re.compile(r"(\w*_)?dec(od\w*)?(_\w+)?", re.IGNORECASE)
_DRAWS = re.compile(r"\w*(reparam|sampl|randn|normal|quanti[sz]e)\w*", re.IGNORECASE)
_ELSE = re.compile(r"\w*(loss|step|fit|eval|epoch|train_model|score|optimi)\w*", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class WholePass:
    """A method of the class in the place of its forward pass."""

    method: str
    assembled: ClassVar[bool] = False

    def forward(self, model: nn.Module, plan: int | None) -> Callable[..., Any]:
        """The method itself."""
        made: Callable[..., Any] = getattr(model, self.method)
        return made


def whole_passes(model: nn.Module) -> list[WholePass]:
    """The methods that encode, draw and decode, those that run most parts first."""
    parts = {n for n, _ in model.named_children()}
    found = []
    for name in _methods(type(model)):
        reach = _reach(model, name, set())
        calls_itself = "forward" in reach or "" in reach
        if not calls_itself and _is_whole(reach, parts) and _takes_data(getattr(model, name)):
            found.append((-len(reach & parts), name))
    return [WholePass(name) for _, name in sorted(found, key=lambda f: f[0])]


def only_encodes(model: nn.Module) -> bool:
    """Whether `forward` leaves out the decoder that a model has, as far as its code tells."""
    parts = {n for n, _ in model.named_children() if _DECODES.fullmatch(n)}
    tree = tree_of(getattr(type(model), "forward", None))
    if tree is None or not parts:
        return False
    return not any(map(_DECODES.fullmatch, _reach(model, "forward", set())))


def _is_whole(reach: set[str], parts: set[str]) -> bool:
    encodes = any(_ENCODES.fullmatch(n) for n in reach & parts)
    decodes = any(_DECODES.fullmatch(n) for n in reach & parts)
    return encodes and decodes and any(map(_DRAWS.fullmatch, reach))


def _methods(kind: type) -> Iterator[str]:
    """The methods of the user's own classes that may be a pass."""
    for one in kind.__mro__:
        if is_library(one):
            return
        for name, thing in vars(one).items():
            if inspect.isfunction(thing) and name[0] != "_" and not _ELSE.fullmatch(name):
                yield name


def _takes_data(method: Callable[..., Any]) -> bool:
    """Whether nothing but the data has to be given."""
    try:
        taken = inspect.signature(method).parameters.values()
    except (TypeError, ValueError):
        return False
    return [p.kind for p in taken if p.default is p.empty] == [
        inspect.Parameter.POSITIONAL_OR_KEYWORD
    ]


def _reach(model: nn.Module, name: str, met: set[str]) -> set[str]:
    """The names that a method reads of `self`, and calls, wherever its own methods lead.

    The empty one stands for a call of the model itself.
    """
    if name in met:
        return set()
    met.add(name)
    tree = tree_of(getattr(type(model), name, None))
    found: set[str] = set()
    for node in ast.walk(tree) if tree is not None else ():
        match node:
            case ast.Call(func=ast.Name(id="self")):
                found.add("")
            case ast.Attribute(value=ast.Name(id="self"), attr=attr):
                found.add(attr)
                if inspect.isfunction(getattr(type(model), attr, None)):
                    found |= _reach(model, attr, met)
            case ast.Call(func=ast.Attribute(attr=attr)):
                found.add(attr)
    return found
