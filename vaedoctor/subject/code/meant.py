"""What the code of forward does with an argument: the words it knows, its own way without it."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from typing import Any

from torch import nn

from .callees import tree_of
from .syntax import Function

_TRAINS = re.compile(r"train|fit|learn", re.IGNORECASE)
_DOES_NOT = re.compile(r"eval|test|val|infer|pred|gen|none|off|mean|determin", re.IGNORECASE)
_DEEPEST = 4


def words(model: nn.Module, name: str) -> list[str]:
    """The strings that forward compares an argument with, those of training first.

    `phase` in `if phase == "training":`, wherever forward hands it on to.
    """
    found: dict[str, None] = {}
    for tree, own in readers(model, name):
        for node in ast.walk(tree):
            match node:
                case ast.Compare(left=left, comparators=[right]):
                    for one, other in ((left, right), (right, left)):
                        if _is(one, own):
                            found |= dict.fromkeys(_strings(other))
                case ast.Match(subject=subject, cases=cases) if _is(subject, own):
                    found |= dict.fromkeys(w for c in cases for w in _strings(c.pattern))
    return sorted(found, key=lambda w: (not _TRAINS.search(w), bool(_DOES_NOT.search(w))))


def made_when_missing(model: nn.Module, name: str) -> bool:
    """Whether forward makes an argument itself where it is None: `if z is None: z = encode(x)`.

    Then it replaces what the model would do, and a made-up one would leave that idle.
    """
    return any(_fills(node, own) for tree, own in readers(model, name) for node in ast.walk(tree))


def _fills(node: ast.AST, name: str) -> bool:
    match node:
        case ast.If(test=ast.Compare(left=left, ops=[ast.Is()]), body=body) if _is(left, name):
            return any(_assigns(s, name) for stmt in body for s in ast.walk(stmt))
        case ast.Assign(targets=[target], value=ast.IfExp(test=ast.Compare(left=left))):
            return _is(target, name) and _is(left, name)
    return False


def _assigns(node: ast.AST, name: str) -> bool:
    targets = node.targets if isinstance(node, ast.Assign) else []
    made = isinstance(node, ast.Assign) and isinstance(node.value, ast.Call | ast.Subscript)
    return made and any(_is(part, name) for t in targets for part in ast.walk(t))


def _is(node: ast.AST, name: str) -> bool:
    match node:
        case ast.Name(id=found):
            return found == name
        case ast.Call(func=ast.Attribute(value=held, attr="lower" | "upper" | "strip")):
            return _is(held, name)
    return False


def _strings(node: ast.AST) -> list[str]:
    parts = [node]
    if isinstance(node, ast.Tuple | ast.List | ast.Set):
        parts = list(node.elts)
    elif isinstance(node, ast.MatchOr):
        parts = list(node.patterns)
    values = [p.value if isinstance(p, ast.MatchValue) else p for p in parts]
    return [v.value for v in values if isinstance(v, ast.Constant) and isinstance(v.value, str)]


def readers(model: nn.Module, name: str) -> Iterator[tuple[Function, str]]:
    """The functions that an argument of forward reaches, each with its name there."""
    seen: set[tuple[Any, str]] = set()
    waiting: list[tuple[nn.Module, Any, str, int]] = [(model, model.forward, name, 0)]
    while waiting:
        owner, called, own, depth = waiting.pop(0)
        bare = inspect.unwrap(getattr(called, "__func__", called))
        tree = tree_of(bare)
        if tree is None or (bare, own) in seen:
            continue
        seen.add((bare, own))
        yield tree, own
        if depth == _DEEPEST:
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and (callee := _callee(owner, node.func)) is not None:
                holder, method = callee
                waiting += [(holder, method, n, depth + 1) for n in _handed(node, method, own)]


def _callee(owner: nn.Module, func: ast.expr) -> tuple[nn.Module, Any] | None:
    """The method or part that `self.part.method(...)` calls."""
    path: list[str] = []
    while isinstance(func, ast.Attribute):
        path.insert(0, func.attr)
        func = func.value
    if not (path and isinstance(func, ast.Name) and func.id == "self"):
        return None
    holder: Any = owner
    for attr in path[:-1]:
        holder = getattr(holder, attr, None)
    found = getattr(holder, path[-1], None)
    if isinstance(found, nn.Module):
        return found, found.forward
    return (holder, found) if isinstance(holder, nn.Module) and inspect.ismethod(found) else None


def _handed(call: ast.Call, method: Any, own: str) -> Iterator[str]:
    """The names of the parameters that take an argument there."""
    try:
        parameters = list(inspect.signature(method).parameters)
    except (TypeError, ValueError):
        return
    for index, given in enumerate(call.args):
        if _is(given, own) and index < len(parameters):
            yield parameters[index]
    for keyword in call.keywords:
        if keyword.arg in parameters and _is(keyword.value, own):
            yield str(keyword.arg)
