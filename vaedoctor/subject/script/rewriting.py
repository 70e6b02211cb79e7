"""The statements of a training loop, rewritten so that they run on our batch and on one device."""

from __future__ import annotations

import ast
import copy
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ..code.syntax import called_name
from ..subject import Batch

ROWS = "__vaedoctor_rows__"
DRAWN = "__vaedoctor_drawn__"
_ARGUMENT = "__vaedoctor_argument_"


def on_batch(
    statements: Sequence[ast.stmt],
    entry: ast.Call,
    places: Collection[int | str],
    parts: Mapping[str, int | str],
    slices: Collection[str],
) -> ast.Module:
    """Copies of the statements with our batch in the place of what the loop makes on the spot.

    `places` are those of the arguments of the call `entry` that are ours, `parts` expressions such
    as `data[i : i + 32]` and the argument each stands for, `slices` what they have in brackets.
    """
    tree = ast.Module([copy.deepcopy(s) for s in statements], [])
    tree = _OnBatch(entry, places, parts, slices).visit(OnOneDevice().visit(tree))
    made: ast.Module = ast.fix_missing_locations(tree)
    return made


def argument(place: int | str) -> str:
    """The name under which our argument at a place stands in the rewritten statements."""
    return f"{_ARGUMENT}{place}__"


def is_argument(name: str) -> bool:
    """Whether a name is one that `argument` made up."""
    return name.startswith(_ARGUMENT)


def as_many(batch: Batch, value: Any, rows: Collection[int] | None = None) -> Any:
    """As many rows of what lies beside the batch, as labels do, as the batch has.

    Where `rows` are given, of what has so many.
    """
    x = next((a for a in batch.args if isinstance(a, Tensor) and a.dim()), None)
    if x is None or not isinstance(value, Tensor) or not value.dim() or not len(value):
        return value
    if rows is not None and len(value) not in rows:
        return value
    index = torch.arange(len(x), device=value.device) % len(value)
    return value if len(value) == len(x) else value[index]


class _OnBatch(ast.NodeTransformer):
    """Puts our batch in the place of what the loop makes for the model on the spot.

    `parts` are expressions such as `data[i : i + 32]`, which mean the same wherever they stand;
    `slices` what they have in brackets: `labels[i : i + 32]` has as many rows. So has what is drawn
    above the call, `target = torch.rand(8, 784)`.
    """

    def __init__(
        self,
        entry: ast.Call,
        places: Collection[int | str],
        parts: Mapping[str, int | str],
        slices: Collection[str],
    ) -> None:
        self.slices = slices
        self.at = (entry.lineno, entry.col_offset, entry.end_lineno, entry.end_col_offset)
        self.places = places
        self.parts = parts

    def visit_Subscript(self, node: ast.Subscript) -> ast.AST:
        place = self.parts.get(ast.unparse(node))
        if place is not None and isinstance(node.ctx, ast.Load):
            return ast.copy_location(ast.Name(argument(place), ast.Load()), node)
        beside = isinstance(node.ctx, ast.Load) and ast.unparse(node.slice) in self.slices
        inner = self.generic_visit(node)
        if not beside or not isinstance(inner, ast.Subscript):
            return inner
        return ast.copy_location(ast.Call(ast.Name(ROWS, ast.Load()), [inner], []), node)

    def visit_Call(self, node: ast.Call) -> ast.AST:
        at = (node.lineno, node.col_offset, node.end_lineno, node.end_col_offset)
        if at != self.at:
            inner = self.generic_visit(node)
            drawn = called_name(node).startswith("rand") and node.lineno < self.at[0]
            if drawn and isinstance(inner, ast.expr):
                return ast.copy_location(ast.Call(ast.Name(DRAWN, ast.Load()), [inner], []), node)
            return inner
        for place in self.places:
            ours = ast.Name(argument(place), ast.Load())
            if isinstance(place, int):
                node.args[place] = ours
            else:
                next(k for k in node.keywords if k.arg == place).value = ours
        return self.generic_visit(node)


class OnOneDevice(ast.NodeTransformer):
    """Leaves out moves to a device."""

    def visit_Call(self, node: ast.Call) -> ast.AST:
        """What is moved, in the place of the call that moves it."""
        if isinstance(node.func, ast.Attribute) and node.func.attr in {"cuda", "cpu", "to"}:
            asked = ast.unparse(node)
            if node.func.attr != "to" or "device" in asked or "cuda" in asked:
                inner: ast.AST = self.visit(node.func.value)
                return inner
        return self.generic_visit(node)
