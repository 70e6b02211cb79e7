"""Which object of a loaded file a name means, and what to type when it means none."""

from __future__ import annotations

import ast
import re
import types
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from torch import nn

from ...spelling import closest, did_you_mean
from ..errors import TargetError, a_kind, summary, user_traceback
from .candidates import candidates, commands
from .lacking import unbound
from .loading import Loaded
from .stubs import Absent, distribution_of

_FACTORY = re.compile(r"make|build|create|construct|model|vae|net", re.IGNORECASE)


def only_candidate(loaded: Loaded, place: str, absent: Iterable[str] = ()) -> str:
    """The name of the one model a file offers; `TargetError` when there is none or several.

    `absent` are the libraries that stand-ins replace.
    """
    found = candidates(loaded)
    if len(found) == 1:
        held = _instances_of(loaded.namespace.get(found[0]), loaded) if loaded.whole else []
        return held[0] if len(held) == 1 else found[0]
    if not found:
        for failed in _failed_classes(loaded):
            raise unbound(failed, loaded, place) or AssertionError(failed)
        if (inside := _inside_a_function(loaded, place)) is not None:
            raise inside
        factories = _factories(loaded)
        reasons = [f"`{n}` is not installed" for n in absent]
        reasons += [n for n in loaded.source.notes if "not valid" in n] if loaded.source else []
        raise TargetError(
            "; ".join([f"`{place}` defines no `nn.Module`", *reasons]),
            next_step=commands(place, factories)
            or f"vaedoctor check {place}:make_model   (a function that returns one)",
        )
    raise TargetError(
        f"`{place}` holds {len(found)} models: which one?", next_step=commands(place, found)
    )


def _instances_of(kind: Any, loaded: Loaded) -> list[str]:
    """The names of what the file has made of a class, where all of it has run."""
    return [n for n, v in loaded.namespace.items() if isinstance(kind, type) and type(v) is kind]


def _factories(loaded: Loaded) -> list[str]:
    """Names of the file's functions that return what they make: perhaps a model."""
    body = loaded.source.tree.body if loaded.source is not None else []
    functions = [s for s in body if isinstance(s, ast.FunctionDef) and _FACTORY.search(s.name)]
    return [
        f.name for f in functions if any(isinstance(n, ast.Return) and n.value for n in ast.walk(f))
    ]


def _failed_classes(loaded: Loaded) -> Iterator[str]:
    """Names of classes that could not be defined, those with a model's base first."""
    failed = loaded.executed.failures.items()
    classes = [(n, f.stmt) for n, f in failed if isinstance(f.stmt, ast.ClassDef)]
    yield from sorted(
        (name for name, _ in classes),
        key=lambda n: (
            not any("Module" in ast.unparse(b) for m, s in classes if m == n for b in s.bases)
        ),
    )


def resolve(loaded: Loaded, name: str, place: str, *, modules_only: bool = True) -> Any:
    """The object a dotted name means; `TargetError` when there is none or it is no model."""
    thing: Any = loaded.module
    first = name.partition(".")[0]
    if not isinstance(loaded.namespace.get(first, Absent("")), Absent):
        pass
    elif (reason := unbound(first, loaded, f"{place}:{name}")) is not None:
        raise reason
    for part in name.split("."):
        if isinstance(thing, Mapping) and part in thing:
            thing = thing[part]
            continue
        try:
            thing = getattr(thing, part)
        except AttributeError as error:
            raise _no_name(loaded, thing, part, name, place) from error
        except Exception as error:  # a package that imports its parts when they are asked for
            raise _not_imported(name, place, error) from error
    if not modules_only or isinstance(thing, nn.Module):
        return thing
    found = candidates(loaded)
    if isinstance(thing, type):
        if issubclass(thing, nn.Module):
            return thing
        raise TargetError(
            f"`{name}` is a class, but not an `nn.Module`",
            next_step=commands(place, found) or f"let `{name}` inherit from `nn.Module`",
        )
    if callable(thing):
        return thing
    kind = "a module" if isinstance(thing, types.ModuleType) else a_kind(thing)
    raise TargetError(
        f"`{name}` is {kind}, not a model, class or factory",
        next_step=commands(place, found) or f"vaedoctor check {place}:VAE",
    )


def _not_imported(name: str, place: str, error: Exception) -> TargetError:
    chain: list[BaseException] = [error]
    while (cause := chain[-1].__cause__ or chain[-1].__context__) and cause not in chain:
        chain.append(cause)
    missing = [c.name for c in chain if isinstance(c, ModuleNotFoundError) and c.name]
    step = f'`python -c "from {place} import {name}"` shows the same error'
    if missing:
        package = distribution_of(missing[0].partition(".")[0])
        step = f"python -m pip install {package}   (into the environment vaedoctor runs in)"
    return TargetError(
        f"`{place}` raised {summary(chain[-1])} while `{name}` was taken from it",
        traceback=user_traceback(error),
        next_step=step,
    )


def _inside_a_function(loaded: Loaded, place: str, name: str = "") -> TargetError | None:
    """What to say of a class (without a name: of a module) that only a function's body defines."""
    body = loaded.source.tree.body if loaded.source is not None else []
    for function in (s for s in body if isinstance(s, ast.FunctionDef | ast.AsyncFunctionDef)):
        for node in ast.walk(function):
            if not isinstance(node, ast.ClassDef) or node.name != (name or node.name):
                continue
            if name or any("Module" in ast.unparse(b) for b in node.bases):
                assert loaded.source is not None
                return TargetError(
                    f"`{node.name}` is defined inside `{function.name}`, in "
                    f"{loaded.source.line(node.lineno)}: it is there only while that runs",
                    next_step=f"move `class {node.name}` out of `{function.name}`, "
                    f"then `vaedoctor check {place}:{node.name}`",
                )
    return None


def _no_name(loaded: Loaded, owner: Any, part: str, name: str, place: str) -> TargetError:
    if owner is loaded.module and (inside := _inside_a_function(loaded, place, part)) is not None:
        return inside
    found = candidates(loaded)
    known = list(found)
    if owner is not loaded.module:
        known = [k for k in dir(owner) if not k.startswith("_")]
    elif loaded.source is not None:
        known += [
            s.name
            for s in loaded.source.tree.body
            if isinstance(s, ast.FunctionDef | ast.ClassDef) and s.name not in known
        ]
    where = f"`{place}`" if owner is loaded.module else f"`{name.rpartition('.')[0]}`"
    close = closest(part, known)
    dotted = name.rpartition(".")[0]
    if close:
        step = f"vaedoctor check {place}:{f'{dotted}.' if dotted else ''}{close}"
        others = [f for f in found if f != close]
        step += f"\n{commands(place, others)}" if others and owner is loaded.module else ""
    else:
        step = commands(place, found) or f"vaedoctor check {place}"
    return TargetError(f"{where} has no `{part}`{did_you_mean(part, known)}", next_step=step)
