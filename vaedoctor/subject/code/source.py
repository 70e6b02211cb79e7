"""The user's file: its text and syntax tree, its places, and where things of it are defined."""

from __future__ import annotations

import ast
import inspect
import linecache
import os
import sysconfig
import tokenize
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import torch

from ...finding import Span
from ...notebook import NotebookError, is_notebook, place_in, read_notebook
from ..errors import OURS, TargetError
from .syntax import FUNCTIONS, Function, blocks, called_name

_FRAMEWORKS = {"torch", "lightning", "pytorch_lightning", "builtins", "abc", "typing"}
_INSTEAD: dict[Path, Source] = {}
_PACKAGES = ("site-packages", "dist-packages")
_FOREIGN = tuple(
    f"{os.path.realpath(folder)}{os.sep}"
    for folder in (sysconfig.get_path("stdlib"), Path(torch.__file__).parent)
)


@dataclass(frozen=True)
class Source:
    """One file: path, text and syntax tree. Read once and shared: the tree is not to be changed.

    `joined` names the class that the tree has and the text has not: see `joined.py`.
    """

    path: Path
    text: str = field(repr=False)
    tree: ast.Module = field(repr=False)
    notes: tuple[str, ...] = ()
    joined: str = ""

    def functions_around(self, function: Function | None) -> tuple[Function, ...]:
        """A function and those it is written in, the innermost first."""
        if function is None:
            return ()
        outer = (o for o in reversed(self._owners.get(id(function), ())) if o is not function)
        return (function, *(o for o in outer if not isinstance(o, ast.ClassDef)))

    @cached_property
    def _owners(self) -> dict[int, tuple[Function | ast.ClassDef, ...]]:
        """What functions are written in. Kept: it is asked for at every expression."""
        return {id(p.stmt): p.owners for p in self.places if isinstance(p.stmt, FUNCTIONS)}

    def line(self, number: int) -> str:
        """How a line is called: `line 12`, in a notebook `line 12 of cell 3`."""
        file, line = place_in(str(self.path), number)
        cell = file.removeprefix(str(self.path)).removeprefix(":")
        return f"line {line} of {cell}" if cell else f"line {line}"

    @cached_property
    def places(self) -> tuple[Place, ...]:
        """Every statement of the file with its surroundings, from top to bottom."""
        return tuple(_places(self.tree.body, ()))

    @cached_property
    def called(self) -> frozenset[str]:
        """The names of everything the file calls."""
        calls = (n for n in ast.walk(self.tree) if isinstance(n, ast.Call))
        return frozenset(called_name(c) for c in calls)

    def span(self, node: ast.stmt | ast.expr) -> Span:
        """The node's place, columns counted in characters from 1."""
        end_line = node.end_lineno or node.lineno
        return Span(
            str(self.path),
            node.lineno,
            self._column(node.lineno, node.col_offset),
            end_line,
            self._column(end_line, node.end_col_offset or 0),
        )

    def _column(self, line: int, offset: int) -> int:
        lines = self.text.splitlines()
        text = lines[line - 1] if line <= len(lines) else ""
        return len(text.encode()[:offset].decode(errors="ignore")) + 1


@dataclass(frozen=True, slots=True)
class Place:
    """A statement, the block it stands in, and the functions and classes around it."""

    stmt: ast.stmt
    block: tuple[ast.stmt, ...]
    index: int
    owners: tuple[Function | ast.ClassDef, ...] = ()

    @property
    def in_class(self) -> bool:
        """Whether a class body is around the statement."""
        return any(isinstance(o, ast.ClassDef) for o in self.owners)

    @property
    def function(self) -> Function | None:
        """The innermost function around the statement."""
        return next((o for o in reversed(self.owners) if not isinstance(o, ast.ClassDef)), None)


@contextmanager
def reading(source: Source | None) -> Iterator[None]:
    """Inside, this is what a file is read as."""
    if source is None:
        yield
        return
    _INSTEAD[source.path] = source
    try:
        yield
    finally:
        _INSTEAD.pop(source.path, None)


def read(path: Path) -> Source:
    """Read and parse a file; what Python cannot parse becomes a `TargetError`."""
    if path in _INSTEAD:
        return _INSTEAD[path]
    about = path.stat()
    return _read(path, about.st_mtime_ns, about.st_size)


@lru_cache(maxsize=32)
def _read(path: Path, changed: int, size: int) -> Source:
    """The file as it was at that time: one check-up asks for it a dozen times."""
    try:
        return parse(path)
    except SyntaxError as error:
        at = f"line {error.lineno} of " if error.lineno else ""
        where = f'  File "{path}", line {error.lineno}\n' if error.lineno else ""
        guilty = f"    {error.text.strip()}\n" if error.text else ""
        raise TargetError(
            f"`{path.name}` is not valid Python: {error.msg}"
            + (f" (line {error.lineno})" if error.lineno else ""),
            traceback=f"{where}{guilty}{type(error).__name__}: {error.msg}",
            next_step=f"correct {at}{path.name}, `python -m py_compile {path.name}` tries it",
        ) from None
    except NotebookError as error:
        raise TargetError(
            f"`{path.name}` cannot be read as a notebook: {error}",
            next_step=error.next_step,
        ) from None
    except (UnicodeDecodeError, ValueError) as error:
        raise TargetError(
            f"`{path.name}` is not a Python text file: {error}",
            next_step="save it as UTF-8, or name its encoding in line 1: # coding: latin-1",
        ) from None


