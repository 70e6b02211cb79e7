"""How a loss treats a parameter, read from its source: what it takes apart, and by which keys."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable, Iterator
from typing import Any

from torch import Tensor

from ..code.callees import lambda_of_code, tree_of, tree_of_code
from ..code.source import function_tree, is_foreign, source_of
from ..code.syntax import Function
from ..script.unpacking import handed_on

_MAPPINGS = frozenset("Dict Mapping MutableMapping OrderedDict".split())


def read_of(function: Callable[..., Any]) -> Function | ast.Lambda | None:
    """The syntax tree of a loss: of a file, of a notebook's running cell, of a lambda."""
    tree = function_tree(function)
    code = getattr(function, "__code__", None)
    if tree is not None or code is None or is_foreign(code.co_filename):
        return tree
    return tree_of_code(code) or lambda_of_code(code)


def taken_apart(function: Callable[..., Any], name: str) -> bool:
    """Whether a function treats a parameter as a container: unpacks, spreads or subscripts it."""
    tree = read_of(function)
    for node in ast.walk(tree) if tree is not None else ():
        match node:
            case (
                ast.Assign(targets=[ast.Tuple()], value=ast.Name(id=found))
                | ast.Subscript(value=ast.Name(id=found), slice=ast.Constant(value=str() | int()))
                | ast.Starred(value=ast.Name(id=found))
            ):
                if found == name:
                    return True
    return False


def declared(p: inspect.Parameter, output: Any, returned: Any = None) -> bool:
    """Whether a parameter is annotated with what forward returned: its class, or a mapping.

    Or as forward says that it returns it (`returned`), of a plain dict a `TypedDict`.
    """
    if isinstance(output, Tensor) or p.annotation is p.empty:
        return False
    if isinstance(output, dict) and p.annotation == returned:
        return True
    said = p.annotation if isinstance(p.annotation, str) else inspect.formatannotation(p.annotation)
    kind = said.partition("[")[0].rpartition(".")[2]
    return kind == type(output).__name__ or (isinstance(output, dict) and kind in _MAPPINGS)


def keys_read(function: Callable[..., Any], name: str) -> set[str]:
    """The literal keys with which a function subscripts a parameter: `batch["image"]`.

    Without those that it looks for first: `if "weights" in batch:`.
    """
    found: set[str] = set()
    may_lack: set[str] = set()
    tree = read_of(function) or tree_of(function)
    for node in ast.walk(tree) if tree is not None else ():
        match node:
            case ast.Compare(
                left=ast.Constant(value=str() as key),
                ops=[ast.In()],
                comparators=[ast.Name(id=held)],
            ) if held == name:
                may_lack.add(key)
            case ast.Subscript(value=ast.Name(id=held), slice=ast.Constant(value=str() as key)):
                if held == name:
                    found.add(key)
    return found - may_lack


def reads_attributes(function: Callable[..., Any], name: str, keys: set[str]) -> bool:
    """Whether a function reads an entry of the output as an attribute: `out.x_hat`."""
    tree = read_of(function) if keys else None
    return any(
        isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id == name
        and node.attr in keys
        for node in (ast.walk(tree) if tree is not None else ())
    )


def iterated(function: Callable[..., Any], name: str) -> bool:
    """Whether a function goes through a parameter: `for one in samples`, `zip(samples, ...)`."""
    tree = read_of(function)
    for node in ast.walk(tree) if tree is not None else ():
        if isinstance(node, ast.For | ast.comprehension):
            over = [node.iter, *(node.iter.args if isinstance(node.iter, ast.Call) else ())]
            if any(isinstance(one, ast.Name) and one.id == name for one in over):
                return True
    return False


def parts_of(function: Callable[..., Any], name: str) -> int:
    """Into how many parts a function unpacks a parameter: 2 for `x, _ = batch`.

    It may leave that to another function of its file.
    """
    tree, source = function_tree(function), source_of(function)
    several = handed_on(source, tree, name) if tree is not None and source is not None else ()
    for one, parameter in several:
        for node in ast.walk(one):
            match node:
                case ast.Assign(targets=[ast.Tuple(elts=parts)], value=ast.Name(id=found)):
                    if found == parameter:
                        return len(parts)
    return 0


def hands_to_forward(function: Callable[..., Any], name: str, kind: type, depth: int = 3) -> bool:
    """Whether a method runs the forward pass itself on a parameter: `out = self(x, mask=mask)`.

    Or another method of its class (`kind`), to which it hands the parameter.
    """
    tree = function_tree(function) if depth else None
    for node in ast.walk(tree) if tree is not None else ():
        match node:
            case ast.Call(func=ast.Name(id="self") | ast.Attribute(ast.Name(id="self"), "forward")):
                given = [*node.args, *(k.value for k in node.keywords)]
                if any(isinstance(a, ast.Name) and a.id == name for a in given):
                    return True
            case ast.Call(func=ast.Attribute(ast.Name(id="self"), attr=called)):
                method = inspect.getattr_static(kind, called, None)
                if inspect.isfunction(method) and any(
                    hands_to_forward(method, taken, kind, depth - 1)
                    for taken in _taken_as(node, method, name)
                ):
                    return True
    return False


def _taken_as(call: ast.Call, method: Callable[..., Any], name: str) -> Iterator[str]:
    """The parameters of a method that a call of it gives a name to."""
    parameters = list(inspect.signature(method).parameters)[1:]
    for parameter, given in zip(parameters, call.args, strict=False):
        if isinstance(given, ast.Name) and given.id == name:
            yield parameter
    for keyword in call.keywords:
        if keyword.arg and isinstance(keyword.value, ast.Name) and keyword.value.id == name:
            yield keyword.arg
