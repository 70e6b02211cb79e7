"""What names mean beside a training loop: more is evaluated here than where a model is built.

A loop's loss may come from `make_loss(beta=4)`, `partial(...)`, a lambda or a criterion's class. So
whatever neither costs much nor touches the world is called; data, optimizers and files are not.
"""

from __future__ import annotations

import ast
import builtins
import copy
import dataclasses
import importlib
from collections.abc import Mapping
from typing import Any

from torch import nn

from .bindings import Bindings
from .callees import tree_of
from .entrypoints import config_of, tracked_config
from .permitted import forbidden, may_be_called
from .scope import Missing, Scope, Unknown
from .source import Source, file_of, is_foreign
from .statements import is_costly
from .syntax import Function, called_name, names_read, root_name

_COMPILED = (ast.Lambda, ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp, ast.JoinedStr)
_PURE = ("torch", "functools", "operator", "math", "itertools", "collections", "copy", "numpy")

_PARSERS = {("yaml", "safe_load"), ("yaml", "load"), ("json", "loads"), ("tomllib", "loads")}
_OF_DICTS = {"ConfigDict", "EasyDict", "edict", "Munch", "munchify", "DotMap", "AttrDict", "Box"}
_OF_CLASSES = {"tyro.cli", "simple_parsing.parse", "OmegaConf.structured"}


class OpenScope(Scope):
    """A scope that calls the user's own functions, and evaluates lambdas and comprehensions.

    `lost` are names of which nothing is known any more.
    """

    def __init__(
        self, source: Source, namespace: Mapping[str, Any], function: Function | None, line: int
    ) -> None:
        super().__init__(source, namespace, function, line)
        self._own = namespace
        self.lost: set[str] = set()
        self._returned: dict[int, Any] = {}

    def _call(self, node: ast.Call, at: Bindings) -> Any:
        """What a call gives; of `x, y = make()` both parts come from one call."""
        if id(node) not in self._returned:
            configured = self._configured(node, at)
            found = super()._call(node, at) if configured is None else configured
            self._returned[id(node)] = found
        return self._returned[id(node)]

    def _configured(self, node: ast.Call, at: Bindings) -> Any:
        """A configuration that a library makes of a dict or of a dataclass's defaults."""
        name = called_name(node)
        own = self._own.get(root_name(node.func))
        if len(node.args) != 1 or not is_foreign(file_of(own) or "<"):
            return None
        if name in _OF_DICTS or ast.unparse(node.func) == "OmegaConf.create":
            held = self._value(node.args[0], at)
            return config_of(held) if isinstance(held, dict | list) else None
        if ast.unparse(node.func) in _OF_CLASSES:
            kind = self._value(node.args[0], at)
            return kind() if dataclasses.is_dataclass(kind) and isinstance(kind, type) else None
        return None

    def _evaluate(self, node: ast.expr, at: Bindings) -> Any:
        if isinstance(node, _COMPILED):
            names = {n for n in names_read(node) if n in self.known or n in at}
            known = {n: v for n in names if (v := self._or_nothing(n, at)) is not _NOTHING}
            tree = ast.fix_missing_locations(ast.Expression(copy.deepcopy(node)))
            return eval(compile(tree, str(self._source.path), "eval"), {**self._own, **known})
        if isinstance(node, ast.Attribute):
            tracked = tracked_config(node, self._source.tree)
            if tracked is not None:
                return config_of(self._value(tracked, at))
        return super()._evaluate(node, at)

    def _name(self, name: str, at: Bindings) -> Any:
        if name in self.lost:
            raise Unknown(name)
        try:
            return super()._name(name, at)
        except Unknown:
            if name in at:
                raise
            return self._imported(name)

    def _imported(self, name: str) -> Any:
        """What is imported inside a function or the main guard, of libraries that only compute."""
        for place in self._source.places:
            match place.stmt:
                case ast.Import(names=names):
                    found = {(a.asname or a.name): a.name for a in names}
                    attr = ""
                case ast.ImportFrom(module=str() as module, names=names, level=0):
                    found = {(a.asname or a.name): module for a in names}
                    attr = next((a.name for a in names if (a.asname or a.name) == name), "")
                case _:
                    continue
            if found.get(name, "").partition(".")[0] in (*_PURE, "sklearn"):
                try:
                    held = importlib.import_module(found[name])
                except ImportError as error:
                    raise Unknown(name) from error
                return getattr(held, attr) if attr else held
        raise Unknown(name)

    def _or_nothing(self, name: str, at: Bindings) -> Any:
        try:
            return self._name(name, at)
        except Unknown:
            return _NOTHING

    def _may_be_called(self, function: Any, node: ast.Call) -> bool:
        if may_be_called(function, self._own) or called_name(node) == "is_available":
            return True
        held = getattr(function, "__self__", None)
        if type(held).__module__.partition(".")[0] == "numpy":  # what it is made from was judged
            return getattr(function, "__name__", "") not in {"tofile", "dump"}
        if forbidden(function) or is_costly(ast.Expr(node)):
            return False
        if isinstance(function, nn.Module):
            return True
        module = str(getattr(function, "__module__", None) or "")
        if module.partition(".")[0] in _PURE:
            return True
        if (module.partition(".")[0], getattr(function, "__name__", "")) in _PARSERS:
            return True  # of a text: what opens a file is called by nobody here
        if getattr(builtins, getattr(function, "__name__", ""), None) is function:
            return False
        if not callable(function) or is_foreign(file_of(function) or ""):
            return False
        tree = tree_of(function)
        return tree is None or not any(is_costly(s) for s in tree.body)


def told(expr: ast.expr, scope: Scope) -> Any:
    """The value of an expression; raises `Unknown` of what a missing library would give as well."""
    value = scope.value(expr)
    if isinstance(value, Missing):
        raise Unknown(ast.unparse(expr))
    return value


_NOTHING = object()
