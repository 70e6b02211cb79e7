"""How a library itself makes a class: the calls in its modules, its docstrings and its README.

They are read, not run. They tell what no name and no use does: `enc=[["fc", 128, 1, "relu"]]`.
"""

from __future__ import annotations

import ast
import importlib
import importlib.metadata
import inspect
import re
import sys
import textwrap
import types
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..code.callees import constructor_of
from ..code.scope import Scope, Unknown
from ..code.signatures import signature_of
from ..code.source import Place, Source, file_of, is_foreign, parse
from ..code.syntax import called_name, own_expressions
from .bases import inheriting
from .templates import Template, told_arguments

Values = dict[str, Any]
_MOST_FILES = 1500
_MOST_CALLS = 12
_LARGEST_FILE = 1_000_000
_MOST_KIN = 40
_FENCE = re.compile(r"^[ \t]*(?:```|~~~)[ \t]*\{?\.?(\w*)")
_INDENTED = re.compile(r"(?:::|:|code(?:-block)?:: *python)[ \t]*\n[ \t]*\n((?:[ \t]+.*\n|\n)+)")
_PROMPTS = re.compile(r"^[ \t]*(?:>>>|\.\.\.) ?(.*)$", re.M)


@dataclass(frozen=True, slots=True)
class Told:
    """The arguments of one call, as far as they are told, and where it stands.

    It is not the class's `own` where a base of it is made, or another class below that.
    """

    values: Values
    at: str
    own: bool = True


def package_calls(thing: Any, invent: Callable[[str], Any]) -> list[Told]:
    """The calls of a class in its own library, those that tell most of it first."""
    found: list[Told] = []
    for source, names, at in _sources(thing):
        for place, call, kind in _calls(source, thing, names):
            template = Template(source, names, place, invent)
            known = signature_of(thing).parameters
            told = told_arguments(call, kind, template.value)
            told = {k: v for k, v in told.items() if k in known}
            where = f"line {call.lineno} of {at}" if at.endswith(".py") else at
            if told and all(told != other.values for other in found):
                found.append(Told(told, where, kind is thing))
        if len(found) >= _MOST_CALLS:
            break
    return sorted(found, key=lambda t: (not t.own, -len(t.values)))


def _sources(thing: Any) -> Iterator[tuple[Source, Mapping[str, Any], str]]:
    """Code that calls the class by its name, with what names mean there and what it is called."""
    module = _module_of(thing)
    if module is None or not isinstance(thing, type):
        return
    yield from _documents(thing, module)
    kinds = "|".join(re.escape(k.__name__) for k in _kin(thing))
    name = re.compile(rf"(?<!\w)(?<!class )(?<!def )({kinds})\s*\(")
    for path, at in _files(thing):
        text = ""
        with suppress(OSError, UnicodeDecodeError):
            text = path.read_text(encoding="utf-8") if path.stat().st_size < _LARGEST_FILE else ""
        if not name.search(text):
            continue
        with suppress(Exception):  # what Python cannot parse tells nothing
            source, dotted = parse(path), _dotted(path, module)
            if is_foreign(str(path)) and _calls_its_own(source):
                importlib.import_module(dotted)
            yield source, _names(source, dotted), at


def _calls_its_own(source: Source) -> bool:
    """Whether a file makes objects of classes that it defines: their code is needed for that."""
    own = {s.name for s in source.tree.body if isinstance(s, ast.ClassDef)}
    return bool(own & source.called)


def _files(thing: Any) -> Iterator[tuple[Path, str]]:
    """The modules of the class's package, the nearest first, with their paths inside it."""
    own = Path(file_of(thing) or "")
    top = sys.modules.get(str(thing.__module__).partition(".")[0])
    folders = [Path(p) for p in getattr(top, "__path__", ())]
    if not folders or not own.is_file():
        return
    folder = folders[0]
    near = [own, *sorted(p for p in own.parent.glob("*.py") if p != own)]
    others = (p for p in sorted(folder.rglob("*.py")) if p not in near)
    for count, path in enumerate((*near, *others)):
        if count >= _MOST_FILES:
            return
        with suppress(ValueError):
            yield path, str(path.relative_to(folder.parent))