def parse(path: Path) -> Source:
    """Read and parse a file or a notebook; raises what Python raises, or `NotebookError`."""
    if not is_notebook(path.name):
        with tokenize.open(path) as file:
            text = file.read()
        return Source(path, text, _tree(text, path))
    notebook = read_notebook(path)
    lines = notebook.text.splitlines(keepends=True)
    # `inspect` and tracebacks then read the Python text, not the JSON.
    linecache.cache[str(path)] = (len(notebook.text), None, lines, str(path))
    notes = [
        f"cell {c.number} is not valid Python (line {c.error.lineno}: {c.error.msg}): left out"
        for c in notebook.cells
        if c.error is not None
    ]
    return Source(path, notebook.text, _tree(notebook.text, path), tuple(notes))


def _tree(text: str, path: Path) -> ast.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # invalid escapes are for the user's own linter
        return ast.parse(text, filename=str(path))


def is_foreign(file: str) -> bool:
    """Whether a file is a library's, Python's or ours, or none at all, rather than the user's."""
    if file.startswith("<") or any(p in Path(file).parts for p in _PACKAGES):
        return True
    real = os.path.realpath(file)
    return real.startswith(_FOREIGN) or Path(real).is_relative_to(OURS)


def source_of(thing: Any) -> Source | None:
    """The file that defines a class or function, if it is the user's own and readable."""
    file = file_of(thing)
    if not file or is_foreign(file) or not Path(file).is_file():
        return None
    try:
        return read(Path(file))
    except (TargetError, OSError):
        return None


def is_library(kind: type) -> bool:
    """Whether a class is one of torch, Lightning or Python itself."""
    return kind.__module__.partition(".")[0] in _FRAMEWORKS


def file_of(thing: Any) -> str:
    """The file that defines a class or function; empty if none is known.

    A class is where its methods are: its module may be gone, or a notebook's `__main__`.
    """
    try:
        thing = inspect.unwrap(thing) if callable(thing) else thing
    except ValueError:
        return ""
    if isinstance(thing, type):
        for held in vars(thing).values():
            code = getattr(getattr(held, "__func__", held), "__code__", None)
            own = getattr(held, "__qualname__", "").startswith(f"{thing.__qualname__}.")
            if code is not None and own and not code.co_filename.startswith("<string>"):
                return str(code.co_filename)
    try:
        return inspect.getsourcefile(thing) or ""
    except (TypeError, OSError, ValueError):
        return ""


def span_of(thing: Any) -> Span | None:
    """The line on which a class or function is defined."""
    file = file_of(thing)
    node = _definition(thing, _definitions("".join(linecache.getlines(file)) if file else ""))
    if node is None:
        return None
    line = linecache.getline(file, node.lineno).rstrip()
    return Span(file, node.lineno, node.col_offset + 1, node.lineno, len(line) + 1)


@lru_cache(maxsize=16)
def _definitions(source: str) -> tuple[Function | ast.ClassDef, ...]:
    """The classes and functions that a text defines; none where it cannot be read."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):
        return ()
    return tuple(n for n in ast.walk(tree) if isinstance(n, (*FUNCTIONS, ast.ClassDef)))


def _definition(
    thing: Any, definitions: Iterable[Function | ast.ClassDef]
) -> Function | ast.ClassDef | None:
    """The statement that defines a class (the one that holds its methods) or a function."""
    named = [n for n in definitions if n.name == getattr(thing, "__name__", "")]
    held = vars(thing).values() if isinstance(thing, type) else [thing]
    codes = [getattr(getattr(f, "__func__", f), "__code__", None) for f in held]
    lines = [c.co_firstlineno for c in codes if c is not None]
    for node in named:
        first = min([node.lineno, *(d.lineno for d in node.decorator_list)])
        if any(first <= line <= (node.end_lineno or line) for line in lines):
            return node
    return named[-1] if named else None


def _places(block: list[ast.stmt], owners: tuple[Any, ...]) -> Iterator[Place]:
    listed = tuple(block)
    for index, stmt in enumerate(block):
        yield Place(stmt, listed, index, owners)
        inside = (*owners, stmt) if isinstance(stmt, (*FUNCTIONS, ast.ClassDef)) else owners
        for inner in blocks(stmt):
            yield from _places(inner, inside)


def function_tree(function: Any) -> Function | None:
    """The syntax tree of a function or method, if its source can be found."""
    function = inspect.unwrap(getattr(function, "__func__", function))
    code = getattr(function, "__code__", None)
    source = source_of(function)
    if code is None or source is None:
        return None
    for place in source.places:
        node = place.stmt
        if isinstance(node, FUNCTIONS) and node.name == code.co_name:
            lines = {node.lineno, *(d.lineno for d in node.decorator_list)}
            if code.co_firstlineno in lines:
                return node
    return None
