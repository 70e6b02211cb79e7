"""How code uses a value it is given: read from the syntax tree, through aliases and calls.

A constructor that takes `cfg` tells what it wants from it: `cfg.latent_dim` is a size,
`cfg["act"] == "relu"` names a choice, `for width in cfg.widths` asks for a list, `c, h, w = shape`
for three numbers, and `Encoder(cfg)` hands the question on to another class of the file.
"""

from __future__ import annotations

import ast
import inspect
import types
from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from ..code.callees import (
    constructor_of,
    every_name,
    is_from_torch,
    parameters_of,
    positional_names,
    required_names,
    spare_name,
    tree_of,
)
from ..code.signatures import signature_of
from ..code.syntax import called_name
from ..code.uses import Use
from .standing import Standing, is_super, is_unbound, place_of

_PASSED_ON = {"int", "float", "list", "tuple", "reversed", "sorted", "deepcopy", "copy", "iter"}
_LIST_METHODS = {"reverse", "insert", "append", "pop", "copy", "extend"}
_DICT_METHODS = {"items", "keys", "values"}
_SIZED = {"len", "prod", "sum", "max", "min"}
_TEXT_METHODS = {"lower", "upper", "startswith", "strip", "endswith", "capitalize"}
_BUILT_IN = {"tuple": tuple, "list": list, "dict": dict, "str": str, "int": int}
_TORCH = {"nn", "torch.nn", "F", "torch", "torch.nn.functional"}


def uses_of(thing: Callable[..., Any], namespace: Mapping[str, Any]) -> dict[str, Use]:
    """How a class's constructor, or a function, uses each of its parameters."""
    found: dict[str, Use] = {}
    _Reader(namespace).enter(thing, found)
    parameters = signature_of(thing).parameters.values()
    for spare in [found[p.name] for p in parameters if p.kind is p.VAR_KEYWORD and p.name in found]:
        handed_on = [p.name for p in parameters if p.name not in found and p.name in spare.keys]
        found |= {name: spare.keys.pop(name) for name in handed_on}
    return found