def _documents(
    thing: Any, module: types.ModuleType | None
) -> Iterator[tuple[Source, Mapping[str, Any], str]]:
    """The code in the docstrings of a class and of its modules, then that in the README."""
    if module is None:
        return
    top = sys.modules.get(module.__name__.partition(".")[0])
    made = constructor_of(thing) if isinstance(thing, type) else None
    owners = (thing, made, getattr(thing, "forward", None), module, top)
    texts = [(inspect.cleandoc(getattr(o, "__doc__", None) or ""), "its docstring") for o in owners]
    texts.append((_readme(module.__name__.partition(".")[0]), "its README"))
    words = [f"{k.__name__}(" for k in _kin(thing)] if isinstance(thing, type) else []
    for text, at in texts:
        for block in _blocks(text) if any(w in text for w in words) else ():
            with suppress(SyntaxError, ValueError):
                source = Source(Path(f"<{at}>"), block, ast.parse(block))
                yield source, {**vars(module), **_names(source, "")}, at


def _blocks(text: str) -> Iterator[str]:
    """The code in a text: behind prompts, between fences, indented after a colon."""
    if prompts := _PROMPTS.findall(text):
        yield "\n".join(prompts) + "\n"
    yield from _fenced(text)
    for found in _INDENTED.findall(f"{text}\n"):
        yield textwrap.dedent(found)


def _fenced(text: str) -> Iterator[str]:
    inside: list[str] | None = None
    python = False
    for line in text.splitlines():
        fence = _FENCE.match(line)
        if fence is None:
            if inside is not None:
                inside.append(line)
        elif inside is None:
            inside, python = [], fence[1].lower() in {"", "python", "py", "python3", "pycon"}
        else:
            if python:
                yield textwrap.dedent("\n".join(inside)) + "\n"
            inside = None


def _readme(package: str) -> str:
    with suppress(Exception):  # metadata that cannot be read says nothing
        names = importlib.metadata.packages_distributions().get(package, [])
        if names:
            return str(importlib.metadata.metadata(names[0]).json.get("description", ""))
    return ""


def _module_of(thing: Any) -> types.ModuleType | None:
    return sys.modules.get(str(getattr(thing, "__module__", "")))


def _dotted(path: Path, module: types.ModuleType) -> str:
    """The name under which a file of the same library is imported."""
    top = sys.modules[module.__name__.partition(".")[0]]
    folder = Path(next(iter(top.__path__)))
    parts = [top.__name__, *path.relative_to(folder).with_suffix("").parts]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _names(source: Source, dotted: str) -> Mapping[str, Any]:
    """What the names of a file mean, as far as that is loaded: nothing is imported for it."""
    found: dict[str, Any] = {"__name__": dotted}
    for node in ast.walk(source.tree):
        match node:
            case ast.Import(names=names):
                for a in names:
                    name = a.name if a.asname else a.name.partition(".")[0]
                    if name in sys.modules:
                        found[a.asname or name] = sys.modules[name]
            case ast.ImportFrom(module=module, names=names, level=level):
                parts = dotted.split(".")
                base = [*parts[: len(parts) - level], *([module] if module else [])]
                held = sys.modules.get(".".join(base) if level else str(module))
                public = vars(held) if held is not None else {}
                for a in names:
                    if a.name == "*":
                        found |= public
                    elif a.name in public:
                        found[a.asname or a.name] = public[a.name]
    loaded = sys.modules.get(dotted)
    return found if loaded is None else found | vars(loaded)


def _calls(
    source: Source, thing: Any, names: Mapping[str, Any]
) -> Iterator[tuple[Place, ast.Call, type]]:
    """The calls of a class, or of its kin, in a file; not those of others of the same name."""
    kin = _kin(thing)
    called = {k.__name__ for k in kin}
    for place in source.places:
        for node in own_expressions(place.stmt):
            if not isinstance(node, ast.Call) or called_name(node) not in called:
                continue
            scope = Scope(source, names, place.function, place.stmt.lineno)
            meant: Any = None
            with suppress(Unknown):
                meant = scope.value(node.func)
            if meant in kin and (node.args or node.keywords):
                yield place, node, meant


def _kin(thing: type) -> list[type]:
    """A class, its own bases, and the classes below those: they share what they are made from."""
    package = thing.__module__.partition(".")[0]
    bases = [k for k in thing.__mro__ if k.__module__.partition(".")[0] == package]
    below = [k for base in bases for k in inheriting(base)]
    return list(dict.fromkeys([*bases, *below]))[:_MOST_KIN]
