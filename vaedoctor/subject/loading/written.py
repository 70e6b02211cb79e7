"""Modules that a notebook writes for itself: `%%writefile model.py`, `from model import VAE`."""

from __future__ import annotations

import ast
import linecache
import types
from importlib.abc import Loader
from importlib.machinery import ModuleSpec
from pathlib import Path

from ...notebook import Cell, read_notebook
from ..code.source import Source
from .slicing import execute_module

_MAGIC = ("%%writefile", "%%file")


class WrittenLoader(Loader):
    """Executes a cell as the module that it would write; nothing is written."""

    def __init__(self, notebook: Path, cell: Cell) -> None:
        self.path = Path(f"{notebook}:cell {cell.number}")
        self.text = "\n" + "".join(f"{line}\n" for line in cell.lines[1:])

    def spec(self, name: str) -> ModuleSpec:
        """The module's spec; its places are those of the cell."""
        return ModuleSpec(name, self, origin=str(self.path))

    def exec_module(self, module: types.ModuleType) -> None:
        """Run the cell without what trains, loads data or writes."""
        file = str(self.path)
        linecache.cache[file] = (len(self.text), None, self.text.splitlines(True), file)
        module.__file__ = file
        execute_module(Source(self.path, self.text, ast.parse(self.text, file)), module.__dict__)


def written_modules(notebook: Path) -> dict[str, WrittenLoader]:
    """The modules that the cells of a notebook write, by name."""
    found: dict[str, WrittenLoader] = {}
    for cell in read_notebook(notebook).cells:
        words = cell.lines[0].split()
        if words and words[0] in _MAGIC and words[-1].endswith(".py"):
            found[Path(words[-1]).stem] = WrittenLoader(notebook, cell)
    return found
