"""`cuda` in a script is read as `cpu`: a model that is loaded is examined on the CPU.

A script builds the model here, moves it there and makes noise in a third place; on the CPU, which
every machine has, all of it is in one place. So the GPU is hidden while a target loads and is
examined, unless the whole file runs (`--exec`), which may need it.
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
from torch.utils.weak import WeakIdKeyDictionary

_DEVICE = re.compile(r"(cuda|mps|xpu)(:\d*)?")
_TYPES = ("cuda", "mps", "xpu")
_IGNORED = {"cuda", "xpu", "pin_memory"}


_MOVED: WeakIdKeyDictionary = WeakIdKeyDictionary()
_ASKED = [
    (torch.cuda, "is_available", False),
    (torch.cuda, "device_count", 0),
    (torch.backends.mps, "is_available", False),
    (torch.xpu, "is_available", False),
    (getattr(torch, "accelerator", None), "is_available", False),  # torch 2.6 and later
    (getattr(torch, "accelerator", None), "current_accelerator", None),
]
_GENUINE = [(owner, name, getattr(owner, name)) for owner, name, _ in _ASKED if owner is not None]


@contextmanager
def hidden() -> Iterator[None]:
    """Inside, torch says that there is no accelerator."""
    nothing = [(o, n, lambda *_, answer=answer: answer) for o, n, answer in _ASKED if o is not None]
    with answering(nothing):
        yield


@contextmanager
def visible() -> Iterator[None]:
    """Inside `hidden`, the accelerator for once."""
    with answering(_GENUINE):
        yield


@contextmanager
def answering(answers: list[tuple[Any, str, Any]]) -> Iterator[None]:
    """Give attributes (owner, name, value) other values inside; they are put back."""
    before = [(owner, name, getattr(owner, name)) for owner, name, _ in answers]
    try:
        for owner, name, answer in answers:
            setattr(owner, name, answer)
        yield
    finally:
        for owner, name, answer in before:
            setattr(owner, name, answer)


def is_missing() -> bool:
    """Whether there is no GPU, or it is hidden."""
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


def was_moved(tensor: torch.Tensor) -> bool:
    """Whether the user's code asked for a tensor to be on an accelerator, to no effect."""
    return tensor in _MOVED


def settled(model: nn.Module) -> nn.Module:
    """The model, whose attributes that say `cuda` say `cpu`, where there is no GPU."""
    for module in model.modules() if is_missing() else ():
        for name, value in vars(module).items():
            if isinstance(value, str) and _DEVICE.fullmatch(value):
                setattr(module, name, "cpu")
            elif isinstance(value, torch.device) and value.type in _TYPES:
                setattr(module, name, torch.device("cpu"))
    return model


def is_default(tree: ast.AST) -> bool:
    """Whether code makes new tensors on the accelerator: `torch.set_default_device(device)`."""
    for node in ast.walk(tree):
        match node:
            case ast.Call(ast.Attribute(attr="set_default_device"), [asked, *_]):
                if ast.unparse(asked).strip("'\"") not in {"cpu", "torch.device('cpu')"}:
                    return True
            case ast.Call(ast.Attribute(attr="set_default_tensor_type"), [kind, *_]):
                if "cuda" in ast.unparse(kind):
                    return True
    return False


def is_named(text: str) -> bool:
    """Whether code says anything of a device."""
    return any(word in text for word in ("device", "cuda", "mps", "accelerat", "fabric"))


def mark_moved(tensor: torch.Tensor) -> None:
    """Take a tensor for one that the user's script has on the model's device."""
    _MOVED[tensor] = "to"


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
        if isinstance(node.value, str) and _DEVICE.fullmatch(node.value):
            return self._cpu(node)
        return node

    def visit_JoinedStr(self, node: ast.JoinedStr) -> ast.AST:
        first = node.values[0] if node.values else None
        if isinstance(first, ast.Constant) and _DEVICE.fullmatch(str(first.value)):
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
            _MOVED[args[0]] = name
            return args[0]
        asked = any(map(_is_cuda, (*args, kwargs.get("device"))))
        args = tuple(torch.device("cpu") if _is_cuda(a) else a for a in args)
        if name == "type" and len(args) > 1 and isinstance(args[1], str):
            args = (args[0], args[1].replace("torch.cuda.", "torch."), *args[2:])
        if _is_cuda(kwargs.get("device")):
            kwargs["device"] = torch.device("cpu")
        out = func(*args, **kwargs)
        if asked and isinstance(out, torch.Tensor):
            _MOVED[out] = name
        return out


def _is_cuda(value: Any) -> bool:
    if isinstance(value, torch.device):
        return value.type in _TYPES
    return isinstance(value, str) and _DEVICE.fullmatch(value) is not None
