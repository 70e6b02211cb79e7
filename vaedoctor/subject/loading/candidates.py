"""Which models a file offers, judged from its syntax tree."""

from __future__ import annotations

import ast
import inspect
import re
from typing import Any

from torch import nn

from ..code.syntax import called_name, names_read, stripped
from .loading import Loaded

_DRAWS = re.compile(r"rand(n|_like|n_like)?|r_?sample|normal_?|gumbel_softmax|bernoulli_?")
_LOSSES = ("loss", "criterion", "objective")


def candidates(loaded: Loaded) -> list[str]:
    """The names of the models a file offers.

    Classes that are components of another candidate, abstract classes and losses are left out;
    the class the file's own code instantiates wins. Without a class, instances count.
    """
    own = {
        name: thing
        for name, thing in loaded.namespace.items()
        if isinstance(thing, type)
        and issubclass(thing, nn.Module)
        and thing.__module__ == loaded.module.__name__
        and thing.__name__ == name
    }
    if loaded.source is None:
        return list(own)
    trees = {
        node.name: node for node in ast.walk(loaded.source.tree) if isinstance(node, ast.ClassDef)
    }
    parts = {n for name in own if name in trees for n in _uses(trees[name], name)}
    whole = [n for n in own if n not in parts and not inspect.isabstract(own[n])] or list(own)
    runnable = [
        n
        for n in whole
        if own[n].forward is not nn.Module.forward and not (n in trees and _is_abstract(trees[n]))
    ] or whole
    kept = [n for n in runnable if not n.lower().endswith(_LOSSES)] or runnable
    if len(kept) > 1:
        built = [n for n in kept if n in _instantiated(loaded)]
        if len(built) == 1:
            return built
    return kept or _instances(loaded)


def sampling(loaded: Loaded) -> str:
    """Of several candidates the only one whose code draws noise; empty where that is no help.

    Beside a VAE a file may hold its adversary, or a classifier.
    """
    source = loaded.source
    if source is None:
        return ""
    defined = {s.name: s for s in source.tree.body if isinstance(s, ast.ClassDef | ast.FunctionDef)}
    drawing = []
    for name in candidates(loaded):
        reached, waiting = set[str](), {name}
        while waiting:
            one = waiting.pop()
            reached.add(one)
            waiting |= (names_read(defined[one]) & set(defined)) - reached
        calls = (n for d in reached for n in ast.walk(defined[d]) if isinstance(n, ast.Call))
        if any(_DRAWS.fullmatch(called_name(c)) for c in calls):
            drawing.append(name)
    return drawing[0] if len(drawing) == 1 else ""


def commands(place: str, names: list[str]) -> str:
    """One command for each name, to be typed as it stands."""
    return "\n".join(f"vaedoctor check {place}:{name}" for name in names[:12])


def _uses(tree: ast.ClassDef, name: str) -> set[str]:
    """The names a class mentions in its body: those it is made of (not those it inherits from)."""
    found: set[str] = set()
    copied: set[str] = set()
    for stmt in tree.body:
        found |= names_read(stmt)
    for node in ast.walk(tree):
        # `super(VAE, self)` in a class copied from VAE does not make VAE a part of it.
        if isinstance(node, ast.Call) and called_name(node) == "super":
            copied |= names_read(node)
    return found - {name} - copied


def _is_abstract(tree: ast.ClassDef) -> bool:
    """Whether a class has abstract methods or a forward that only says it is not implemented."""
    for stmt in tree.body:
        if isinstance(stmt, ast.FunctionDef):
            if any("abstractmethod" in ast.unparse(d) for d in stmt.decorator_list):
                return True
            last = stmt.body[-1]
            if stmt.name == "forward" and (
                isinstance(last, ast.Pass) or ast.unparse(last).startswith("raise NotImpl")
            ):
                return True
    return False


def _instantiated(loaded: Loaded) -> set[str]:
    """Classes of which the file binds an instance: `vae = VAE(...)`."""
    assert loaded.source is not None
    found: set[str] = set()
    for place in loaded.source.places:
        if place.in_class or not isinstance(place.stmt, ast.Assign):
            continue
        call = stripped(place.stmt.value)
        if isinstance(call, ast.Call):
            found.add(called_name(call))
    return found


def _instances(loaded: Loaded) -> list[str]:
    """Top-level names bound to a library's module; those that others are made of are left out."""
    assert loaded.source is not None
    found: dict[str, ast.expr] = {}
    for stmt in loaded.source.tree.body:
        match stmt:
            case ast.Assign(targets=[ast.Name(id=name)], value=value):
                call = stripped(value)
                if isinstance(call, ast.Call) and _is_model(loaded, call.func):
                    found[name] = call
    parts = set().union(*(names_read(v) for v in found.values()), set())
    return [n for n in found if n not in parts] or list(found)


def _is_model(loaded: Loaded, made_by: ast.expr) -> bool:
    """Whether a name or a dotted name means a module class, and no loss or activation."""
    path = ast.unparse(made_by).split(".")
    thing: Any = loaded.namespace.get(path[0])
    for part in path[1:]:
        thing = getattr(thing, part, None)
    known = isinstance(thing, type) and issubclass(thing, nn.Module)
    return known and (thing is nn.Sequential or not thing.__module__.startswith("torch.nn"))
