"""The model of a script that has no class for it: the modules that its training loop joins.

Where a file builds `encoder = nn.Sequential(...)` and `decoder = Decoder(...)` and only its loop
says how one follows the other, both hang in one model whose forward pass is a step of that loop.
Which modules belong to it, the loop and its optimizers tell.
"""

from __future__ import annotations

import ast
import copy
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from itertools import islice
from typing import Any

import torch
from torch import nn

from ..code.source import Place, Source
from ..code.syntax import called_name, names_read, own_expressions, stripped
from ..errors import TargetError
from ..loading.candidates import sampling
from ..loading.loading import Loaded
from ..loading.resolving import only_candidate
from ..script.holders import Holders, callees, class_around
from ..script.names import one_by_one
from ..script.steps import Step, steps
from .aliases import Home, Part
from .hanging import hung

_NAMES = ("model", "vae", "net", "network", "autoencoder", "joined_model")
_OPTIMIZERS = frozenset(n for n in vars(torch.optim) if n[:1].isupper())
_NO_PARTS = ("torch.nn.modules.loss", "torch.nn.modules.activation", "torch.nn.modules.dropout")
_DEEPEST = 3

Optimized = Mapping[str, frozenset[str]]


def only_model(loaded: Loaded, place: str, absent: Iterable[str] = ()) -> tuple[str, Source | None]:
    """The one model of a file; where its loop joins several modules, the file with them as one.

    Raises `TargetError` as `only_candidate` does.
    """
    name = ""
    try:
        name = only_candidate(loaded, place, absent)
    except TargetError:
        together = joined(loaded)
        name = sampling(loaded) if together is None else ""
        if together is None and not name:
            raise
    else:
        together = joined(loaded, name)
    return (name, None) if together is None else (together.joined, together)


def joined(loaded: Loaded, alone: str = "") -> Source | None:
    """The file with the modules that one of its loops trains together in a class of their own.

    None where there are no two of them. `alone` is the one model class that the file has: it is
    a part where the loop joins several of its instances.
    """
    source, namespace = loaded.source, loaded.namespace
    if source is None or loaded.whole:
        return None
    for number, (_, parts) in enumerate(_built(source, namespace)):
        everything = _hung(source, namespace, number, set(parts))
        if everything is None:
            continue
        for chosen in _together(everything, parts):
            if not alone or sum(called_name(parts[n].call) == alone for n in chosen) > 1:
                return _hung(source, namespace, number, chosen)
    return None


def _hung(
    source: Source, namespace: Mapping[str, Any], number: int, chosen: set[str]
) -> Source | None:
    """The file with the chosen parts of one of its places in a class."""
    own = replace(source, tree=copy.deepcopy(source.tree))
    home, parts = next(islice(_built(own, namespace), number, None))
    used = {n.id for n in ast.walk(own.tree) if isinstance(n, ast.Name)}
    used |= {n.attr for n in ast.walk(own.tree) if isinstance(n, ast.Attribute)}
    used |= {n.arg for n in ast.walk(own.tree) if isinstance(n, ast.arg)}
    used |= set(namespace)
    modules = frozenset(n for n, thing in namespace.items() if _is_module(thing))
    for name in _NAMES:
        if name not in used:
            return hung(own, home, {n: p for n, p in parts.items() if n in chosen}, modules, name)
    return None


