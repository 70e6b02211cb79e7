"""Which files of a project define variational autoencoders, as far as their text says.

Nothing is imported or executed, so names have to do: what is found is a list to edit.
"""

from __future__ import annotations

import ast
import os
import re
import tokenize
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from .notebook import SUFFIX, read_notebook

MOST_FILES = 5000
MOST_BYTES = 1 << 20

_LEFT_OUT = frozenset("build dist node_modules site-packages venv env __pycache__".split())
_TEST = re.compile(r"test_.*|.*_test|conftest|setup")
_ROOTS = frozenset("Module LightningModule PyroModule".split())
_SAMPLES = re.compile(
    r"reparam|^rsample$|^randn_like$|^kl_|_kl$|^kld|log_?var|log_?sigma|codebook|quantiz", re.I
)
_PURPOSE = frozenset("forward encode training_step".split())


@dataclass(frozen=True, slots=True)
class Found:
    """A class that looks like one: its file relative to the scanned folder, and what it needs."""

    file: str
    name: str
    line: int
    required: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Class:
    file: str
    node: ast.ClassDef
    bases: frozenset[str]
    names: frozenset[str]
    calls: frozenset[str]
    methods: frozenset[str]
    called: bool


def scan(folder: Path) -> list[Found]:
    """The models below a folder, by file and line."""
    classes = [c for file in _files(folder) for c in _classes(folder, file)]
    by_name: dict[str, list[_Class]] = {}
    for one in classes:
        by_name.setdefault(one.node.name, []).append(one)
    modules = [c for c in classes if _is_module(c, by_name, set())]
    samplers = [c for c in modules if _samples(c, by_name, set())]
    parts = {n for c in samplers for n in c.calls - c.bases - {c.node.name}}
    found = [
        Found(c.file, c.node.name, c.node.lineno, () if c.called else _required(c, by_name))
        for c in samplers
        if c.node.name not in parts and _is_whole(c, by_name)
    ]
    return sorted(found, key=lambda f: (f.file, f.line))


def _files(folder: Path) -> Iterator[Path]:
    """Python files and notebooks that are no tests, outside of hidden and installed folders."""
    number = 0
    for here, below, names in os.walk(folder):
        below[:] = sorted(d for d in below if not _is_left_out(Path(here, d)))
        for name in sorted(names):
            file = Path(here, name)
            if (
                file.suffix not in (".py", SUFFIX)
                or _TEST.fullmatch(file.stem)
                or file.is_symlink()
            ):
                continue
            number += 1
            if number > MOST_FILES:
                return
            if file.stat().st_size <= MOST_BYTES:
                yield file


def _is_left_out(folder: Path) -> bool:
    name = folder.name
    return (
        name.startswith(".")
        or name in _LEFT_OUT
        or name in ("test", "tests")
        or (folder / "pyvenv.cfg").exists()
    )


def _classes(folder: Path, file: Path) -> Iterator[_Class]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of invalid escapes in the user's strings
            tree = ast.parse(_text(file))
    except (OSError, SyntaxError, ValueError, RecursionError):
        return
    called = frozenset(_called(tree))
    for node in tree.body:
        if isinstance(node, ast.ClassDef):
            yield _Class(
                file.relative_to(folder).as_posix(),
                node,
                bases=frozenset(_last(b) for b in node.bases),
                names=frozenset(_names(node)),
                calls=frozenset(_called(node)),
                methods=frozenset(m.name for m in _methods(node) if not _is_empty(m)),
                called=node.name in called,
            )


def _text(file: Path) -> str:
    if file.suffix == SUFFIX:
        return read_notebook(file).text
    with tokenize.open(file) as stream:
        return stream.read()


def _names(node: ast.AST) -> Iterator[str]:
    for inner in ast.walk(node):
        if isinstance(inner, ast.Name):
            yield inner.id
        elif isinstance(inner, ast.Attribute):
            yield inner.attr


def _called(node: ast.AST) -> Iterator[str]:
    return (_last(n.func) for n in ast.walk(node) if isinstance(n, ast.Call))


def _last(node: ast.expr) -> str:
    """`Module` of `torch.nn.Module`, `Base` of `Base[T]`."""
    if isinstance(node, ast.Subscript):
        return _last(node.value)
    return node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")


def _methods(node: ast.ClassDef) -> Iterator[ast.FunctionDef]:
    return (s for s in node.body if isinstance(s, ast.FunctionDef))


def _is_empty(method: ast.FunctionDef) -> bool:
    """Whether a method only says that a subclass has to write it."""
    abstract = any("abstract" in ast.unparse(d) for d in method.decorator_list)
    last = method.body[-1]
    return abstract or isinstance(last, ast.Pass) or ast.unparse(last).startswith("raise NotImpl")


def _above(one: _Class, by_name: dict[str, list[_Class]]) -> Iterator[_Class]:
    """The classes it inherits from: of several with one name, those of its own file."""
    for base in one.bases:
        same = by_name.get(base, [])
        yield from [c for c in same if c.file == one.file] or same


def _is_module(one: _Class, by_name: dict[str, list[_Class]], seen: set[int]) -> bool:
    if id(one) in seen:
        return False
    seen.add(id(one))
    if one.bases & _ROOTS:
        return True
    return any(_is_module(b, by_name, seen) for b in _above(one, by_name))


def _samples(one: _Class, by_name: dict[str, list[_Class]], seen: set[int]) -> bool:
    """Whether the class, what it inherits from or what it is made of speaks of sampling."""
    if id(one) in seen:
        return False
    seen.add(id(one))
    if any(_SAMPLES.search(name) for name in one.names):
        return True
    near = one.calls | one.bases
    return any(_samples(c, by_name, seen) for n in near for c in by_name.get(n, ()))


def _is_whole(one: _Class, by_name: dict[str, list[_Class]]) -> bool:
    if one.node.name.lower().endswith(("loss", "criterion", "objective")):
        return False
    return any(c.methods & _PURPOSE for c in _lineage(one, by_name))


def _lineage(one: _Class, by_name: dict[str, list[_Class]]) -> list[_Class]:
    """The class and all it inherits from, the nearest first."""
    found, pending = list[_Class](), [one]
    while pending:
        here = pending.pop(0)
        if all(here is not c for c in found):
            found.append(here)
            pending += _above(here, by_name)
    return found


def _required(one: _Class, by_name: dict[str, list[_Class]]) -> tuple[str, ...]:
    """The constructor arguments that have no default."""
    for owner in _lineage(one, by_name):
        for method in _methods(owner.node):
            if method.name == "__init__":
                return tuple(_without_default(method.args))
    return ()


def _without_default(args: ast.arguments) -> Iterable[str]:
    positional = [a.arg for a in (*args.posonlyargs, *args.args)][1:]
    given = len(positional) - len(args.defaults)
    yield from positional[: max(given, 0)]
    for arg, default in zip(args.kwonlyargs, args.kw_defaults, strict=True):
        if default is None:
            yield arg.arg
