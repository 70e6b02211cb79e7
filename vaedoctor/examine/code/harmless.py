"""Which of a model's own methods can be run without doing more than to compute."""

from __future__ import annotations

import ast
import builtins
import inspect
import textwrap
import types
from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn

from .places import is_user_file

_BUILTINS = frozenset(
    "len range zip enumerate int float bool str tuple list dict set min max sum abs isinstance "
    "hasattr getattr sorted reversed all any round super slice map".split()
)
_CONTAINERS = frozenset("append extend items keys values get insert pop update".split())
_CHANGES = frozenset(
    "save load set_default_dtype set_default_device set_default_tensor_type manual_seed seed "
    "set_grad_enabled backward share_memory_ register_hook compile numpy tolist train eval "
    "requires_grad_ register_buffer add_module load_state_dict apply".split()
)
"""Calls of torch that change more than what they return, or lead out of it."""
_DEEP = 4


def harmless_methods(model: nn.Module) -> Iterator[tuple[str, types.FunctionType]]:
    """The public methods of the model's own class, of a user's file, that only compute."""
    for name in dir(type(model)):
        found = inspect.getattr_static(type(model), name)
        if name.startswith("_") or hasattr(nn.Module, name):
            continue
        function = inspect.unwrap(found) if isinstance(found, types.FunctionType) else None
        if isinstance(function, types.FunctionType) and _only_computes(function, model, _DEEP):
            yield name, function


def _only_computes(function: types.FunctionType, model: nn.Module, depth: int) -> bool:
    if depth == 0 or not is_user_file(function.__code__.co_filename):
        return False
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    except (OSError, SyntaxError, TypeError):
        return False
    if any(isinstance(n, _WALKS) for n in ast.walk(tree)):
        return False
    made = tree.body[0]
    body = made.body if isinstance(made, ast.FunctionDef) else []
    calls = [n for part in body for n in ast.walk(part) if isinstance(n, ast.Call)]
    return bool(body) and all(_computes(call.func, function, model, depth) for call in calls)


def _computes(called: ast.expr, within: types.FunctionType, model: nn.Module, depth: int) -> bool:
    """Whether a call is one of torch, of a layer, of a tensor, or of a method that computes."""
    if isinstance(called, ast.Name):
        known = within.__globals__.get(called.id)
        return called.id == "self" or _is_known(known, called.id, model, depth)
    if not isinstance(called, ast.Attribute) or called.attr in _CHANGES:
        return False
    match called.value:
        case ast.Name(id="self"):
            return _of_model(called.attr, model, depth)
        case ast.Name(id=root) if isinstance(within.__globals__.get(root), types.ModuleType):
            home: Any = within.__globals__[root]
            return home.__name__.split(".")[0] in ("torch", "math", "numpy")
        case ast.Attribute(value=ast.Name(id=root), attr=inner) if isinstance(
            within.__globals__.get(root), types.ModuleType
        ):
            home = within.__globals__[root]
            inside = isinstance(getattr(home, inner, None), types.ModuleType)
            return inside and home.__name__.split(".")[0] == "torch"
        case ast.Attribute(value=ast.Name(id="self"), attr=inner):
            held = getattr(model, inner, None)
            return isinstance(held, nn.Module) and called.attr in ("forward", "encode", "decode")
        case _:
            return hasattr(Tensor, called.attr) or called.attr in _CONTAINERS


def _of_model(name: str, model: nn.Module, depth: int) -> bool:
    if isinstance(getattr(model, name, None), nn.Module):
        return True
    found = inspect.getattr_static(type(model), name, None)
    found = found.__func__ if isinstance(found, staticmethod) else found
    if not isinstance(found, types.FunctionType):
        return False
    return _only_computes(inspect.unwrap(found), model, depth - 1)


def _is_known(thing: Any, name: str, model: nn.Module, depth: int) -> bool:
    if thing is None:
        return name in _BUILTINS and hasattr(builtins, name)
    if isinstance(thing, types.FunctionType) and is_user_file(thing.__code__.co_filename):
        return _only_computes(thing, model, depth - 1)
    home = getattr(thing, "__module__", None) or ""
    return home.split(".")[0] == "torch" and name not in _CHANGES


_WALKS = (ast.Yield, ast.YieldFrom, ast.Await, ast.Global, ast.Nonlocal, ast.Import, ast.ImportFrom)
