"""What may be called, and which operators are known, where a script is read and not run."""

from __future__ import annotations

import ast
import dataclasses
import math
import operator
import types
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

OPERATORS: dict[type[ast.AST], Callable[..., Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
    ast.MatMult: operator.matmul,
    ast.USub: operator.neg,
    ast.UAdd: operator.pos,
    ast.Not: operator.not_,
    ast.Invert: operator.invert,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Is: operator.is_,
    ast.IsNot: operator.is_not,
    ast.In: lambda a, b: a in b,
    ast.NotIn: lambda a, b: a not in b,
}
_PLAIN_CALLS = [
    "int",
    "float",
    "bool",
    "str",
    "len",
    "tuple",
    "list",
    "dict",
    "set",
    "range",
    "min",
    "max",
    "sum",
    "abs",
    "round",
    "sorted",
    "zip",
    "enumerate",
    "reversed",
    "pow",
    "divmod",
    "vars",
    "getattr",
]
TENSOR_CALLS = [
    "randn",
    "rand",
    "zeros",
    "ones",
    "full",
    "empty",
    "randint",
    "arange",
    "linspace",
    "eye",
    "tensor",
    "randperm",
    "bernoulli",
    "randn_like",
    "rand_like",
    "zeros_like",
    "ones_like",
    "normal",
]
MOVES = {"to", "cuda", "cpu", "train", "eval", "share_memory", "requires_grad_"}
_FORBIDDEN = ("torch.utils.data", "torch.optim", "torchvision.datasets", "torch.cuda")
LARGEST_POWER = 64


def forbidden(function: Any) -> bool:
    """Whether something is a loader, an optimizer, a data set: it reads data or keeps state."""
    module = getattr(function, "__module__", None) or ""
    name = getattr(function, "__name__", "")
    return module.startswith(_FORBIDDEN) or name.endswith(("Dataset", "Loader"))


def may_be_called(function: Any, namespace: Mapping[str, Any]) -> bool:
    """Whether calling something makes a value and does nothing else."""
    name = getattr(function, "__name__", "")
    module = getattr(function, "__module__", None) or ""
    if isinstance(function, type):
        return not forbidden(function) and (
            issubclass(function, nn.Module)
            or dataclasses.is_dataclass(function)
            or module == namespace.get("__name__")
            or function in (types.SimpleNamespace, torch.device, torch.Size)
            or name in {"Namespace", *_PLAIN_CALLS}
            or module.startswith("torch.distributions")
        )
    held = getattr(function, "__self__", None)
    if isinstance(held, Tensor | torch.Size | str | tuple | list | dict):
        return True
    return (
        (module == "builtins" and name in _PLAIN_CALLS)
        or getattr(math, name, None) is function
        or (getattr(torch, name, None) is function and name in TENSOR_CALLS)
        or name in {"one_hot", "prod", "is_available"}
    )
