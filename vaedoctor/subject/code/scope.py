"""What names mean at a place of the user's file, evaluated without running the script.

Literals, arithmetic, names assigned above, attributes of loaded objects, argparse defaults, example
tensors and constructions of modules are understood; anything else raises `Unknown`.
"""

from __future__ import annotations

import argparse
import ast
import builtins
import copy
import dataclasses
import types
from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import suppress
from typing import Any

from torch import Tensor, nn

from .arguments import defaults
from .bindings import Bindings, Bound, assigned, parameters
from .entrypoints import hydra_config
from .late import growing
from .permitted import LARGEST_POWER, MOVES, OPERATORS, TENSOR_CALLS, may_be_called
from .roles import role
from .source import Source
from .syntax import Function, called_name, root_name, stripped


class Unknown(Exception):
    """The value of an expression cannot be told without running the script."""


class Missing:
    """What stands for a name that a library would give which is not there."""

    __slots__ = ()


class Scope(MutableMapping[str, Any]):
    """Names visible at one line of a file; also a mapping, to be the locals of `eval`."""

    def __init__(
        self, source: Source, namespace: Mapping[str, Any], function: Function | None, line: int
    ) -> None:
        self._source = source
        self._namespace = namespace
        self._memo: dict[int, Any] = {}
        self.known: dict[str, Any] = {}
        self.unsure = False  # whether a choice was met of which nothing tells the outcome
        at_top = function is None
        module = assigned(source.tree.body, {}, line if at_top else None)
        self._bindings = module
        if function is not None:
            local = module
            for around in reversed(source.functions_around(function)):
                local = {**local, **parameters(around, module, source.tree)}
                self._take_hydra_config(around)
                # A function that is written inside reads what its surroundings end up with.
                local = assigned(around.body, local, line if around is function else None)
            self._bindings = local

    def _take_hydra_config(self, function: Function) -> None:
        config: Any = hydra_config(function, self._source.path.parent)
        if config is None and function.decorator_list and function.args.args:
            config = self._declared(function.args.args[0])
        if config is not None and function.args.args:
            self.known[function.args.args[0].arg] = config

    def _declared(self, parameter: ast.arg) -> Any:
        """What a decorated `main(cfg: Config)` is given: the dataclass with its defaults."""
        declared = parameter.annotation
        kind = self._namespace.get(declared.id) if isinstance(declared, ast.Name) else None
        if not isinstance(kind, type) or not dataclasses.is_dataclass(kind):
            return None
        with suppress(Exception):
            return kind()
        return None

    def value(self, expr: ast.expr) -> Any:
        """The value of an expression; raises `Unknown`."""
        return self._value(expr, self._bindings)

    def assign(self, name: str, expr: ast.expr) -> None:
        """Let a name mean an expression from here on."""
        self._bindings = {**self._bindings, name: Bound(expr, self._bindings)}

    def maker(self, name: str) -> str:
        """The callee of the call a name was assigned from, or nothing."""
        bound = self._bindings.get(name)
        call = None if bound is None else stripped(bound.expr)
        return called_name(call) if isinstance(call, ast.Call) else ""

    def __getitem__(self, name: str) -> Any:
        if name in self.known:
            return self.known[name]
        if name not in self._bindings:
            raise KeyError(name)
        try:
            return self._name(name, self._bindings)
        except Unknown:
            raise KeyError(name) from None

    def __setitem__(self, name: str, value: Any) -> None:
        self.known[name] = value

    def __delitem__(self, name: str) -> None:
        del self.known[name]

    def __iter__(self) -> Iterator[str]:
        """The names that are told: what reads a frame's locals asks for the value of each."""
        return (n for n in {**self._bindings, **self.known} if n in self)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def _name(self, name: str, at: Bindings) -> Any:
        if name in self.known:
            return self.known[name]
        if role(name) == "weight" and name in growing(self._source.tree):
            raise Unknown(name)  # 0 before the first step is not what it is trained with
        bound = at.get(name)
        if bound is not None:
            if id(bound) not in self._memo:
                try:
                    self._memo[id(bound)] = self._meaning(bound)
                except Unknown:
                    if name not in self._namespace:
                        raise
                    return self._namespace[name]
            return self._filled(name, self._memo[id(bound)])
        if name in self._namespace:
            return self._namespace[name]
        if name in at or not hasattr(builtins, name):
            raise Unknown(name)
        return getattr(builtins, name)

    def _filled(self, name: str, value: Any) -> Any:
        """A registry that starts empty, as decorators have filled it: `MODELS = {}`."""
        held = self._namespace.get(name)
        empty = isinstance(value, dict | list) and not value
        return held if empty and isinstance(held, type(value)) else value

    def _meaning(self, bound: Bound) -> Any:
        """What a name was assigned; of `cfg.size = 3` the configuration with that change."""
        if bound.choice is not None:
            test, then, other, last = bound.choice
            with suppress(Unknown):
                taken = then if self._value(test, bound.before) else other
                if taken is not None:
                    return self._meaning(taken)
            self.unsure = True
            return self._meaning(last)
        if bound.part is None:
            return self._value(bound.expr, bound.before)
        changed = copy.copy(self._value(bound.part.value, bound.before))
        if isinstance(changed, types.SimpleNamespace | argparse.Namespace | dict):
            with suppress(Unknown):
                value = self._value(bound.expr, bound.before)
                if isinstance(bound.part, ast.Attribute) and not isinstance(changed, dict):
                    setattr(changed, bound.part.attr, value)
                elif isinstance(bound.part, ast.Subscript) and isinstance(changed, dict):
                    changed[self._value(bound.part.slice, bound.before)] = value
        elif isinstance(bound.part, ast.Subscript) and _is_array(changed):
            return self._written_into(changed, bound.part, bound)
        return changed

    def _written_into(self, values: Any, part: ast.Subscript, bound: Bound) -> Any:
        """The values after `x[pads] = 0`; as they were where that cannot be told."""
        changed = copy.deepcopy(values)
        with suppress(Unknown, IndexError, RuntimeError, TypeError, ValueError):
            index = self._index(part.slice, bound.before)
            changed[index] = self._value(bound.expr, bound.before)
        return changed

    def _value(self, node: ast.expr, at: Bindings) -> Any:
        try:
            return self._evaluate(node, at)
        except (Unknown, KeyboardInterrupt):
            raise
        except BaseException as error:
            raise Unknown(f"{type(error).__name__}: {error}") from error

    def _evaluate(self, node: ast.expr, at: Bindings) -> Any:
        match node:
            case ast.Constant():
                return node.value
            case ast.Name():
                return self._name(node.id, at)
            case ast.Tuple():
                return tuple(self._items(node.elts, at))
            case ast.List():
                return self._items(node.elts, at)
            case ast.Set():
                return set(self._items(node.elts, at))
            case ast.Dict():
                return self._dict(node, at)
            case ast.UnaryOp():
                return OPERATORS[type(node.op)](self._value(node.operand, at))
            case ast.BinOp():
                left, right = self._value(node.left, at), self._value(node.right, at)
                if isinstance(node.op, ast.Pow) and abs(right) > LARGEST_POWER:
                    raise Unknown("a large power")
                return OPERATORS[type(node.op)](left, right)
            case ast.BoolOp():
                return self._bool(node, at)
            case ast.Compare(ops=[op], comparators=[other]):
                return OPERATORS[type(op)](self._value(node.left, at), self._value(other, at))
            case ast.IfExp():
                chosen = node.body if self._value(node.test, at) else node.orelse
                return self._value(chosen, at)
            case ast.Subscript():
                return self._value(node.value, at)[self._index(node.slice, at)]
            case ast.Attribute():
                return getattr(self._value(node.value, at), node.attr)
            case ast.Call():
                return self._call(node, at)
        raise Unknown(ast.unparse(node))

    def _items(self, nodes: list[ast.expr], at: Bindings) -> list[Any]:
        found: list[Any] = []
        for node in nodes:
            if isinstance(node, ast.Starred):
                found += self._value(node.value, at)
            else:
                found.append(self._value(node, at))
        return found

    def _dict(self, node: ast.Dict, at: Bindings) -> dict[Any, Any]:
        found: dict[Any, Any] = {}
        for key, value in zip(node.keys, node.values, strict=True):
            if key is None:
                found |= self._value(value, at)
            else:
                found[self._value(key, at)] = self._value(value, at)
        return found

    def _bool(self, node: ast.BoolOp, at: Bindings) -> Any:
        for part in node.values:
            found = self._value(part, at)
            if bool(found) is isinstance(node.op, ast.Or):
                return found
        return found

    def _index(self, node: ast.expr, at: Bindings) -> Any:
        if isinstance(node, ast.Slice):
            ends = (node.lower, node.upper, node.step)
            return slice(*(None if e is None else self._value(e, at) for e in ends))
        if isinstance(node, ast.Tuple):  # `d[:, None]`
            return tuple(self._index(e, at) for e in node.elts)
        return self._value(node, at)

    def _call(self, node: ast.Call, at: Bindings) -> Any:
        if isinstance(node.func, ast.Attribute):
            if node.func.attr in {"parse_args", "parse_known_args"}:
                return self._argparse_defaults(at, pair=node.func.attr == "parse_known_args")
            if node.func.attr in MOVES and root_name(node.func) not in {"nn", "F"}:
                held = self._value(node.func.value, at)
                if isinstance(held, Tensor | nn.Module):
                    return held
        if isinstance(node.func, ast.Name) and self._parses(node.func.id):
            return self._argparse_defaults(at, pair=False)
        function = self._value(node.func, at)
        if not self._may_be_called(function, node):
            raise Unknown(ast.unparse(node))
        args = self._items(node.args, at)
        kwargs: dict[str, Any] = {}
        drops_device = getattr(function, "__name__", "") in TENSOR_CALLS
        for keyword in node.keywords:
            if keyword.arg is None:
                kwargs |= self._value(keyword.value, at)
            elif not (drops_device and keyword.arg in {"device", "requires_grad"}):
                kwargs[keyword.arg] = self._value(keyword.value, at)
        return function(*args, **kwargs)

    def _may_be_called(self, function: Any, node: ast.Call) -> bool:
        return may_be_called(function, self._namespace)

    def _argparse_defaults(self, at: Bindings, *, pair: bool) -> Any:
        calls: list[tuple[list[Any], dict[str, Any]]] = []
        fixed: dict[str, Any] = {}
        for node in ast.walk(self._source.tree):
            if isinstance(node, ast.Call) and called_name(node) == "add_argument":
                given = self._keywords(node, at)
                if "default" in given or all(k.arg != "default" for k in node.keywords):
                    flags = [a.value for a in node.args if isinstance(a, ast.Constant)]
                    calls.append((flags, given))
            elif isinstance(node, ast.Call) and called_name(node) == "set_defaults":
                fixed |= self._keywords(node, at)
        found = defaults(calls)
        for name, value in fixed.items():
            setattr(found, name, value)
        return (found, []) if pair else found

    def _keywords(self, node: ast.Call, at: Bindings) -> dict[str, Any]:
        """The keyword arguments of a call that can be told."""
        found: dict[str, Any] = {}
        for keyword in node.keywords:
            with suppress(Unknown):
                if keyword.arg is not None:
                    found[keyword.arg] = self._value(keyword.value, at)
        return found

    def _parses(self, function: str) -> bool:
        """Whether a function of the file gives what a parser has read."""
        return any(
            isinstance(stmt, ast.FunctionDef)
            and stmt.name == function
            and any(
                isinstance(n, ast.Return) and n.value is not None and _is_parsed(n.value, stmt)
                for n in ast.walk(stmt)
            )
            for stmt in self._source.tree.body
        )


def _is_parsed(value: ast.expr, function: ast.FunctionDef) -> bool:
    """Whether an expression is `parser.parse_args()`, or a name that was given that."""
    if isinstance(value, ast.Call):
        return called_name(value) == "parse_args"
    return isinstance(value, ast.Name) and any(
        isinstance(n, ast.Assign)
        and isinstance(n.value, ast.Call)
        and called_name(n.value) == "parse_args"
        and any(isinstance(t, ast.Name) and t.id == value.id for t in n.targets)
        for n in ast.walk(function)
    )


def _is_array(value: Any) -> bool:
    return isinstance(value, Tensor) or type(value).__name__ == "ndarray"
