"""What a class, function or method takes."""

from __future__ import annotations

import ast
import inspect
import itertools
import re
import sys
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import Any

from .callees import constructor_of, is_from_torch, tree_of


def signature_of(thing: Callable[..., Any]) -> inspect.Signature:
    """The signature, or an empty one where Python cannot tell.

    A class that hands its `**kwargs` on to a base class takes what that takes, by name.
    """
    try:
        signature = _constructors(thing) if is_hidden(thing) else inspect.signature(thing)
    except (TypeError, ValueError):
        return inspect.Signature()
    own = list(signature.parameters.values())
    if not own or own[-1].kind is not inspect.Parameter.VAR_KEYWORD:
        return signature
    inherited = _handed_on(thing, set(signature.parameters))
    return signature.replace(parameters=[*own[:-1], *inherited, own[-1]])


def is_hidden(thing: Any) -> bool:
    """Whether a metaclass that takes anything stands before the constructor of a class."""
    called = type(thing).__call__ if isinstance(thing, type) else None
    if not isinstance(called, types.FunctionType) or constructor_of(thing) is None:
        return False
    spread = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    _, *taken = inspect.signature(called).parameters.values()
    return all(p.kind in spread for p in taken)


def _constructors(kind: Any) -> inspect.Signature:
    """The signature of a constructor, without `self`."""
    signature = inspect.signature(constructor_of(kind))
    return signature.replace(parameters=list(signature.parameters.values())[1:])


def _handed_on(thing: Any, taken: set[str]) -> Iterator[inspect.Parameter]:
    """The parameters that a constructor's `**kwargs` stand for, keyword-only."""
    for function, call in _chain(thing):
        parameters = list(inspect.signature(function).parameters.values())[1:]
        by_position = [a for a in call.args if not isinstance(a, ast.Starred)]
        given = {k.arg for k in call.keywords} | {p.name for p in parameters[: len(by_position)]}
        for p in parameters:
            spread = p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD, p.POSITIONAL_ONLY)
            if not spread and p.name not in taken | given:
                yield p.replace(kind=p.KEYWORD_ONLY)
        taken = taken | {p.name for p in parameters} | {str(g) for g in given}


def _chain(thing: Any) -> Iterator[tuple[types.FunctionType, ast.Call]]:
    """The constructors of base classes that `**kwargs` reach, and the calls that hand them on."""
    plain = (isinstance(thing, type) and type(thing).__call__ is type.__call__) or is_hidden(thing)
    order = thing.__mro__ if plain else ()
    made = [f for k in order if isinstance(f := vars(k).get("__init__"), types.FunctionType)]
    for function, following in itertools.pairwise(made):
        call = _passes_all(function)
        if call is None or is_from_torch(following):
            return
        yield following, call


def _passes_all(function: types.FunctionType) -> ast.Call | None:
    """`super().__init__(..., **kwargs)` in a constructor that takes `**kwargs`."""
    tree = tree_of(function)
    if tree is None or tree.args.kwarg is None:
        return None
    for node in ast.walk(tree):
        match node:
            case ast.Call(
                func=ast.Attribute(value=ast.Call(func=ast.Name(id="super")), attr="__init__")
            ):
                spread = [k.value for k in node.keywords if k.arg is None]
                if any(isinstance(v, ast.Name) and v.id == tree.args.kwarg.arg for v in spread):
                    return node
    return None


def signature_text(thing: Callable[..., Any]) -> str:
    """`(input_dim, latent_dim=16)`, shortened to one line."""
    text = re.sub(r"<(?:built-in )?function (\w+)[^>]*>", r"\1", str(signature_of(thing)))
    return text if len(text) <= 200 else text[:197] + "..."


def by_name(thing: Callable[..., Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments by the names that a call says, those of `**kwargs` among them."""
    parameters = signature_of(thing).parameters
    found: dict[str, Any] = {}
    for name, value in values.items():
        spare = name in parameters and parameters[name].kind is inspect.Parameter.VAR_KEYWORD
        found |= value if spare and isinstance(value, dict) else {name: value}
    return found


def required(signature: inspect.Signature) -> list[inspect.Parameter]:
    """The parameters that must be given."""
    return [
        p
        for p in signature.parameters.values()
        if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
    ]


def defaults_of(thing: Callable[..., Any]) -> dict[str, Any]:
    """The parameters' default values by name."""
    parameters = signature_of(thing).parameters.values()
    return {p.name: p.default for p in parameters if p.default is not p.empty}


def annotations_of(thing: Callable[..., Any]) -> dict[str, Any]:
    """The annotations, evaluated where that is possible."""
    if not isinstance(thing, type):
        return _hints(thing)
    bases: dict[str, Any] = {}
    for function, _ in _chain(thing):
        bases = _hints(function) | bases
    return bases | _hints(constructor_of(thing))


def hint_of(thing: Any, parameter: inspect.Parameter, hints: Mapping[str, Any]) -> Any:
    """A parameter's annotation, or the narrower class that a class names for it: `config_class`."""
    hint = hints.get(parameter.name, parameter.annotation)
    if hint is Any or inspect.isroutine(hint):  # `encoder: any` asks for nothing
        hint = inspect.Parameter.empty
    named = getattr(thing, f"{parameter.name}_class", None)
    if not isinstance(named, type):
        return hint
    return named if not isinstance(hint, type) or issubclass(named, hint) else hint


def _hints(function: Any) -> dict[str, Any]:
    try:
        return typing.get_type_hints(function)
    except Exception:  # a name that only a type checker imports: the others say something still
        return _hints_one_by_one(function)


def _hints_one_by_one(function: Any) -> dict[str, Any]:
    found = {}
    names = getattr(inspect.unwrap(function) if callable(function) else function, "__globals__", {})
    known = _Classes(names)
    for name, hint in getattr(function, "__annotations__", {}).items():
        with suppress(Exception):
            found[name] = eval(hint, {}, known) if isinstance(hint, str) else hint
    return found


class _Classes(dict[str, Any]):
    """The names of a module, and the classes of its package that only a type checker imports."""

    def __missing__(self, name: str) -> type:
        package = str(self.get("__name__", "")).partition(".")[0]
        for module in [m for n, m in sys.modules.items() if n.partition(".")[0] == package]:
            kind = vars(module).get(name)
            if isinstance(kind, type):
                return kind
        raise KeyError(name)


def name_of(thing: Any) -> str:
    """The name of a class or function, or that of an object's class."""
    return str(getattr(thing, "__name__", type(thing).__name__))
