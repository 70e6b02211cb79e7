"""What names mean beside a training loop: more is evaluated here than where a model is built.

A loop's loss may come from `make_loss(beta=4)`, `partial(...)`, a lambda or a criterion's class. So
whatever neither costs much nor touches the world is called; data, optimizers and files are not.
"""

from __future__ import annotations

import ast
import builtins
import copy
from collections.abc import Mapping
from typing import Any

from torch import nn

from .bindings import Bindings
from .callees import tree_of
from .permitted import forbidden, may_be_called
from .scope import Scope, Unknown
from .source import Function, Source, file_of, is_foreign, names_read
from .statements import is_costly

_COMPILED = (ast.Lambda, ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp, ast.JoinedStr)
_PURE = ("torch", "functools", "operator", "math", "itertools", "collections", "copy", "numpy")


class OpenScope(Scope):
    """A scope that calls the user's own functions, and evaluates lambdas and comprehensions."""

    def __init__(
        self, source: Source, namespace: Mapping[str, Any], function: Function | None, line: int
    ) -> None:
        super().__init__(source, namespace, function, line)
        self._own = namespace
        self._returned: dict[int, Any] = {}

    def _call(self, node: ast.Call, at: Bindings) -> Any:
        """What a call gives; of `x, y = make()` both parts come from one call."""
        if id(node) not in self._returned:
            self._returned[id(node)] = super()._call(node, at)
        return self._returned[id(node)]

    def _evaluate(self, node: ast.expr, at: Bindings) -> Any:
        if isinstance(node, _COMPILED):
            names = {n for n in names_read(node) if n in self.known or n in at}
            known = {n: v for n in names if (v := self._or_nothing(n, at)) is not _NOTHING}
            tree = ast.fix_missing_locations(ast.Expression(copy.deepcopy(node)))
            return eval(compile(tree, str(self._source.path), "eval"), {**self._own, **known})
        return super()._evaluate(node, at)

    def _or_nothing(self, name: str, at: Bindings) -> Any:
        try:
            return self._name(name, at)
        except Unknown:
            return _NOTHING

    def _may_be_called(self, function: Any, node: ast.Call) -> bool:
        if may_be_called(function, self._own):
            return True
        if forbidden(function) or is_costly(ast.Expr(node)):
            return False
        if isinstance(function, nn.Module):
            return True
        module = str(getattr(function, "__module__", None) or "")
        if module.partition(".")[0] in _PURE:
            return True
        if getattr(builtins, getattr(function, "__name__", ""), None) is function:
            return False
        if not callable(function) or is_foreign(file_of(function) or ""):
            return False
        tree = tree_of(function)
        return tree is None or not any(is_costly(s) for s in tree.body)


_NOTHING = object()