def _built(source: Source, namespace: Mapping[str, Any]) -> Iterator[tuple[Home, dict[str, Part]]]:
    """The modules and learned tensors that each function, class or the top level builds by name."""
    found: dict[int, tuple[Home, dict[str, Part]]] = {}
    again: set[tuple[int, str]] = set()
    for place in source.places:
        owner = class_around(place)
        if owner is not None and _is_module(namespace.get(owner.name)):
            continue
        for target, value in _assigned(place.stmt):
            if not (made := _made(value, source, namespace, 0)):
                continue
            home: Home = place.function
            if isinstance(target, ast.Attribute):
                if ast.unparse(target.value) != "self" or owner is None:
                    continue
                home = owner
            elif not isinstance(target, ast.Name) or owner is not None:
                continue
            parts = found.setdefault(id(home), (home, {}))[1]
            name = ast.unparse(target)
            if name in parts:
                again.add((id(home), name))
            parts[name] = Part(name, place, target, value, made)
    for home, parts in found.values():
        once = {n: p for n, p in parts.items() if (id(home), n) not in again}
        loose = {n for n, p in once.items() if p.several}
        loose &= {n for n in loose if any(_holds(p.value, {n}) for p in once.values())}
        once = {n: p for n, p in once.items() if n not in loose}  # `nn.Sequential(*layers)`
        holding = {n for n, p in once.items() if _holds(p.value, set(once) - {n})}
        once = {n: p for n, p in once.items() if n not in holding}
        if len(once) > 1 or any(p.several for p in once.values()):
            yield home, once


def _assigned(stmt: ast.stmt) -> Iterator[tuple[ast.expr, ast.expr]]:
    """The targets of an assignment, each with its value."""
    for one in one_by_one(stmt):
        match one:
            case ast.Assign(targets=[target], value=value):
                yield target, value
            case ast.AnnAssign(target=target, value=ast.expr() as value):
                yield target, value


def _made(value: ast.expr, source: Source, namespace: Mapping[str, Any], depth: int) -> str:
    """What an expression makes: a `module`, a `tensor` that is learned (or several), or nothing."""
    value = stripped(value)
    if isinstance(value, ast.Dict | ast.List):
        inside = value.values if isinstance(value, ast.Dict) else value.elts
        made = {_made(v, source, namespace, depth) for v in inside}
        return made.pop() if len(made) == 1 else ""
    if not isinstance(value, ast.Call):
        return ""
    told = {k.arg: ast.unparse(k.value) for k in value.keywords}
    if told.get("requires_grad") == "True" or called_name(value) == "requires_grad_":
        return "tensor" if "False" not in map(ast.unparse, value.args) else ""
    thing = _named(value.func, namespace)
    if thing is nn.Parameter:
        return "tensor"
    if isinstance(thing, type):
        return "module" if _is_module(thing) and thing.__module__ not in _NO_PARTS else ""
    if depth >= _DEEPEST or not isinstance(value.func, ast.Name):
        return ""
    for callee, _ in callees(source, value.func.id):
        known = {ast.unparse(t): v for s in callee.body for t, v in _assigned(s)}
        given = [n.value for n in ast.walk(callee) if isinstance(n, ast.Return) and n.value]
        kinds = {_made(known.get(ast.unparse(g), g), source, namespace, depth + 1) for g in given}
        if len(kinds) == 1:
            return kinds.pop()
    return ""


def _named(node: ast.expr, namespace: Mapping[str, Any]) -> Any:
    """What a dotted name means in the file."""
    match node:
        case ast.Name(id=name):
            return namespace.get(name)
        case ast.Attribute(value=held, attr=attr):
            with suppress(Exception):
                return getattr(_named(held, namespace), attr, None)
    return None


def _is_module(thing: Any) -> bool:
    return isinstance(thing, type) and issubclass(thing, nn.Module)


def _holds(value: ast.expr, names: set[str]) -> bool:
    """Whether a module is made of others as they are: `nn.ModuleList([trunk, head])`."""
    read_from = {id(n.value) for n in ast.walk(value) if isinstance(n, ast.Attribute)}
    return any(
        isinstance(n, ast.Name | ast.Attribute)
        and id(n) not in read_from
        and ast.unparse(n) in names
        for n in ast.walk(value)
    )


