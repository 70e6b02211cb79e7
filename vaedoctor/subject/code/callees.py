"""What is called in code that is only read: its source, its parameters, whose it is."""

from __future__ import annotations

import ast
import functools
import inspect
import sys
import textwrap
import types
from typing import Any

from .source import function_tree
from .syntax import Function

_UNREAD = sys.stdlib_module_names | {"torch", "numpy"}


def is_from_torch(thing: Any) -> bool:
    """Whether a class or function is PyTorch's own."""
    return str(getattr(thing, "__module__", None) or "").partition(".")[0] == "torch"


def tree_of(function: Any) -> Function | None:
    """The syntax tree of a function, a library's too (torch's and Python's own are not read)."""
    function = inspect.unwrap(function) if callable(function) else function
    tree = function_tree(function)
    if tree is not None or not isinstance(function, types.FunctionType):
        return tree
    top = str(function.__module__).partition(".")[0]
    return None if top in _UNREAD else tree_of_code(function.__code__)


@functools.cache
def tree_of_code(code: types.CodeType) -> Function | None:
    """The syntax tree of a function by its code, as a frame has it."""
    try:
        text = inspect.getsource(code)
        try:
            (tree,) = ast.parse(textwrap.dedent(text)).body
        except SyntaxError:  # a docstring's lines may stand further left than the code
            (around,) = ast.parse(f"if True:\n{text}").body
            tree = around.body[0]  # type: ignore[attr-defined]
    except (OSError, TypeError, SyntaxError, ValueError):
        return None
    return tree if isinstance(tree, ast.FunctionDef | ast.AsyncFunctionDef) else None


@functools.cache
def lambda_of_code(code: types.CodeType) -> ast.Lambda | None:
    """The syntax tree of a lambda by its code: that of which the body ends where the code does."""
    ends = {(line, col) for _, line, _, col in code.co_positions()}
    names = list(code.co_varnames[: code.co_argcount])
    try:
        lines, _ = inspect.findsource(code)
        tree = ast.parse("".join(lines))
    except (OSError, TypeError, SyntaxError, ValueError):
        return None
    for node in ast.walk(tree):
        if isinstance(node, ast.Lambda) and node.lineno == code.co_firstlineno:
            given = [a.arg for a in (*node.args.posonlyargs, *node.args.args)]
            if given == names and (node.body.end_lineno, node.body.end_col_offset) in ends:
                return node
    return None


def constructor_of(kind: type) -> Any:
    """The `__init__` (or `__new__`) that runs, of the first class that has one."""
    found = next((vars(k)["__init__"] for k in kind.__mro__ if "__init__" in vars(k)), None)
    return found if isinstance(found, types.FunctionType) else None


def parameters_of(tree: Function) -> list[str]:
    """The names of all parameters, in order."""
    a = tree.args
    spread = [p.arg for p in (a.vararg, a.kwarg) if p is not None]
    return [p.arg for p in (*a.posonlyargs, *a.args, *a.kwonlyargs)] + spread


def positional_names(thing: Any) -> list[str]:
    """The names of a callee's positional parameters, without `self` where it is a class."""
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return [p.name for p in _signature(thing) if p.kind in kinds]


def required_names(thing: Any) -> list[str]:
    """The names of the parameters that must be given."""
    kinds = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return [p.name for p in _signature(thing) if p.default is p.empty and p.kind not in kinds]


def every_name(thing: Any) -> list[str]:
    """The names of all parameters that are given one by one."""
    kinds = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return [p.name for p in _signature(thing) if p.kind not in kinds]


def spare_name(thing: Any) -> str | None:
    """The name of `**kwargs`."""
    kind = inspect.Parameter.VAR_KEYWORD
    return next((p.name for p in _signature(thing) if p.kind is kind), None)


def _signature(thing: Any) -> list[inspect.Parameter]:
    if thing is None or not callable(thing):
        return []
    try:
        return list(inspect.signature(thing).parameters.values())
    except (TypeError, ValueError):
        return []