class _Reader:
    """Walks one function after the other, with what its names stand for."""

    def __init__(self, namespace: Mapping[str, Any]) -> None:
        self._standing = Standing(namespace)

    def enter(self, thing: Any, bound: dict[str, Use], own: dict[str, Use] | None = None) -> None:
        """Read a class or function whose parameters are `bound`; new ones are added to it.

        `own` is what the attributes of `self` stand for where a method is entered.
        """
        if not self._standing.is_open_to(thing):
            return
        kind = thing if isinstance(thing, type) else None
        function = constructor_of(kind) if kind is not None else thing
        tree = tree_of(function)
        if tree is None:
            return
        with self._standing.inside(thing, function, of_self=own is not None):
            names = parameters_of(tree)[0 if kind is None and own is None else 1 :]
            env = {**(own or {}), **{n: bound.setdefault(n, Use()) for n in names}}
            self._block(tree.body, env)
            if kind is not None:
                self._methods(kind, env)
            elif own is not None:
                own |= {k: v for k, v in env.items() if k.startswith("self.")}

    def _methods(self, kind: type, env: dict[str, Use]) -> None:
        """What is kept on `self` is used in the other methods too."""
        kept = {k: v for k, v in env.items() if k.startswith("self.")}
        if not kept:
            return
        for name, value in vars(kind).items():
            if name != "__init__" and isinstance(value, types.FunctionType):
                tree = tree_of(value)
                if tree is not None:
                    self._block(tree.body, dict(kept))

    def _block(self, body: list[ast.stmt], env: dict[str, Use]) -> None:
        for stmt in body:
            self._statement(stmt, env)

    def _statement(self, stmt: ast.stmt, env: dict[str, Use]) -> None:
        match stmt:
            case ast.Assign(targets=targets, value=value):
                use = self._use(value, env)
                for target in targets:
                    self._bind(target, value, use, env)
            case ast.AnnAssign(target=target, value=ast.expr() as value):
                self._bind(target, value, self._use(value, env), env)
            case ast.For(target=target, iter=loop, body=body, orelse=orelse):
                self._loop(target, loop, env)
                self._block([*body, *orelse], env)
            case ast.If(test=test, body=body, orelse=orelse):
                self._use(test, env)
                other = dict(env)
                self._block(body, env)
                self._block(orelse, other)
                env |= {k: v for k, v in other.items() if k not in env}  # either may have run
            case ast.Match(subject=subject, cases=cases):
                use = self._use(subject, env)
                for case in cases:
                    if use is not None:
                        use.equals += [
                            n.value for n in ast.walk(case.pattern) if isinstance(n, ast.Constant)
                        ]
                    self._block(case.body, env)
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                self._block(stmt.body, dict(env))
            case _:
                for child in ast.iter_child_nodes(stmt):
                    if isinstance(child, ast.stmt):
                        self._statement(child, env)
                    elif isinstance(child, ast.expr):
                        self._use(child, env)
                    elif isinstance(child, ast.withitem):
                        self._use(child.context_expr, env)
                    elif isinstance(child, ast.ExceptHandler):
                        self._block(child.body, env)

    def _bind(
        self, target: ast.expr, value: ast.expr, use: Use | None, env: dict[str, Use]
    ) -> None:
        place = place_of(target)
        if place is not None:
            if use is not None:
                env[place] = use
            else:
                env.pop(place, None)
        elif isinstance(target, ast.Tuple | ast.List):
            starred = any(isinstance(e, ast.Starred) for e in target.elts)
            if isinstance(value, ast.Tuple | ast.List) and len(value.elts) == len(target.elts):
                for one, part in zip(target.elts, value.elts, strict=True):
                    self._bind(one, part, self._use(part, env), env)
            elif use is not None and starred:
                use.element()
            elif use is not None:
                use.count = len(target.elts)
                for index, one in enumerate(target.elts):
                    inner = use.key(index)
                    inner.names.append((place_of(one) or "").removeprefix("self."))
                    self._bind(one, value, inner, env)

    def _loop(self, target: ast.expr, loop: ast.expr, env: dict[str, Use]) -> None:
        name = called_name(loop) if isinstance(loop, ast.Call) else ""
        if isinstance(loop, ast.Call) and name in {"zip", "enumerate"}:
            uses = [self._iterated(a, env) for a in loop.args]
            if name == "enumerate":
                uses = [None, *uses]
            elts = target.elts if isinstance(target, ast.Tuple) else []
            for one, use in zip(elts, uses, strict=False):
                self._bind(one, loop, use, env)
            return
        if (
            isinstance(loop, ast.Call)
            and isinstance(loop.func, ast.Attribute)
            and name in _DICT_METHODS
        ):
            held = self._use(loop.func.value, env)
            if held is not None:
                held.mapping = True
                value = target.elts[-1] if isinstance(target, ast.Tuple) else target
                if name != "keys":
                    self._bind(value, loop, held.element(), env)
                return
        self._bind(target, loop, self._iterated(loop, env), env)

    def _iterated(self, node: ast.expr, env: dict[str, Use]) -> Use | None:
        match node:
            case ast.Call(func=ast.Name(id="range"), args=[only]):
                if (count := self._use(only, env)) is not None:
                    count.repeats = True
        use = self._use(node, env)
        return None if use is None else use.element()

    def _use(self, node: ast.expr, env: dict[str, Use]) -> Use | None:
        """The use an expression stands for; what it does to others is noted on the way."""
        match node:
            case ast.Name() | ast.Attribute(value=ast.Name(id="self")):
                return env.get(place_of(node) or "")
            case ast.Attribute(value=value, attr=attr):
                held = self._use(value, env)
                return None if held is None else held.attribute(attr)
            case ast.Subscript(value=value, slice=index):
                return self._subscript(value, index, env)
            case ast.Call():
                return self._call(node, env)
            case ast.BoolOp(values=values):
                uses = [self._use(v, env) for v in values]
                return next((u for u in uses if u is not None), None)
            case ast.IfExp(test=test, body=body, orelse=orelse):
                self._use(test, env)
                a, b = self._use(body, env), self._use(orelse, env)
                return a or b
            case ast.Compare():
                return self._compare(node, env)
            case ast.BinOp(left=left, right=right):
                for side, other in ((left, right), (right, left)):
                    use = self._use(side, env)
                    if use is not None and isinstance(other, ast.List | ast.ListComp):
                        use.element()
                    elif use is not None:
                        use.number = True
                return None
            case ast.ListComp() | ast.GeneratorExp() | ast.SetComp() | ast.DictComp():
                self._comprehension(node, dict(env))
                return None
            case ast.Starred(value=value):
                use = self._use(value, env)
                if use is not None:
                    use.element()
                return None
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.expr):
                self._use(child, env)
        return None

    def _comprehension(
        self,
        node: ast.ListComp | ast.GeneratorExp | ast.SetComp | ast.DictComp,
        env: dict[str, Use],
    ) -> None:
        for one in node.generators:
            self._loop(one.target, one.iter, env)
            for test in one.ifs:
                self._use(test, env)
        parts = [node.key, node.value] if isinstance(node, ast.DictComp) else [node.elt]
        for part in parts:
            self._use(part, env)

    def _subscript(self, value: ast.expr, index: ast.expr, env: dict[str, Use]) -> Use | None:
        chosen = None if isinstance(index, ast.Slice) else self._use(index, env)
        if chosen is not None:  # `{"relu": nn.ReLU}[act]`
            table = self._standing.constant(value)
            if isinstance(value, ast.Dict):
                chosen.equals += [k.value for k in value.keys if isinstance(k, ast.Constant)]
            elif isinstance(table, Mapping):
                chosen.equals += list(table)
        held = self._use(value, env)
        if held is None:
            return None
        match index:
            case ast.Constant(value=str(key)):
                return held.key(key)
            case ast.Constant(value=int(key)) if key >= 0:
                held.element()
                return held.key(key)
            case ast.Slice():
                held.element()
                return held
        return held.element()

    def _compare(self, node: ast.Compare, env: dict[str, Use]) -> Use | None:
        sides = [node.left, *node.comparators]
        uses = [self._use(s, env) for s in sides]
        match node:
            case ast.Compare(left=ast.Constant(value=str(key)), ops=[ast.In() | ast.NotIn()]):
                if uses[1] is not None:
                    uses[1].key(key).tested = True
                    return None
        if isinstance(node.ops[0], ast.In | ast.NotIn) and uses[-1] is not None:
            uses[-1].element()  # `if size in attn_resolutions`
            return None
        for index, use in enumerate(uses):
            if use is None:
                continue
            for other in (s for i, s in enumerate(sides) if i != index):
                nodes = other.elts if isinstance(other, ast.Tuple | ast.List | ast.Set) else [other]
                found = [self._standing.constant(n) for n in nodes]
                use.equals += [f for f in found if f is not None and not callable(f)]
        return None

    def _call(self, node: ast.Call, env: dict[str, Use]) -> Use | None:
        name, result = called_name(node), None
        called = env.get(place_of(node.func) or "")
        if called is not None:
            called.called = len(node.args)
        elif isinstance(node.func, ast.Attribute):
            held = self._use(node.func.value, env)
            if held is not None and (found := self._method(held, name, node, env)) is not None:
                return found[0]
            if held is not None:
                held.methods.append(name)
                result = held.result(name)
        elif name == "getattr" and len(node.args) > 1:
            return self._getattr(node, env)
        elif isinstance(node.func, ast.Call | ast.Subscript):
            self._use(node.func, env)
        uses = [self._use(a, env) for a in node.args]
        first = next(iter(uses), None)
        if first is not None and name in {*_PASSED_ON, "vars"}:
            first.number = first.number or name in {"int", "float"}
            return first
        if first is not None and name in _SIZED:
            first.sized = True
        elif first is not None and name == "range":
            first.number = True
        elif name == "isinstance":
            if first is not None and len(node.args) == 2:
                of = node.args[1].elts if isinstance(node.args[1], ast.Tuple) else node.args[1:]
                kinds = [self._standing.constant(n) or _BUILT_IN.get(ast.unparse(n)) for n in of]
                first.kinds += [k for k in kinds if isinstance(k, type)]
            return None
        self._pass_on(node, uses, env)
        return result

    def _method(
        self, held: Use, name: str, node: ast.Call, env: dict[str, Use]
    ) -> tuple[Use | None] | None:
        """A method of a used value: `.get("k", 1)`, `.items()`, `.pop()`; else None."""
        if name in {"get", "pop", "setdefault"} and node.args:
            key = self._standing.constant(node.args[0])
            if isinstance(key, str):
                inner = held.key(key)
                inner.may_lack = inner.may_lack or len(node.args) > 1
                fallback = self._standing.constant(node.args[1]) if len(node.args) > 1 else None
                if fallback is not None:
                    inner.fallback = fallback
                return (inner,)
        if name in _DICT_METHODS:
            held.mapping = True
            return (None,)
        if name in _LIST_METHODS:
            return (held.element() if name == "pop" else held,)
        if name in _TEXT_METHODS:
            held.text = True
            return (held,)
        return None

    def _getattr(self, node: ast.Call, env: dict[str, Use]) -> Use | None:
        asked = self._use(node.args[1], env)
        if asked is not None and ast.unparse(node.args[0]) in _TORCH:
            asked.of_torch = True
            return None
        held, key = self._use(node.args[0], env), self._standing.constant(node.args[1])
        if held is None or not isinstance(key, str):
            return None
        inner = held.attribute(key)
        if len(node.args) > 2:
            fallback = self._standing.constant(node.args[2])
            inner.fallback = inspect.Parameter.empty if fallback is None else fallback
        return inner

    def _pass_on(self, node: ast.Call, uses: list[Use | None], env: dict[str, Use]) -> None:
        """Tell the callee's parameters what they are, and ask it how it uses them."""
        thing, is_method = self._standing.callee(node)
        uses = uses[1:] if is_unbound(node) else uses  # without `self`
        positional = positional_names(thing)[1 if is_method else 0 :]
        bound = {p: u for p, u in zip(positional, uses, strict=False) if u is not None}
        for keyword in node.keywords:
            use = self._use(keyword.value, env)
            if use is not None and keyword.arg is not None:
                bound[keyword.arg] = use
            elif use is not None:
                given = {*positional[: len(node.args)], *(k.arg for k in node.keywords if k.arg)}
                needed = required_names(thing)[1 if is_method else 0 :]
                names = every_name(thing)[1:] if is_super(node) else needed
                bound |= {n: use.key(n) for n in names if n not in given}
                if is_super(node) and (spare := spare_name(thing)):
                    bound[spare] = use
        from_torch = is_from_torch(thing)
        for name, use in bound.items():
            use.names.append(name)
            use.number = use.number or from_torch
        for use in (u for u in uses if u is not None and not positional and from_torch):
            use.part = use.part or thing is nn.Sequential
            use.number = use.number or not isinstance(thing, type)
        if thing is not None and not from_torch and (bound or is_method):
            own = {k: v for k, v in env.items() if k.startswith("self.")} if is_method else None
            self.enter(thing, bound, own)
            env |= own or {}
