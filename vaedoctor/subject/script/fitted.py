"""The loader that a trainer is given: `fit(model, loader)`, or a method `train_dataloader`."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from typing import Any

from torch import nn

from ..code.source import Source
from ..code.syntax import called_name, own_expressions
from .datascope import DataScope
from .holders import class_around

_METHOD = "train_dataloader"


def fitted(
    source: Source, model: nn.Module, namespace: Mapping[str, Any]
) -> Iterator[tuple[ast.expr, DataScope]]:
    """The loaders of a trainer, as expressions and what names mean there."""
    kinds = {k.__name__ for k in type(model).__mro__}
    modules = list[str]()
    for place in source.places:
        for node in own_expressions(place.stmt):
            if not isinstance(node, ast.Call) or called_name(node) != "fit":
                continue
            given = [*node.args[1:2]]
            keywords = {str(k.arg): k.value for k in node.keywords}
            given += [v for k, v in keywords.items() if k.startswith(_METHOD) or k == "datamodule"]
            scope = DataScope(source, namespace, place.function, place.stmt.lineno)
            for expr in given:
                modules.append(_maker(expr, scope))
                yield expr, scope
    asked = [
        (place.stmt, owner.name)
        for place in source.places
        if isinstance(place.stmt, ast.FunctionDef)
        and place.stmt.name == _METHOD
        and (owner := class_around(place)) is not None
    ]
    for method, kind in asked:
        if len(asked) > 1 and kind not in {*kinds, *modules}:
            continue
        for inner in ast.walk(method):
            if isinstance(inner, ast.Return) and inner.value is not None:
                scope = DataScope(source, namespace, method, inner.lineno)
                yield inner.value, scope
                if kind in kinds:  # what the constructor of the model keeps
                    scope = DataScope(source, namespace, method, inner.lineno)
                    scope.known["self"] = model
                    yield inner.value, scope


def _maker(expr: ast.expr, scope: DataScope) -> str:
    """The class that a data module is made from."""
    if isinstance(expr, ast.Call):
        return called_name(expr)
    return scope.maker(expr.id) if isinstance(expr, ast.Name) else ""
