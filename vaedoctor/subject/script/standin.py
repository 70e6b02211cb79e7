"""A trainer without its constructor: what `self` is in a loop that stands in a class.

`Trainer(model, loader, optimizer)` would load data and make folders. Its methods run as they are,
on an object whose attributes are what `__init__` assigns, where that can be told.
"""

from __future__ import annotations

import ast
import copy
from collections.abc import Mapping
from typing import Any

from torch import nn

from ..code.late import Late
from ..code.source import Source
from ..code.syntax import Function


class Quiet:
    """What only says or stores something, as a log does: any call and attribute, no value."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _said


def _said(*args: Any, **kwargs: Any) -> Quiet:
    return Quiet()


def stand_in(kind: type | None, attributes: Mapping[str, Any], name: str) -> Any:
    """An object of the class that was never constructed, with these attributes."""

    def missing(self: Any, asked: str) -> Any:
        if asked.startswith("_") and hasattr(object, asked):
            raise AttributeError(asked)
        raise AttributeError(f"`self.{asked}` is not known", name=asked, obj=None)

    bases = (kind,) if kind is not None else ()
    made: Any
    try:
        made = object.__new__(type(name, bases, {"__getattr__": missing}))
    except TypeError:  # a metaclass or base that wants more
        made = object.__new__(type(name, (), {"__getattr__": missing}))
    for key, value in attributes.items():
        if not isinstance(getattr(type(made), key, None), property):
            object.__setattr__(made, key, value)
    return made


def assignments(owner: ast.ClassDef) -> dict[str, list[tuple[ast.expr, Function]]]:
    """What each attribute of `self` is assigned, in `__init__` first, with the method."""
    found: dict[str, list[tuple[ast.expr, Function]]] = {}
    methods = [s for s in owner.body if isinstance(s, ast.FunctionDef)]
    for method in sorted(methods, key=lambda m: m.name != "__init__"):
        for node in ast.walk(method):
            targets: list[ast.expr] = []
            value = getattr(node, "value", None)
            if isinstance(node, ast.Assign):
                targets = node.targets
            elif isinstance(node, ast.AnnAssign):
                targets = [node.target]
            for target in targets:
                for one, part in _pairs(target, value):
                    match one:
                        case ast.Attribute(value=ast.Name(id="self"), attr=attr):
                            found.setdefault(attr, []).append((part, method))
    return found


def _pairs(target: ast.expr, value: Any) -> list[tuple[ast.expr, ast.expr]]:
    if not isinstance(value, ast.expr):
        return []
    if isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple):
        return list(zip(target.elts, value.elts, strict=False))
    if isinstance(target, ast.Tuple):  # `self.train, self.val = random_split(...)`
        parts = (ast.Subscript(value, ast.Constant(i), ast.Load()) for i in range(len(target.elts)))
        copied = [ast.fix_missing_locations(ast.copy_location(p, value)) for p in parts]
        return list(zip(target.elts, copied, strict=True))
    return [(target, value)]


def read_of_self(nodes: list[ast.AST]) -> set[str]:
    """The attributes of `self` that some code reads."""
    return {
        n.attr
        for node in nodes
        for n in ast.walk(node)
        if isinstance(n, ast.Attribute) and isinstance(n.value, ast.Name) and n.value.id == "self"
    }


def counted_by(owner: ast.ClassDef) -> set[str]:
    """The attributes of `self` that count a loop's steps: `self.step += 1`."""
    found = set[str]()
    for node in ast.walk(owner):
        match node:
            case ast.AugAssign(
                ast.Attribute(ast.Name(id="self"), attr), ast.Add(), ast.Constant(value=1)
            ):
                found.add(attr)
            case ast.For(target=ast.Attribute(ast.Name(id="self"), attr)):
                found.add(attr)
    return found


def late_in_training(thing: Any, source: Source) -> Any:
    """An object of the file, such as a schedule, whose counts are not those of the first step."""
    owners = (s for s in source.tree.body if isinstance(s, ast.ClassDef))
    owner = next((s for s in owners if s.name == type(thing).__name__), None)
    held = getattr(thing, "__dict__", {})
    if owner is None or isinstance(thing, nn.Module | type):
        return thing
    counts = {a for a in counted_by(owner) if type(held.get(a)) is int and held[a] in (0, 1)}
    if not counts:
        return thing
    other = copy.copy(thing)
    vars(other).update(dict.fromkeys(counts, Late()))
    return other


def only_told(owner: ast.ClassDef, attr: str) -> bool:
    """Whether all that is done with an attribute is to call it as a statement: a log, a writer."""
    told, reads = set[int](), set[int]()
    for node in ast.walk(owner):
        match node:
            case ast.Expr(value=ast.Call(func=ast.Attribute() as func)):
                told |= {id(n) for n in ast.walk(func)}
            case ast.Attribute(value=ast.Name(id="self"), attr=found, ctx=ast.Load()):
                if found == attr:
                    reads.add(id(node))
    return bool(reads) and reads <= told
