"""A loss that is given and whose parameters nothing names: the usual orders, one after another."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from torch import Tensor, nn

from ..code.losses import wants_model
from ..code.roles import role, takes_all
from ..subject import Batch
from .recipes import Arguments, Recipe

Given = Callable[[nn.Module, Batch, Any], Any]


class _Thing(NamedTuple):
    """What may be given: `kind` is `model`, `output` (all of it), `part` of it, or `input`."""

    kind: str
    take: Given


def placed(parameters: list[inspect.Parameter], batch: Batch, output: Any) -> Iterator[Recipe]:
    """`(output, *batch)`, `(x, output)`, `(model, batch)` and their kin, where the names allow it.

    What is called like a part of the output takes no whole output, and the other way round; so a
    loss whose names say what it wants and that raises is not called in another way until it runs.
    """
    named = [p for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    required = [p for p in named if p.default is p.empty]
    spread = any(p.kind is p.VAR_POSITIONAL for p in parameters)
    for order in _orders(batch, output):
        enough = len(required) <= len(order)
        if not enough or (len(order) > len(named) and not spread):
            continue
        if all(_may_take(p, thing) for p, thing in zip(named, order, strict=False)):
            yield _recipe(named, order)


def _orders(batch: Batch, output: Any) -> Iterator[list[_Thing]]:
    model = _Thing("model", lambda m, b, out: m)
    several = isinstance(output, tuple | list)
    whole = _Thing("part" if isinstance(output, Tensor) else "output", lambda m, b, out: out)
    inputs = [_Thing("input", _input(i)) for i in range(len(batch.args) + len(batch.kwargs))]
    parts = [_Thing("part", _part(i)) for i in range(len(output) if several else 0)]
    fed = [inputs]
    if len(inputs) > 1:
        fed += [[_Thing("input", _batch)], inputs[:1]]
        yield [model, fed[1][0]]
        yield from ([model, one] for one in inputs)
    for given in fed:
        yield [whole, *given]
        yield [*given, whole]
        yield [model, whole, *given]
        yield [model, *given, whole]
        if parts:
            yield [*parts, *given]
            yield [*given, *parts]
    yield [whole]


def _may_take(p: inspect.Parameter, thing: _Thing) -> bool:
    """Whether a parameter's name wants nothing else; a single letter says little."""
    wanted = role(p.name)
    match thing.kind:
        case "model":
            return wants_model(p) or wanted is None or len(p.name) == 1
        case "output":
            return wanted is None or len(p.name) == 1 or takes_all(p.name)
        case "part":
            return wanted not in {"input", "label"}
    return wanted in {None, "input", "label"}


def _recipe(named: list[inspect.Parameter], order: list[_Thing]) -> Recipe:
    keywords = [p.name for p in named if p.kind is p.KEYWORD_ONLY]
    positional = len(named) - len(keywords)

    def arguments(model: nn.Module, batch: Batch, output: Any) -> Arguments:
        values = [thing.take(model, batch, output) for thing in order]
        if not keywords:
            return values, {}
        return values[:positional], dict(zip(keywords, values[positional:], strict=False))

    return Recipe(arguments, needs_output=any(t.kind in {"output", "part"} for t in order))


def _batch(model: nn.Module, batch: Batch, output: Any) -> Any:
    return dict(batch.kwargs) if not batch.args else (*batch.args, *batch.kwargs.values())


def _input(index: int) -> Given:
    return lambda m, b, out: (*b.args, *b.kwargs.values())[index]


def _part(index: int) -> Given:
    return lambda m, b, out: out[index]
