"""Constructor arguments the user said: `--arg latent_dim=16`, or `args` in the configuration."""

from __future__ import annotations

import ast
import inspect
import types
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ...spelling import did_you_mean
from ..code.scope import Scope, Unknown
from ..code.signatures import annotations_of, name_of, signature_of, signature_text
from ..code.source import Source
from ..errors import TargetError
from .gaps import known
from .making import GAP, Typed
from .marks import documented
from .reading import uses_of

_TYPED = {"torch": torch, "nn": nn, "SimpleNamespace": types.SimpleNamespace}
_NOWHERE = Source(Path("<arg>"), "", ast.Module([], []))
_WORDS = {"true": True, "yes": True, "on": True, "1": True}
_WORDS |= {"false": False, "no": False, "off": False, "0": False}


def given_arguments(
    args: Mapping[str, str],
    thing: Callable[..., Any],
    namespace: Mapping[str, Any],
    source: Source | None,
    label: str,
) -> dict[str, Any]:
    """The values by parameter name; raises `TargetError` for a name the callable does not take."""
    if not args:
        return {}
    signature = signature_of(thing)
    hints = annotations_of(thing)
    spare = next((p.name for p in signature.parameters.values() if p.kind is p.VAR_KEYWORD), None)
    named = [p.name for p in signature.parameters.values() if p.kind is not p.VAR_KEYWORD]
    uses = uses_of(thing, namespace)
    found: dict[str, Any] = {}
    for name, text in args.items():
        if text.strip() == GAP:
            hint = hints.get(name, inspect.Parameter.empty)
            about = documented(thing, name) or known(hint, uses.get(name))
            raise TargetError(
                f"`--arg {name}={GAP}` is not filled in",
                next_step=f"put your own in the place of `{GAP}`" + (f": {about}" if about else ""),
            )
        if name in named:
            parameter = signature.parameters[name]
            hint = hints.get(name, parameter.annotation)
            value = _parsed(name, text, hint, parameter.default, namespace, source)
            use = uses.get(name)
            if type(value) is dict and use is not None and use.attributes and not use.keys:
                value = _with_attributes(value)
            found[name] = value
        elif spare is not None:
            value = _parsed(name, text, inspect.Parameter.empty, None, namespace, source)
            found.setdefault(spare, {})[name] = value
        else:
            raise TargetError(
                f"`{name_of(thing)}` has no argument `{name}`{did_you_mean(name, named)}",
                next_step=f"its signature is `{name_of(thing)}{signature_text(thing)}`"
                + (f"\nvaedoctor check {label}" if label else ""),
            )
    return found


def as_typed(args: Mapping[str, str], given: Mapping[str, Any]) -> dict[str, Typed]:
    """The arguments as they were typed, those of `**kwargs` among them."""
    spread = [v for v in given.values() if isinstance(v, dict)]
    values = {k: v for held in (*spread, given) for k, v in held.items()}
    return {name: Typed(text, values[name]) for name, text in args.items()}


def _with_attributes(value: Any) -> Any:
    """A dict for a constructor that reads attributes: `{"z": 3}` as an object with `.z`."""
    if type(value) is dict and all(isinstance(k, str) for k in value):
        return types.SimpleNamespace(**{k: _with_attributes(v) for k, v in value.items()})
    return value


def _parsed(
    name: str,
    text: str,
    annotation: Any,
    default: Any,
    namespace: Mapping[str, Any],
    source: Source | None,
) -> Any:
    wanted = annotation if annotation is not inspect.Parameter.empty else type(default)
    if wanted is str:
        return text
    if wanted is bool and text.lower() in _WORDS:
        return _WORDS[text.lower()]
    if wanted is torch.device:
        return torch.device(text.removeprefix("torch.device(").rstrip(")").strip("'\""))
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        value = _named_value(text, namespace, source)
    if wanted in (int, float) and isinstance(value, int | float) and not isinstance(value, bool):
        whole = wanted is float or float(value).is_integer()
        return wanted(value) if whole else value  # an annotation may be wrong: no reason to refuse
    if isinstance(value, tuple | list) and wanted in (list, tuple):
        return wanted(value)
    return value


def _named_value(text: str, namespace: Mapping[str, Any], source: Source | None) -> Any:
    """`nn.ReLU` or `Config()` said in a `--arg`; any other text is a string."""
    try:
        expr = ast.parse(text, mode="eval").body
        if isinstance(expr, ast.Name) and expr.id not in namespace:
            return text
        scope = Scope(source or _NOWHERE, {**_TYPED, **namespace}, None, 0)
        return scope.value(expr)
    except (SyntaxError, ValueError, Unknown):
        return text
