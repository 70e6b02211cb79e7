"""What `from fastai.vision.all import *` would have brought, where the library is not there."""

from __future__ import annotations

import ast
import builtins
import importlib
import sys
import typing
from typing import Any

from ..code.source import Source
from .stubs import Absent, StubModule

# Collections of everything hand on what everybody imports under these names.
_USUAL = {
    "torch": "torch",
    "nn": "torch.nn",
    "F": "torch.nn.functional",
    "optim": "torch.optim",
    "Tensor": "torch:Tensor",
    "Module": "torch.nn:Module",
    "np": "numpy",
    "math": "math",
    "os": "os",
    "random": "random",
    "partial": "functools:partial",
    "reduce": "functools:reduce",
    "Path": "pathlib:Path",
}
_SHOWN = 3


def supply(stmt: ast.stmt, source: Source, namespace: dict[str, Any]) -> str | None:
    """Bind what a star import of a missing library leaves unbound; a note for the report.

    Names that mean the same everywhere are what they mean; all others are absent until needed.
    """
    if not isinstance(stmt, ast.ImportFrom) or stmt.names[0].name != "*" or not stmt.module:
        return None
    if not isinstance(sys.modules.get(stmt.module), StubModule):
        return None
    usual = []
    for name in sorted(_unbound(source.tree) - set(namespace)):
        value = _usual(name)
        if value is None:
            namespace[name] = Absent(f"{stmt.module}.{name}")
        else:
            namespace[name] = value
            usual.append(f"`{name}`")
    if not usual:
        return None
    more = f" and {len(usual) - _SHOWN} more" if len(usual) > _SHOWN else ""
    shown = ", ".join(usual[:_SHOWN])
    where = source.line(stmt.lineno)
    return f"{shown}{more} of `{ast.unparse(stmt)}` in {where}: taken for the usual ones"


def _usual(name: str) -> Any:
    if name in _USUAL:
        module, _, attribute = _USUAL[name].partition(":")
        try:
            found = importlib.import_module(module)
        except ImportError:
            return None
        return getattr(found, attribute) if attribute else found
    return getattr(typing, name, None) if name in typing.__all__ else None


def _unbound(tree: ast.Module) -> set[str]:
    """Names that a file reads and binds nowhere."""
    read: set[str] = set()
    bound: set[str] = set(dir(builtins))
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            (read if isinstance(node.ctx, ast.Load) else bound).add(node.id)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            bound.add(node.name)
        elif isinstance(node, ast.arg):
            bound.add(node.arg)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            bound |= {(a.asname or a.name).partition(".")[0] for a in node.names}
        elif isinstance(node, ast.ExceptHandler) and node.name:
            bound.add(node.name)
    return read - bound