def _together(source: Source, parts: Mapping[str, Part]) -> Iterator[set[str]]:
    """The parts that a loop calls and its optimizers train, most of them first."""
    holders = Holders(source, frozenset({source.joined}))
    found: list[set[str]] = []
    optimized = _optimized(source)
    attributes = {p.attribute: n for n, p in parts.items()}
    for step, names in steps(source, holders):
        called = {attributes[a] for a in _attributes(source, holders, step, names)}
        here = _stepped_here(source, step, set(optimized))
        if here:
            own = set().union(*(optimized[o] for o in here))
            others = set().union(*(p for o, p in optimized.items() if o not in here), set()) - own
            called -= {attributes[a] for a in others if a in attributes}
        trained = set().union(*optimized.values(), set())
        called -= {n for n in called if parts[n].learned and parts[n].attribute not in trained}
        modules = [n for n in called if not parts[n].learned]
        several = len(modules or called) > 1 or any(parts[n].several for n in modules or called)
        if several:
            found.append(called)
    yield from sorted(found, key=len, reverse=True)


def _attributes(source: Source, holders: Holders, step: Step, names: frozenset[str]) -> set[str]:
    """The attributes of the model that a step reads, in functions that it calls as well."""
    found: set[str] = set()
    seen: set[int] = set()
    waiting: list[tuple[ast.AST, frozenset[str]]] = [
        (s, names) for s in (*step.above, *step.statements, ast.Expr(step.loss))
    ]
    while waiting:
        node, held = waiting.pop()
        for inner in ast.walk(node):
            if isinstance(inner, ast.Attribute) and ast.unparse(inner.value) in held:
                found.add(inner.attr)
            if isinstance(inner, ast.Call):
                for callee, _ in callees(source, called_name(inner)):
                    if id(callee) not in seen:
                        seen.add(id(callee))
                        place = next(p for p in source.places if p.stmt is callee)
                        waiting.append((callee, next(holders.levels(callee, class_around(place)))))
    own = next(s for s in source.tree.body if getattr(s, "name", "") == source.joined)
    known = {
        t.attr
        for s in ast.walk(own)
        if isinstance(s, ast.Assign)
        for t in s.targets
        if isinstance(t, ast.Attribute)
    }
    return found & known


def _optimized(source: Source) -> Optimized:
    """The parts of the model that each optimizer is given, by its name in the file."""
    found: dict[str, frozenset[str]] = {}
    for place in source.places:
        for target, value in _assigned(place.stmt):
            if isinstance(value, ast.Call) and called_name(value) in _OPTIMIZERS:
                given = [*value.args[:1], *(k.value for k in value.keywords if k.arg == "params")]
                read = set().union(*(_mentioned(source, g, place, set()) for g in given), set())
                found[ast.unparse(target)] = frozenset(read)
    return found


def _mentioned(source: Source, expr: ast.AST, at: Place, seen: set[str]) -> set[str]:
    """The attributes that an expression reads, and the names that it is made from."""
    found = {n.attr for n in ast.walk(expr) if isinstance(n, ast.Attribute)}
    for name in names_read(expr) - seen:
        seen.add(name)
        for place in source.places:
            if place.function is at.function and not isinstance(place.stmt, ast.ClassDef):
                for target, value in _assigned(place.stmt):
                    if ast.unparse(target) == name:
                        found |= _mentioned(source, value, at, seen)
                match place.stmt:
                    case ast.AugAssign(target=ast.Name(id=same), value=value) if same == name:
                        found |= _mentioned(source, value, at, seen)
    return found


def _stepped_here(source: Source, step: Step, known: set[str]) -> set[str]:
    """The optimizers that step after a backward pass, before the next one."""
    places = [p for p in source.places if p.stmt.lineno == step.line]
    found: set[str] = set()
    for place in places:
        for stmt in place.block[place.index + 1 :]:
            calls = [n for n in own_expressions(stmt) if isinstance(n, ast.Call)]
            if any(called_name(c) == "backward" for c in calls):
                break
            for call in (c for c in calls if called_name(c) == "step"):
                texts = [ast.unparse(a) for a in call.args]
                if isinstance(call.func, ast.Attribute):
                    texts.append(ast.unparse(call.func.value))
                found |= set(texts) & known
    return found
