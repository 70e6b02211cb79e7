"""The user's own example input: `vae(torch.randn(16, input_dim))` somewhere in the file."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from .construction import user_names
from .openscope import OpenScope
from .scope import Scope, Unknown
from .source import Source, own_expressions
from .trace import generators_restored


@dataclass(frozen=True, slots=True)
class Example:
    """The arguments of the user's own call of the model, and its line as one names it."""

    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    line: str


def own_examples(
    source: Source, model: nn.Module, namespace: Mapping[str, Any], seed: int
) -> Iterator[Example]:
    """Calls of the model whose arguments are example tensors, in the file's order."""
    kind = type(model).__name__
    names = user_names(source, kind) - {"self"}
    for place in source.places:
        if place.in_class:
            continue
        for node in own_expressions(place.stmt):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name)):
                continue
            if node.func.id not in names or not (node.args or node.keywords):
                continue
            scope = Scope(source, namespace, place.function, place.stmt.lineno)
            maker = scope.maker(node.func.id)
            if maker != kind and isinstance(namespace.get(maker), type):
                continue
            found = _evaluated(node, scope, seed)
            if found is None:  # `adj = normalize(a)`: a function of the file makes a part
                scope = OpenScope(source, namespace, place.function, place.stmt.lineno)
                found = _evaluated(node, scope, seed)
            if found is not None:
                yield Example(*found, line=source.line(node.lineno))


def _evaluated(
    node: ast.Call, scope: Scope, seed: int
) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
    with generators_restored():
        torch.manual_seed(seed)
        try:
            args = tuple(scope.value(a) for a in node.args)
            kwargs = {k.arg: scope.value(k.value) for k in node.keywords if k.arg}
        except Unknown:
            return None
    values = (*args, *kwargs.values())
    if not any(isinstance(v, Tensor) for v in values):
        return None
    return args, kwargs
