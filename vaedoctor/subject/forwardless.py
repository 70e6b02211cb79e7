"""Why a model has no `forward`: it is misspelt, written inside `__init__`, or not there at all."""

from __future__ import annotations

import ast
import inspect
from difflib import SequenceMatcher

from torch import nn

from ..spelling import listed
from .calling import has_forward
from .code.source import function_tree, is_library, source_of
from .errors import TargetError

_ALIKE = 0.8


def meant_as_forward(model: nn.Module) -> TargetError | None:
    """What is said where `forward` is there, but not as a method of that name."""
    if has_forward(model):
        return None
    name = type(model).__name__
    for method in _methods(model):
        alike = SequenceMatcher(None, method.lower(), "forward").ratio()
        if alike > _ALIKE and not hasattr(nn.Module, method):
            return TargetError(
                f"`{name}` has no `forward`: calling the model raises `NotImplementedError`; "
                f"its method `{method}` may be meant",
                next_step=f"rename `{name}.{method}` to `forward`",
            )
    tree = function_tree(vars(type(model)).get("__init__"))
    for node in ast.walk(tree) if tree is not None else ():
        if isinstance(node, ast.FunctionDef) and node.name == "forward":
            source = source_of(type(model))
            at = source.line(node.lineno) if source is not None else f"line {node.lineno}"
            return TargetError(
                f"`{name}` has no `forward`: that of {at} is written inside `__init__`",
                next_step=f"indent the `def forward` of {at} as far as the `def __init__` above it",
            )
    return None


def without_forward(model: nn.Module, label: str) -> TargetError:
    """A model that nobody can call, whose methods do not say how they go together."""
    name, methods = type(model).__name__, [f"`{m}`" for m in _methods(model)]
    known = f" of its methods ({listed(methods)})" if methods else ""
    return TargetError(
        f"`{name}` has no `forward`, and none could be put together{known}",
        next_step=f"give `{name}` a `forward(self, x)` that encodes, samples and decodes, then "
        f"`vaedoctor check {label}`",
    )


def _methods(model: nn.Module) -> list[str]:
    """The methods that the user's own classes define."""
    kinds = [k for k in type(model).__mro__ if not is_library(k)]
    found = {n: None for k in kinds for n, thing in vars(k).items() if inspect.isfunction(thing)}
    return [n for n in found if not n.startswith("_")]
