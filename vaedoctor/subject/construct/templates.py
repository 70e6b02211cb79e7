"""What an expression says where some of its names are told by nobody: those are made up.

`[["fc", x_dim, 1, "relu"]]` says all but one number. A name is followed to what it was assigned;
where that asks a data set or a caller, the name itself tells what to make up.
"""

from __future__ import annotations

import ast
import dataclasses
import enum
import inspect
import types
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from ..code.bindings import Bindings
from ..code.scope import Scope, Unknown
from ..code.signatures import signature_of
from ..code.source import Place, Source
from ..code.syntax import Function, stripped
from ..script.holders import class_around
from .making import Call

_DEEPEST = 4
_PLAIN = (int, float, str, bool, type(None), torch.device, torch.dtype, enum.Enum, type)


class Template(Scope):
    """A scope whose values are as the user would write them: plain ones, and calls of classes.

    `invent` gives a value for a name of which nothing else is known; it may raise `Unknown`.
    """

    def __init__(
        self,
        source: Source,
        namespace: Mapping[str, Any],
        place: Place,
        invent: Callable[[str], Any],
        depth: int = 0,
    ) -> None:
        function: Function | None = place.function
        super().__init__(source, namespace, function, place.stmt.lineno)
        self._place = place
        self._invent = invent
        self._depth = depth
        self._read = False  # whether something is read of a value, which then is not made up

    def _name(self, name: str, at: Bindings) -> Any:
        reading = self._read
        try:
            with self._reading(False):
                value = super()._name(name, at)
            if reading or is_plain(value):
                return value
        except Unknown:
            pass
        if reading:
            raise Unknown(name)
        return self._invent(name)

    def _evaluate(self, node: ast.expr, at: Bindings) -> Any:
        match node:
            case ast.Call():
                return self._made(node, at)
            case ast.Attribute() | ast.Subscript():
                return self._part(node, at)
        return super()._evaluate(node, at)

    def _part(self, node: ast.Attribute | ast.Subscript, at: Bindings) -> Any:
        """`args.width`, `sizes["x"]`, `self.width`: what it is, or what it is called."""
        reading = self._read
        try:
            with self._reading(True):
                value = super()._evaluate(node, at)
            if reading or is_plain(value):
                return value
        except Exception:  # what is no value here is told by its name
            value = None
        match node:
            case ast.Attribute(value=ast.Name(id="self"), attr=attr):
                return self._kept(attr)
            case _ if reading:
                raise Unknown(ast.unparse(node))
            case ast.Attribute(attr=name) | ast.Subscript(slice=ast.Constant(value=str(name))):
                return self._invent(name)
            case ast.Subscript(value=ast.Name(id=name) | ast.Attribute(attr=name)):
                return self._invent(f"{name}_size")
        raise Unknown(ast.unparse(node))

    def _kept(self, attr: str) -> Any:
        """What the class around keeps under a name: `self.encoder = Encoder(width)`."""
        around = class_around(self._place)
        for place in self._source.places if self._depth < _DEEPEST else ():
            match place.stmt:
                case ast.Assign(targets=[ast.Attribute(ast.Name("self"), found)], value=value):
                    if found == attr and around is not None and around in place.owners:
                        inner = Template(
                            self._source, self._namespace, place, self._invent, self._depth + 1
                        )
                        return inner.value(value)
        if self._read:
            raise Unknown(attr)
        return self._invent(attr)

    def _made(self, node: ast.Call, at: Bindings) -> Any:
        """A call of a class as a made-up value; of a plain function what it gives."""
        bare = stripped(node)
        if bare is not node:
            return self._value(bare, at)
        with self._reading(True):
            thing = self._value(node.func, at)
        if isinstance(thing, type) and _is_made_anew(thing):
            with self._reading(False):
                return Call(thing, self._arguments(node, thing, at))
        with self._reading(False):
            value = super()._call(node, at)
        if not is_plain(value):
            raise Unknown(ast.unparse(node))
        return value

    def _arguments(self, node: ast.Call, thing: type, at: Bindings) -> dict[Any, Any]:
        """The arguments of a call by name; those that must be given and are not told are asked."""
        if any(p.kind is p.VAR_POSITIONAL for p in signature_of(thing).parameters.values()):
            places = [self._value(a, at) for a in node.args]  # a starred one is Unknown
            return dict(enumerate(places))
        given: dict[Any, Any] = told_arguments(node, thing, lambda expr: self._value(expr, at))
        for p in signature_of(thing).parameters.values():
            spread = p.kind in (p.VAR_KEYWORD, p.VAR_POSITIONAL)
            if p.default is p.empty and not spread and p.name not in given:
                given[p.name] = self._invent(p.name)
        return given

    @contextmanager
    def _reading(self, reading: bool) -> Iterator[None]:
        before, self._read = self._read, reading
        try:
            yield
        finally:
            self._read = before


def told_arguments(
    call: ast.Call, thing: Callable[..., Any], value: Callable[[ast.expr], Any]
) -> dict[str, Any]:
    """The arguments of a call by parameter name, as far as their values are told."""
    parameters = signature_of(thing).parameters
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    names = [p.name for p in parameters.values() if p.kind in kinds]
    found: dict[str, Any] = {}
    pairs: list[tuple[str, ast.expr]] = []
    for name, node in zip(names, call.args, strict=False):
        if isinstance(node, ast.Starred):
            break
        pairs.append((name, node))
    pairs += [(k.arg, k.value) for k in call.keywords if k.arg in parameters]  # type: ignore[misc]
    for name, node in pairs:
        try:
            found[name] = value(node)
        except Unknown:
            continue
    return found


def is_plain(value: Any) -> bool:
    """Whether a value can be written down as it is: a number, a word, a class, a list of them."""
    if isinstance(value, Call):
        return True
    if type(value) in (list, tuple):
        return all(map(is_plain, value))
    if type(value) is dict:
        return all(is_plain(k) and is_plain(v) for k, v in value.items())
    return isinstance(value, _PLAIN)


def _is_made_anew(kind: type) -> bool:
    plain = kind.__module__ in {"builtins", "torch"} or issubclass(kind, enum.Enum)
    module = issubclass(kind, nn.Module) or dataclasses.is_dataclass(kind)
    return module or kind is types.SimpleNamespace or (not plain and hasattr(kind, "__dict__"))
