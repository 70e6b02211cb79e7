"""Base classes, which are not made themselves: what they leave open, and the classes that fill it.

A class is a base where it is abstract, or where `forward`, or a method that `forward` or the
constructor calls, does nothing but raise `NotImplementedError`. The classes below it may stand in
modules that nobody has imported so far.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
import sys
from collections.abc import Iterable, Iterator, Set
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

from ...spelling import listed
from ..code.callees import tree_of
from ..code.source import file_of, is_foreign, is_library
from ..code.syntax import Function
from ..errors import TargetError

_MOST_READ = 200
_MOST_NAMED = 5
_ABSTRACT = frozenset({"NotImplementedError"})


def left_open(kind: type, asked: Iterable[str] = ()) -> set[str]:
    """The methods that a class leaves to those that inherit from it, of those `asked` too."""
    names = set(getattr(kind, "__abstractmethods__", ()))
    forward = _tree(kind, "forward")
    called = _own_calls(forward) if forward is not None else set()
    for owner in kind.__mro__:  # what its own constructor calls, or that of a class below it
        made = _tree(owner, "__init__") if "__init__" in vars(owner) else None
        called |= _own_calls(made) if made is not None else set()
    return names | {n for n in ("forward", *called, *asked) if _only_raises(_tree(kind, n))}


def only_raises(kind: type, name: str) -> bool:
    """Whether a method is there to say that it is not to be called."""
    return _only_raises(_tree(kind, name), _ABSTRACT | {"RuntimeError"})


def inheriting(kind: type) -> list[type]:
    """The classes that can be made among those that inherit from another."""
    below: dict[type, None] = {}
    children: list[type] = type.__subclasses__(kind)
    for child in children:
        below |= dict.fromkeys([child, *inheriting(child)])
    return [k for k in below if not inspect.isabstract(k)]


def makable(kind: type, asked: Iterable[str] = ()) -> list[type]:
    """The classes that may stand for one: itself, unless it is a base of others that are whole.

    `asked` are methods that are called.
    """
    asked = tuple(asked)
    if not left_open(kind, asked):
        return [kind]
    found = [k for k in inheriting(kind) if not left_open(k, asked)]
    package = kind.__module__.partition(".")[0]
    for place in dict.fromkeys((kind.__module__.rpartition(".")[0], package)):
        if not found and is_foreign(file_of(kind)):
            _import_beside(kind, place)
            found = [k for k in inheriting(kind) if not left_open(k, asked)]
    return found or ([] if inspect.isabstract(kind) else [kind])


def fitting_first(kinds: Iterable[type], called: int | None) -> list[type]:
    """Classes of parts, those first whose `forward` takes as many arguments as the model gives."""
    return sorted(kinds, key=lambda k: called is not None and not _takes(k, called))


def _takes(kind: type, count: int) -> bool:
    try:
        inspect.signature(kind.forward).bind(*range(count + 1))  # type: ignore[attr-defined]
    except (AttributeError, TypeError, ValueError):
        return False
    return True


def meant_below(kind: object, label: str) -> TargetError | None:
    """What is said of a base class as the target, where other classes inherit from it."""
    names = left_open(kind) if isinstance(kind, type) else set()
    if not isinstance(kind, type) or not (inspect.isabstract(kind) or "forward" in names):
        return None
    below = [k for k in makable(kind) if k is not kind]
    if not below:
        return None
    methods = listed([f"`{n}`" for n in sorted(names)])
    commands = [f"vaedoctor check {_place(k, label)}" for k in below[:_MOST_NAMED]]
    more = ["..."] if len(below) > _MOST_NAMED else []
    return TargetError(
        f"`{kind.__name__}` is a base class: it leaves {methods} to the classes that inherit "
        f"from it, {listed([f'`{k.__name__}`' for k in below[:_MOST_NAMED]] + more)}",
        next_step="\n".join(commands),
    )


def _place(kind: type, label: str) -> str:
    """A class as a target: beside the one that was asked for, or where it is defined."""
    place = label.rpartition(":")[0]
    module = sys.modules.get(place)
    beside = getattr(module, kind.__name__, None) is kind if module is not None else bool(place)
    return f"{place if beside else kind.__module__}:{kind.__name__}"


def _tree(kind: type, name: str) -> Function | None:
    """The method that runs, as it is written; None for one of a framework's own."""
    owner = next((k for k in kind.__mro__ if name in vars(k)), None)
    return None if owner is None or is_library(owner) else tree_of(vars(owner)[name])


def _only_raises(tree: Function | None, kinds: Set[str] = _ABSTRACT) -> bool:
    body = tree.body if tree is not None else []
    if body and isinstance(body[0], ast.Expr) and isinstance(body[0].value, ast.Constant):
        body = body[1:]
    match body:
        case [ast.Raise(exc=ast.Name(id=name) | ast.Call(func=ast.Name(id=name)))]:
            return name in kinds
    return False


def _own_calls(tree: Function) -> set[str]:
    """The methods of its own that a method calls."""
    found = set()
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=ast.Attribute(value=ast.Name(id="self"), attr=name)):
                found.add(name)
    return found


def _import_beside(kind: type, place: str) -> None:
    """Import the modules of a package that name the class."""
    for name in _beside(place):
        spec = None
        with suppress(Exception):
            spec = find_spec(name)
        if spec is None or name in sys.modules or not spec.origin:
            continue
        text = ""
        with suppress(OSError, UnicodeDecodeError):
            text = Path(spec.origin).read_text(encoding="utf-8")
        if kind.__name__ in text:
            with suppress(Exception):
                importlib.import_module(name)


def _beside(place: str) -> Iterator[str]:
    """The modules of a package."""
    package = sys.modules.get(place)
    paths = getattr(package, "__path__", None)
    if package is None or paths is None:
        return
    walked = pkgutil.walk_packages(paths, f"{package.__name__}.", onerror=lambda _: None)
    for count, one in enumerate(walked):
        if count >= _MOST_READ:
            return
        yield one.name
