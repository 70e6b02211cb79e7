"""What names mean in the functions that are being read one inside the other, and whom they call."""

from __future__ import annotations

import ast
import inspect
import itertools
import types
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from ..code.callees import constructor_of, is_from_torch

_DEEPEST = 6


class Standing:
    """Where reading stands: the functions entered, their globals, the classes that are built."""

    def __init__(self, namespace: Mapping[str, Any]) -> None:
        self._globals: list[Mapping[str, Any]] = [namespace]
        self._kinds: list[type | None] = []
        self._running: list[Any] = []

    def is_open_to(self, thing: Any) -> bool:
        """Whether a class or function may be entered: not too deep, and not within itself."""
        return len(self._running) < _DEEPEST and thing not in self._running

    @contextmanager
    def inside(self, thing: Any, function: Any, *, of_self: bool) -> Iterator[None]:
        """Stand in a class's constructor or a function; `of_self` is one that `self` is given."""
        kind = thing if isinstance(thing, type) else None
        self._running.append(thing)
        self._kinds.append(self._kinds[-1] if of_self else kind)
        self._globals.append(getattr(inspect.unwrap(function), "__globals__", {}))
        try:
            yield
        finally:
            self._running.pop()
            self._kinds.pop()
            self._globals.pop()

    def callee(self, node: ast.Call) -> tuple[Any, bool]:
        """What is called, and whether it is a method of the object that is being built."""
        kind = self._kinds[-1] if self._kinds else None
        match node.func:
            case ast.Attribute(attr="__init__") if is_super(node):
                made = [f for k in getattr(kind, "__mro__", ()) if (f := vars(k).get("__init__"))]
                running = self._running[-1]
                here = constructor_of(running) if isinstance(running, type) else running
                found = next((b for a, b in itertools.pairwise(made) if a is here), None)
                user = isinstance(found, types.FunctionType) and not is_from_torch(found)
                return (found, True) if user else (None, False)
            case ast.Attribute(attr="__init__", value=base) if is_unbound(node):
                made = self.constant(base)
                found = constructor_of(made) if isinstance(made, type) else None
                return (None, False) if found is None or is_from_torch(found) else (found, True)
            case ast.Attribute(value=ast.Name(id="self"), attr=attr):
                found = inspect.getattr_static(kind, attr, None) if kind is not None else None
                if isinstance(found, staticmethod):
                    return found.__func__, False
                return (found, True) if isinstance(found, types.FunctionType) else (None, False)
        return self.constant(node.func), False

    def constant(self, node: ast.expr) -> Any:
        """The value of a literal, or of a name or attribute of the file; None when unknown."""
        match node:
            case ast.Constant():
                return node.value
            case ast.Name(id=name):
                return next((g[name] for g in reversed(self._globals) if name in g), None)
            case ast.Attribute(value=value, attr=attr):
                held = self.constant(value)
                return None if held is None else getattr(held, attr, None)
            case ast.List() | ast.Tuple() | ast.Dict() | ast.UnaryOp():
                try:
                    return ast.literal_eval(node)
                except (ValueError, SyntaxError):
                    return None
        return None


def is_super(node: ast.Call) -> bool:
    """Whether a call is one of a method of `super()`."""
    match node.func:
        case ast.Attribute(value=ast.Call(func=ast.Name(id="super"))):
            return True
    return False


def is_unbound(node: ast.Call) -> bool:
    """Whether a call is `Base.__init__(self, ...)`."""
    match node:
        case ast.Call(func=ast.Attribute(attr="__init__"), args=[ast.Name(id="self"), *_]):
            return not is_super(node)
    return False


def place_of(target: ast.AST) -> str | None:
    """`name` or `self.name`: what a value can be kept in."""
    match target:
        case ast.Name(id=name):
            return name
        case ast.Attribute(value=ast.Name(id="self"), attr=attr):
            return f"self.{attr}"
    return None
