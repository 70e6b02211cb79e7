"""`cuda` in a script, on a machine that has none: read as `cpu` while the model is built.

Device literals of the top level, of defaults and of `__init__` are replaced in the syntax tree, and
moves are ignored while the model is constructed. What `forward` spells out stays as it is: that is
for the examination to judge (VAE203).
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

_CUDA = re.compile(r"cuda(:\d*)?")
_IGNORED = {"cuda", "pin_memory"}


def is_missing() -> bool:
    """Whether this machine has no GPU that torch could use."""
    return not torch.cuda.is_available()


def read_as_cpu(tree: ast.Module) -> list[int]:
    """Replace the device literals of a file; returns the lines in which there were some."""
    reader = _Reader()
    reader.visit(tree)
    return sorted(set(reader.lines))


@contextmanager
def moves_ignored() -> Iterator[None]:
    """Inside, `.cuda()`, `.to("cuda")` and `device="cuda"` leave or make tensors on the CPU."""
    if not is_missing():
        yield
        return
    with _Ignoring():
        yield


def settled(model: nn.Module) -> nn.Module:
    """The model, whose attributes that say `cuda` say `cpu`, where there is no GPU."""
    for module in model.modules() if is_missing() else ():
        for name, value in vars(module).items():
            if isinstance(value, str) and _CUDA.fullmatch(value):
                setattr(module, name, "cpu")
            elif isinstance(value, torch.device) and value.type == "cuda":
                setattr(module, name, torch.device("cpu"))
    return model


class _Reader(ast.NodeTransformer):
    """Replaces device literals wherever they are not the forward pass."""

    def __init__(self) -> None:
        self.lines: list[int] = []
        self._runs_later = False

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        self.visit(node.args)
        before = self._runs_later
        self._runs_later = before or node.name != "__init__"
        node.body = [self.visit(s) for s in node.body]
        self._runs_later = before
        return node

    def visit_IfExp(self, node: ast.IfExp) -> ast.AST:
        """`"cuda" if torch.cuda.is_available() else "cpu"` is nothing to tell."""
        known = list(self.lines)
        replaced = self.generic_visit(node)
        self.lines = known
        return replaced

    def visit_Compare(self, node: ast.Compare) -> ast.AST:
        return node  # `if device == "cuda":` is no longer so

    def visit_Constant(self, node: ast.Constant) -> ast.AST:
        if isinstance(node.value, str) and _CUDA.fullmatch(node.value):
            return self._cpu(node)
        return node

    def visit_JoinedStr(self, node: ast.JoinedStr) -> ast.AST:
        first = node.values[0] if node.values else None
        if isinstance(first, ast.Constant) and _CUDA.fullmatch(str(first.value)):
            return self._cpu(node)
        return node

    def visit_BinOp(self, node: ast.BinOp) -> ast.AST:
        left = node.left.value if isinstance(node.left, ast.Constant) else None
        if isinstance(left, str) and re.fullmatch(r"cuda:(%[ds])?", left):
            return self._cpu(node)
        return self.generic_visit(node)

    def visit_Attribute(self, node: ast.Attribute) -> ast.AST:
        """`torch.cuda.FloatTensor` is `torch.FloatTensor`."""
        match node:
            case ast.Attribute(
                attr=attr, value=ast.Attribute(attr="cuda", value=ast.Name(id="torch") as torch_)
            ) if attr.endswith("Tensor") and not self._runs_later:
                self.lines.append(node.lineno)
                return ast.copy_location(ast.Attribute(torch_, attr, node.ctx), node)
        return self.generic_visit(node)

    def _cpu(self, node: ast.expr) -> ast.expr:
        if self._runs_later:
            return node
        self.lines.append(node.lineno)
        return ast.copy_location(ast.Constant("cpu"), node)


class _Ignoring(TorchFunctionMode):
    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        name = getattr(func, "__name__", "")
        if name in _IGNORED and args and isinstance(args[0], torch.Tensor):
            return args[0]
        args = tuple(torch.device("cpu") if _is_cuda(a) else a for a in args)
        if name == "type" and len(args) > 1 and isinstance(args[1], str):
            args = (args[0], args[1].replace("torch.cuda.", "torch."), *args[2:])
        if _is_cuda(kwargs.get("device")):
            kwargs["device"] = torch.device("cpu")
        return func(*args, **kwargs)


def _is_cuda(value: Any) -> bool:
    if isinstance(value, torch.device):
        return value.type == "cuda"
    return isinstance(value, str) and _CUDA.fullmatch(value) is not None
