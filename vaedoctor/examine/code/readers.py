"""Which code reads an attribute: a model's own classes, their files, and the files around them."""

from __future__ import annotations

import ast
import contextlib
import functools
import itertools
import linecache
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from ...finding import Span
from .listing import Method, functions_in, methods_of, tree_of

_MOST_FILES, _LONGEST_FILE = 300, 1_000_000


@dataclass(frozen=True, slots=True)
class Read:
    """A place where code reads an attribute; `switched` says that an `if` decides about it."""

    method: Method
    line: int
    switched: bool

    @property
    def at(self) -> Span:
        """The line, as a place."""
        return Span(self.method.file, self.line)


def reads_of(owner: nn.Module, model: nn.Module, attribute: str) -> list[Read]:
    """Every place that may read an owner's `.<attribute>` after `__init__`.

    `self.<attribute>` counts in the owner's own class and its bases; any other
    `thing.<attribute>` counts anywhere in the files of the model's classes, or, where those do not
    read it, in the files beside them and of their package: a loss or a trainer may be there.
    """
    files = {m.file for k in {type(m) for m in model.modules()} for m in methods_of(k)}
    found = _reads_among(sorted(files), owner, attribute)
    return found or _reads_among(_around(frozenset(files), attribute), owner, attribute)


def _reads_among(files: Iterable[str], owner: nn.Module, attribute: str) -> list[Read]:
    found: list[Read] = []
    seen: set[tuple[str, tuple[int, int]]] = set()
    for file in files:
        for method in functions_in(file):
            mine = any(
                method.lines == m.lines and method.file == m.file for m in methods_of(type(owner))
            )
            if (method.file, method.lines) in seen or (method.name == "__init__" and mine):
                continue
            seen.add((method.file, method.lines))
            found.extend(_reads_in(method, attribute, mine=mine))
    return found


def clamped_in_place(model: nn.Module, parameter: Tensor) -> bool:
    """Whether code keeps a parameter positive after each step: `model.sigma.data.clamp_(1e-3)`.

    The files of the model's classes, and those around them, are read for the parameter's name.
    """
    paths = [path for path, known in model.named_parameters() if known is parameter]
    name = paths[0].rpartition(".")[2] if paths else ""
    files = frozenset(m.file for k in {type(m) for m in model.modules()} for m in methods_of(k))
    return bool(name) and any(
        _clamps(statement, name)
        for file in sorted({*files, *_around(files, name)})
        if f".{name}" in "".join(linecache.getlines(file))
        for statement in _statements(tree_of(file))
    )


def _statements(node: ast.AST) -> Iterator[ast.stmt]:
    """Every statement that is not of a constructor."""
    if isinstance(node, ast.FunctionDef) and node.name == "__init__":
        return
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.stmt):
            yield child
            yield from _statements(child)


def _clamps(statement: ast.stmt, attribute: str) -> bool:
    """Whether a statement writes an attribute's clamped value into it."""
    match statement:
        case ast.Expr(ast.Call(ast.Attribute(written, name))) if name.endswith("_"):
            pass
        case ast.Assign([ast.Attribute(written, "data")]):
            pass
        case _:
            return False
    if not any(isinstance(n, ast.Attribute) and n.attr == attribute for n in ast.walk(written)):
        return False
    return any(_bounds_below(n) for n in ast.walk(statement) if isinstance(n, ast.Call))


def _bounds_below(call: ast.Call) -> bool:
    """Whether a call is a clamp whose lower bound is not known to be zero or less."""
    match call.func:
        case ast.Attribute(ast.Name("torch"), "clamp" | "clip" | "clamp_min"):
            given = call.args[1:]
        case ast.Attribute(_, "clamp_" | "clip_" | "clamp_min_" | "clamp" | "clip" | "clamp_min"):
            given = call.args
        case _:
            return False
    least = next((k.value for k in call.keywords if k.arg == "min"), given[0] if given else None)
    match least:
        case None | ast.UnaryOp(ast.USub()):
            return False
        case ast.Constant(int() | float() as number):
            return number > 0
        case _:
            return True


@functools.cache
def _around(files: frozenset[str], attribute: str) -> tuple[str, ...]:
    """The files of the same folders, and of the packages these belong to, that name an attribute.

    At most 300 of them, in order, each at most a megabyte: a place this looks into may be large.
    """
    folders = set[Path]()
    for folder in {Path(file).parent for file in files}:
        top = folder
        while (top.parent / "__init__.py").is_file() and top.parent != top:
            top = top.parent
        folders.add(top if (top / "__init__.py").is_file() else folder)
    listed = itertools.chain.from_iterable(
        folder.rglob("*.py") if (folder / "__init__.py").is_file() else folder.glob("*.py")
        for folder in sorted(folders)
    )
    found = []
    for path in sorted(itertools.islice(listed, _MOST_FILES)):
        if str(path) in files:
            continue
        with contextlib.suppress(OSError):
            if path.stat().st_size <= _LONGEST_FILE and f".{attribute}" in path.read_text(
                encoding="utf-8", errors="replace"
            ):
                found.append(str(path))
    return tuple(found)


def _reads_in(method: Method, attribute: str, *, mine: bool) -> Iterator[Read]:
    first = method.node.args.args[0].arg if method.node.args.args else ""
    for node, switched in _with_switch(method.node, False):
        if isinstance(node, ast.Attribute) and node.attr == attribute:
            by_self = isinstance(node.value, ast.Name) and node.value.id == first == "self"
            if isinstance(node.ctx, ast.Load) and (mine or not by_self):
                yield Read(method, node.lineno, switched)
        elif isinstance(node, ast.Constant) and node.value == attribute:
            yield Read(method, node.lineno, switched)


def _with_switch(node: ast.AST, switched: bool) -> Iterator[tuple[ast.AST, bool]]:
    yield node, switched
    for name, value in ast.iter_fields(node):
        inside = switched or (isinstance(node, (ast.If, ast.IfExp)) and name in ("body", "orelse"))
        children: list[Any] = value if isinstance(value, list) else [value]
        for child in children:
            if isinstance(child, ast.AST):
                yield from _with_switch(child, inside)
            inside |= isinstance(child, ast.If) and isinstance(child.body[-1], ast.Return)


def leads_to(names: set[str], file: str) -> Iterator[Method]:
    """Every function of a file that names one of `names`, or a function that does."""
    known = set(names)
    waiting = list(functions_in(file))
    while found := [m for m in waiting if m.name in known or _mentions(m.node, known)]:
        yield from found
        known |= {m.name for m in found}
        waiting = [m for m in waiting if m not in found]


def _mentions(node: ast.AST, names: set[str]) -> bool:
    return any(
        (isinstance(n, ast.Attribute) and n.attr in names)
        or (isinstance(n, ast.Name) and n.id in names)
        for n in ast.walk(node)
    )


def goes_backward(method: Method) -> bool:
    """Whether a function calls `.backward()`."""
    return any(isinstance(n, ast.Attribute) and n.attr == "backward" for n in ast.walk(method.node))
