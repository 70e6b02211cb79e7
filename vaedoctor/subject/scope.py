"""What names mean at a place of the user's file, evaluated without running the script.

Literals, arithmetic, names assigned above, attributes of loaded objects, argparse defaults, example
tensors and constructions of modules are understood; anything else raises `Unknown`.
"""

from __future__ import annotations

import ast
import builtins
import dataclasses
import math
import operator
import types
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from typing import Any

import torch
from torch import Tensor, nn

from .source import Function, Source, blocks, called_name, root_name, stripped


class Unknown(Exception):
    """The value of an expression cannot be told without running the script."""


Bindings = dict[str, "_Bound | None"]

_OPERATORS: dict[type[ast.AST], Callable[..., Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
    ast.MatMult: operator.matmul,
    ast.USub: operator.neg,
    ast.UAdd: operator.pos,
    ast.Not: operator.not_,
    ast.Invert: operator.invert,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Is: operator.is_,
    ast.IsNot: operator.is_not,
    ast.In: lambda a, b: a in b,
    ast.NotIn: lambda a, b: a not in b,
}
_PLAIN_CALLS = [
    "int",
    "float",
    "bool",
    "str",
    "len",
    "tuple",
    "list",
    "dict",
    "set",
    "range",
    "min",
    "max",
    "sum",
    "abs",
    "round",
    "sorted",
    "zip",
    "enumerate",
    "reversed",
    "pow",
    "divmod",
]
_TENSOR_CALLS = [
    "randn",
    "rand",
    "zeros",
    "ones",
    "full",
    "empty",
    "randint",
    "arange",
    "linspace",
    "eye",
    "tensor",
    "randperm",
    "bernoulli",
    "randn_like",
    "rand_like",
    "zeros_like",
    "ones_like",
    "normal",
]
_MOVES = {"to", "cuda", "cpu", "train", "eval", "share_memory", "requires_grad_"}
_FORBIDDEN = ("torch.utils.data", "torch.optim", "torchvision.datasets", "torch.cuda")
_LARGEST_POWER = 64


@dataclasses.dataclass(frozen=True, slots=True)
class _Bound:
    """An assigned expression and what the names in it meant at that moment."""

    expr: ast.expr
    before: Bindings


class Scope(MutableMapping[str, Any]):
    """Names visible at one line of a file; also a mapping, to be the locals of `eval`."""

    def __init__(
        self, source: Source, namespace: Mapping[str, Any], function: Function | None, line: int
    ) -> None:
        self._source = source
        self._namespace = namespace
        self._memo: dict[int, Any] = {}
        self.known: dict[str, Any] = {}
        at_top = function is None
        module = assigned(source.tree.body, {}, line if at_top else None)
        self._bindings = module
        if function is not None:
            local: Bindings = {**module, **_parameters(function, module)}
            self._bindings = assigned(function.body, local, line)

    def value(self, expr: ast.expr) -> Any:
        """The value of an expression; raises `Unknown`."""
        return self._value(expr, self._bindings)

    def assign(self, name: str, expr: ast.expr) -> None:
        """Let a name mean an expression from here on."""
        self._bindings = {**self._bindings, name: _Bound(expr, self._bindings)}

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
        return iter({**self._bindings, **self.known})

    def __len__(self) -> int:
        return len({**self._bindings, **self.known})

    def _name(self, name: str, at: Bindings) -> Any:
        if name in self.known:
            return self.known[name]
        bound = at.get(name)
        if bound is not None:
            if id(bound) not in self._memo:
                try:
                    self._memo[id(bound)] = self._value(bound.expr, bound.before)
                except Unknown:
                    if name not in self._namespace:
                        raise
                    return self._namespace[name]
            return self._memo[id(bound)]
        if name in self._namespace:
            return self._namespace[name]
        if name in at or not hasattr(builtins, name):
            raise Unknown(name)
        return getattr(builtins, name)

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
                return _OPERATORS[type(node.op)](self._value(node.operand, at))
            case ast.BinOp():
                left, right = self._value(node.left, at), self._value(node.right, at)
                if isinstance(node.op, ast.Pow) and abs(right) > _LARGEST_POWER:
                    raise Unknown("a large power")
                return _OPERATORS[type(node.op)](left, right)
            case ast.BoolOp():
                return self._bool(node, at)
            case ast.Compare(ops=[op], comparators=[other]):
                return _OPERATORS[type(op)](self._value(node.left, at), self._value(other, at))
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
        return self._value(node, at)

    def _call(self, node: ast.Call, at: Bindings) -> Any:
        if isinstance(node.func, ast.Attribute):
            if node.func.attr in {"parse_args", "parse_known_args"}:
                return self._argparse_defaults(at, pair=node.func.attr == "parse_known_args")
            if node.func.attr in _MOVES and root_name(node.func) not in {"nn", "F"}:
                held = self._value(node.func.value, at)
                if isinstance(held, Tensor | nn.Module):
                    return held
        function = self._value(node.func, at)
        if not self._permitted(function):
            raise Unknown(ast.unparse(node))
        args = self._items(node.args, at)
        kwargs: dict[str, Any] = {}
        drops_device = getattr(function, "__name__", "") in _TENSOR_CALLS
        for keyword in node.keywords:
            if keyword.arg is None:
                kwargs |= self._value(keyword.value, at)
            elif not (drops_device and keyword.arg in {"device", "requires_grad"}):
                kwargs[keyword.arg] = self._value(keyword.value, at)
        return function(*args, **kwargs)

    def _permitted(self, function: Any) -> bool:
        name = getattr(function, "__name__", "")
        module = getattr(function, "__module__", None) or ""
        if isinstance(function, type):
            return (
                not module.startswith(_FORBIDDEN)
                and not name.endswith(("Dataset", "Loader"))
                and (
                    issubclass(function, nn.Module)
                    or dataclasses.is_dataclass(function)
                    or module == self._namespace.get("__name__")
                    or function in (types.SimpleNamespace, torch.device, torch.Size)
                    or name in {"Namespace", *_PLAIN_CALLS}
                    or module.startswith("torch.distributions")
                )
            )
        held = getattr(function, "__self__", None)
        if isinstance(held, Tensor | torch.Size | str | tuple | list | dict):
            return True
        return (
            (module == "builtins" and name in _PLAIN_CALLS)
            or getattr(math, name, None) is function
            or (getattr(torch, name, None) is function and name in _TENSOR_CALLS)
            or name in {"one_hot", "prod", "is_available"}
        )

    def _argparse_defaults(self, at: Bindings, *, pair: bool) -> Any:
        found = types.SimpleNamespace()
        for node in ast.walk(self._source.tree):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
                continue
            if node.func.attr == "add_argument":
                self._argument(node, found, at)
        return (found, []) if pair else found

    def _argument(self, node: ast.Call, found: types.SimpleNamespace, at: Bindings) -> None:
        flags = [a.value for a in node.args if isinstance(a, ast.Constant)]
        options = {k.arg: k.value for k in node.keywords}
        dest = next((f for f in flags if str(f).startswith("--")), flags[0] if flags else "")
        name = str(dest).lstrip("-").replace("-", "_")
        if isinstance(explicit := options.get("dest"), ast.Constant):
            name = str(explicit.value)
        action = options.get("action")
        if "default" in options:
            try:
                setattr(found, name, self._value(options["default"], at))
            except Unknown:
                return
        elif isinstance(action, ast.Constant) and str(action.value).startswith("store_"):
            setattr(found, name, action.value == "store_false")
        elif name:
            setattr(found, name, None)


def assigned(body: list[ast.stmt], before: Bindings, line: int | None) -> Bindings:
    """What names mean after a block, or at a line inside it."""
    meaning = dict(before)
    for stmt in body:
        if line is not None and stmt.lineno >= line:
            break
        if isinstance(stmt, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            meaning.pop(stmt.name, None)
            continue
        _bind(stmt, meaning)
        for block in blocks(stmt):
            meaning = assigned(block, meaning, line)
    return meaning


def _bind(stmt: ast.stmt, meaning: Bindings) -> None:
    match stmt:
        case ast.Assign(targets=targets, value=value):
            earlier = dict(meaning)
            for target in targets:
                _bind_target(target, value, meaning, earlier)
        case ast.AnnAssign(target=ast.Name(id=name), value=value) if value is not None:
            meaning[name] = _Bound(value, dict(meaning))
        case ast.AugAssign(target=ast.Name(id=name), op=op, value=value):
            left = ast.Name(name, ast.Load())
            meaning[name] = _Bound(ast.BinOp(left, op, value), dict(meaning))
        case ast.For(target=target) | ast.AsyncFor(target=target):
            _forget(target, meaning)
        case ast.With(items=items):
            for item in items:
                if item.optional_vars is not None:
                    _forget(item.optional_vars, meaning)


def _bind_target(target: ast.expr, value: ast.expr, meaning: Bindings, earlier: Bindings) -> None:
    if isinstance(target, ast.Name):
        meaning[target.id] = _Bound(value, earlier)
    elif isinstance(target, ast.Tuple | ast.List):
        for index, element in enumerate(target.elts):
            if any(isinstance(e, ast.Starred) for e in target.elts):
                _forget(element, meaning)
                continue
            if isinstance(value, ast.Tuple | ast.List) and index < len(value.elts):
                one: ast.expr = value.elts[index]
            else:
                one = ast.Subscript(value, ast.Constant(index), ast.Load())
            _bind_target(element, one, meaning, earlier)


def _forget(target: ast.AST, meaning: Bindings) -> None:
    for node in ast.walk(target):
        if isinstance(node, ast.Name):
            meaning[node.id] = None


def _parameters(function: Function, module: Bindings) -> Bindings:
    a = function.args
    positional = [*a.posonlyargs, *a.args]
    found: Bindings = {p.arg: None for p in (*positional, *a.kwonlyargs)}
    for p, default in zip(reversed(positional), reversed(a.defaults), strict=False):
        found[p.arg] = _Bound(default, module)
    for p, kw_default in zip(a.kwonlyargs, a.kw_defaults, strict=True):
        if kw_default is not None:
            found[p.arg] = _Bound(kw_default, module)
    return found
