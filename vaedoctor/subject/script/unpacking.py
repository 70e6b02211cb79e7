"""The structure in which a function takes what a loader gives: `x, y = batch`, `batch["image"]`."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from ..code.source import Source
from ..code.syntax import Function, called_name
from ..subject import Batch
from ..trials.witness import user_frame
from .holders import callees

_DEEPEST = 4
_TO_BECOME = re.compile(r"target|tgt|output|decod")


def packed(
    source: Source, callee: Function, name: str, x: Tensor, batch: Batch, *, indexed: bool
) -> Any:
    """A loader's batch as a function takes its parameter apart; `x` where it does not.

    `indexed` says that `batch[0]` takes it apart as well. The function may leave that to another
    one: `return self.shared_step(batch, "train")`.
    """
    for function, parameter in handed_on(source, callee, name):
        found = _packed(function, parameter, x, batch, indexed)
        if found is not x:
            return found
    return x


def beside_data(name: str, x: Tensor) -> Tensor:
    """Another item of a loader, which nothing tells: a mask that keeps all, full lengths, a label.

    Of a sequence's mask there is one entry a step; what words are to become are words.
    """
    bare = name.lower()
    if is_to_become(name, x):
        return x
    if re.search(r"mask|valid", bare):
        shape = x.shape[:2] if x.dim() == 3 else x.shape
        return torch.full(shape, re.search(r"pad|missing|ignore", bare) is None, device=x.device)
    if re.search(r"length|(^|_)lens?$", bare):
        steps = x.shape[1] if x.dim() > 1 else 1
        return torch.full(x.shape[:1], steps, dtype=torch.long, device=x.device)
    return torch.zeros(x.shape[:1], dtype=torch.long, device=x.device)


def is_to_become(name: str, x: Tensor) -> bool:
    """Whether a name is that of what the words of a sequence are to become."""
    words = x.dim() > 1 and not x.is_floating_point()
    return words and _TO_BECOME.search(name.lower()) is not None


def _packed(callee: ast.AST, name: str, x: Tensor, batch: Batch, indexed: bool) -> Any:
    parts = [*batch.args, *batch.kwargs.values()]
    label = torch.zeros(x.shape[:1], dtype=torch.long, device=x.device)
    keys: list[str] = []
    most = -1
    for node in ast.walk(callee):
        match node:
            case ast.Assign(targets=[ast.Tuple(elts=elements)], value=ast.Name(id=found)):
                if found == name:
                    return tuple([*parts, *[label] * len(elements)][: len(elements)])
            case ast.Subscript(value=ast.Name(id=found), slice=ast.Constant(value=str() as key)):
                if found == name and key not in keys:
                    keys.append(key)
            case ast.Subscript(value=ast.Name(id=found), slice=ast.Constant(value=int() as index)):
                if found == name and not isinstance(index, bool):
                    most = max(most, index)
    if keys:
        return dict(zip(keys, [*parts, *[label] * len(keys)], strict=False))
    if indexed and most >= 0 and x.dim() > 1:
        return tuple([*parts, *[label] * (most + 1)][: max(2, most + 1)])
    return x


def handed_on(
    source: Source, function: Function, name: str, depth: int = 0
) -> Iterator[tuple[Function, str]]:
    """A function with its parameter, then those to which it gives the parameter as it is."""
    yield function, name
    if depth >= _DEEPEST:
        return
    for call in (n for n in ast.walk(function) if isinstance(n, ast.Call)):
        places = [i for i, a in enumerate(call.args) if isinstance(a, ast.Name) and a.id == name]
        named = [
            k.arg
            for k in call.keywords
            if k.arg and isinstance(k.value, ast.Name) and k.value.id == name
        ]
        if not places and not named:
            continue
        for callee, shift in callees(source, called_name(call)):
            taken = [p.arg for p in (*callee.args.posonlyargs, *callee.args.args)]
            given = [taken[i + shift] for i in places if i + shift < len(taken)]
            given += [n for n in named if n in taken]
            if callee is not function:
                for parameter in given:
                    yield from handed_on(source, callee, parameter, depth + 1)


def takes_apart(error: BaseException | None, batch: Batch) -> bool:
    """Whether an exception comes from code that takes a bare tensor of the batch for a container.

    Such code was written for what a loader gives: `x, _ = batch`.
    """
    if not isinstance(error, ValueError | IndexError | TypeError | AttributeError | KeyError):
        return False
    if (at := user_frame(error)) is None:
        return False
    frame, line = at
    given = {id(v) for v in (*batch.args, *batch.kwargs.values()) if isinstance(v, Tensor)}
    names = {n for n, v in frame.f_locals.items() if id(v) in given}
    try:
        tree = ast.parse(line)
    except SyntaxError:
        return False
    for node in ast.walk(tree):
        match node:
            case (
                ast.Assign(targets=[ast.Tuple()], value=ast.Name(id=found))
                | ast.Subscript(value=ast.Name(id=found), slice=ast.Constant(value=str()))
            ):
                if found in names:
                    return True
    return False
