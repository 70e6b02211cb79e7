"""The optimizers that train the model, wherever the file builds them, and which parameters of it.

Only the first argument is evaluated, at the place where it stands: whose parameters they are does
not depend on a learning rate that a command line gives.
"""

from __future__ import annotations

import ast
import types
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import nn

from ...finding import Span
from ..code.source import Place, Source
from ..code.syntax import called_name, names_read, own_expressions, root_name
from ..script.aftermath import Aftermath
from ..script.holders import Holders, class_around
from ..script.setting import Setting
from .models import attached_optimizers

_KINDS = frozenset(n for n in vars(torch.optim) if n[:1].isupper() and n != "Optimizer")

_BACKWARD = frozenset({"backward", "manual_backward", "grad", "scale_and_backward"})

Found = tuple[tuple[torch.optim.Optimizer, ...], Span | None]


def optimizers_of(
    model: nn.Module, after: Aftermath, source: Source | None, namespace: Mapping[str, Any]
) -> Found:
    """All optimizers of the model and where the first is built; none where one cannot be told."""
    known = after.optimizers or attached_optimizers(model)
    if source is None:
        return known, after.optimizer_at
    at = after.optimizer_at
    kinds = frozenset(k.__name__ for k in type(model).__mro__ if k.__module__ != "builtins")
    kinds -= {"Module", "LightningModule", "ABC"}
    built = list(_built(source))
    inside = [call for place, call in built if _owner(place) in kinds]
    if known and at is None and inside:
        at = source.span(inside[0])
    if not built or (known and not after.optimizers):
        return known, at  # what a model keeps itself is all that it has
    seen = _function_at(source, at)
    own = {id(p) for p in model.parameters()}
    holders = Holders(source, kinds)
    more: list[torch.optim.Optimizer] = []
    for place, call in built:
        if _owner(place) in kinds or (after.optimizers and place.function is seen):
            continue
        held = _held(model, place, call, holders, namespace)
        if held is None:
            if _is_anothers(call, place, holders):
                continue
            return (), None  # it may own what the others do not
        if any(id(p) in own for group in held.param_groups for p in group["params"]):
            more.append(held)
            at = at or source.span(call)
    return (*known, *more), at


def backwards_in(source: Source | None) -> int:
    """At how many places a file goes backward from a loss; 0 where there is no file."""
    if source is None:
        return 0
    calls = (n for n in ast.walk(source.tree) if isinstance(n, ast.Call))
    return sum(called_name(c) in _BACKWARD for c in calls)


def _built(source: Source) -> Iterator[tuple[Place, ast.Call]]:
    """Every call of an optimizer's class that is given parameters."""
    for place in source.places:
        for node in own_expressions(place.stmt):
            if isinstance(node, ast.Call) and called_name(node) in _KINDS and _given(node):
                yield place, node


def _given(call: ast.Call) -> ast.expr | None:
    named = (k.value for k in call.keywords if k.arg in {"params", "parameters"})
    return call.args[0] if call.args else next(named, None)


def _owner(place: Place) -> str:
    owner = class_around(place)
    return owner.name if owner is not None else ""


def _held(
    model: nn.Module,
    place: Place,
    call: ast.Call,
    holders: Holders,
    namespace: Mapping[str, Any],
) -> torch.optim.Optimizer | None:
    """An optimizer of the same parameters; None where they cannot be told."""
    given, source, owner = _given(call), holders.source, class_around(place)
    assert given is not None
    names = next(holders.levels(place.function, owner), frozenset())
    frozen = types.MappingProxyType(dict(namespace))
    line = place.stmt.lineno
    setting = Setting(source, frozen, place.function, owner, line, names, holders)
    try:
        space = setting.space(model, names_read(given))
        code = compile(ast.Expression(given), str(source.path), "eval", dont_inherit=True)
        parameters = eval(code, space)
        return torch.optim.SGD(list(parameters), lr=1.0)
    except KeyboardInterrupt:
        raise
    except BaseException:  # the script's business
        return None


def _is_anothers(call: ast.Call, place: Place, holders: Holders) -> bool:
    """Whether the parameters are those of an instance of another class of the file."""
    given, owner = _given(call), class_around(place)
    assert given is not None
    if owner is not None and id(owner) not in holders.held and root_name(given) == "self":
        return True
    others = set(holders.others.get(id(None), ()))
    for home in (place.function, owner):
        others |= holders.others.get(id(home), set())
    called = given.func if isinstance(given, ast.Call) else given
    return isinstance(called, ast.Attribute) and (
        ast.unparse(called.value) in others or root_name(called) in others
    )


def _function_at(source: Source, at: Span | None) -> ast.AST | None:
    """The function of the file that holds a line; None for the top level."""
    if at is None:
        return None
    places = [p for p in source.places if p.stmt.lineno <= at.line <= (p.stmt.end_lineno or 0)]
    return max(places, key=lambda p: p.stmt.lineno).function if places else None
