"""The packages a file is in, by which its relative imports mean something."""

from __future__ import annotations

import ast
import importlib.util
import re
import sys
import types
from pathlib import Path

from .surroundings import Surroundings


def package_of(path: Path, tree: ast.Module) -> list[str]:
    """The names of the packages a file is in: by `__init__.py`, or by its relative imports."""
    levels = max((n.level for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)), default=0)
    parts, folder = list[str](), path.parent
    while (folder / "__init__.py").is_file() or len(parts) < levels:
        if folder.parent == folder:
            break
        parts.insert(0, folder.name)
        folder = folder.parent
    return parts


def enter_packages(
    surroundings: Surroundings, path: Path, parts: list[str]
) -> tuple[str, list[str]]:
    """Import the packages around a file; what cannot be imported becomes a bare package.

    Returns the packages' dotted name and notes.
    """
    notes: list[str] = []
    name = ""
    surroundings.near.insert(1, path.parents[len(parts)] if parts else path.parent)
    for index, part in enumerate(parts):
        folder = path.parents[len(parts) - 1 - index]
        name = f"{name}.{part}" if name else re.sub(r"\W", "_", part)
        if name in sys.modules and hasattr(sys.modules[name], "__path__"):
            continue
        if (folder / "__init__.py").is_file() and part.isidentifier():
            try:
                surroundings.import_module(name)
                continue
            except KeyboardInterrupt:
                raise
            except BaseException as error:
                text = f"{type(error).__name__}: {error}"
                notes.append(f"`{folder.name}/__init__.py` raised {text}: left out")
        package = types.ModuleType(name)
        package.__path__ = [str(folder)]
        surroundings.made.add(name)
        sys.modules[name] = package
        if "." in name:
            setattr(sys.modules[name.rpartition(".")[0]], name.rpartition(".")[2], package)
    return name, notes


def past_its_packages(
    surroundings: Surroundings, name: str
) -> tuple[types.ModuleType, list[str]] | None:
    """A library's module without the packages around it that cannot be imported, and notes.

    None where no package is to blame: the module raises by itself, or is not there.
    """
    top, *inside = name.split(".")
    spec = importlib.util.find_spec(top)
    folders = list(spec.submodule_search_locations or ()) if spec is not None else []
    if not inside or not folders:
        return None
    _, notes = enter_packages(surroundings, Path(folders[0]).joinpath(*inside), [top, *inside[:-1]])
    if not notes:
        return None
    try:
        return surroundings.import_module(name), notes
    except KeyboardInterrupt:
        raise
    except BaseException:
        return None
