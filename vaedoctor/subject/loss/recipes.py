"""How a loss is called: what it is bound to, and the recipe that makes its arguments."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from ..code.losses import Loss, parameters_of
from ..code.source import function_tree
from ..code.syntax import called_name
from ..errors import TargetError, summary
from ..subject import LOADED, Batch
from ..trials.trial import forward_parameters

Arguments = tuple[list[Any], dict[str, Any]]


class Unbound(Exception):
    """A parameter for which nothing fits."""

    def __init__(self, parameter: str, reason: str) -> None:
        super().__init__(reason)
        self.parameter = parameter


@dataclass(frozen=True, slots=True)
class Recipe:
    """How to make the arguments of a loss from the model, the batch and the output.

    `unweighed` names a weight that nothing tells and that is therefore 1; `beside` says that data
    of the file's own takes part, which need not go with a batch that is made up; `loose` that a
    parameter took what nothing else was left for.
    `written` says by parameter what it takes, as an expression of `model`, the batch's names and
    `output`; `unknown` are those that nothing but what was left over, or made up, tells.
    `elsewhere` names a parameter such as `target`, which the input was taken for.
    """

    arguments: Callable[[nn.Module, Batch, Any], Arguments]
    needs_output: bool = True
    own_call: bool = False
    negated: bool = False
    unweighed: str | None = None
    beside: bool = False
    loose: bool = False
    written: Mapping[str, str] = field(default_factory=dict)
    unknown: tuple[str, ...] = ()
    elsewhere: str | None = None


@dataclass(frozen=True, slots=True)
class Binding:
    """One forward pass to bind against: the batch, the output, and the names in its `return`.

    `moving` tells by a second pass which outputs (paths) noise reaches.
    """

    model: nn.Module
    batch: Batch
    output: Any
    names: list[Any]
    moving: Callable[[], set[tuple[Any, ...]]] = set


def return_names(model: nn.Module) -> list[Any]:
    """The names in the last `return a, b, c` of forward, nested tuples as nested lists."""
    tree = function_tree(getattr(type(model), "forward", None))
    returns = [n for n in ast.walk(tree) if isinstance(n, ast.Return)] if tree else []
    if not returns:
        return []
    last = max(returns, key=lambda n: n.lineno).value

    def named(node: ast.expr | None) -> Any:
        if isinstance(node, ast.Tuple | ast.List):
            return [named(e) for e in node.elts]
        if isinstance(node, ast.Name):
            return node.id
        if isinstance(node, ast.Attribute):
            return node.attr
        called = called_name(node) if isinstance(node, ast.Call) else ""
        return "" if called in given else called  # `self.x(z)` is not the input `x`

    given = {p.name for p in forward_parameters(model)}
    found = named(last)
    return found if isinstance(found, list) else [found]


def loaded(batch: Batch) -> list[Any]:
    """The entries of a loader's batch in their order: those of forward, and the others."""
    entries = list(batch.args)
    for name in sorted(batch.beside, key=lambda n: int(n.removeprefix(LOADED))):
        entries.insert(int(name.removeprefix(LOADED)), batch.kwargs[name])
    return entries


def model_first(parameters: list[inspect.Parameter]) -> Recipe:
    """`loss(model, *batch)`; `loss(model, batch)` where forward takes a part of a loader's dict.

    A function whose parameters are the keys of that dict takes its entries.
    """
    names = {p.name for p in parameters}

    def arguments(model: nn.Module, batch: Batch, _: Any) -> Arguments:
        if batch.beside and all(name.startswith(LOADED) for name in batch.beside):
            given = {k: v for k, v in batch.kwargs.items() if k not in batch.beside}
            return [model, *loaded(batch)], given
        if batch.beside and not names >= set(batch.kwargs):
            return [model, dict(batch.kwargs)], {}
        return [model, *batch.args], dict(batch.kwargs)

    return Recipe(arguments, needs_output=False)


def batch_alone(parameters: list[inspect.Parameter]) -> Recipe:
    """`model.loss(*batch)`, of a method that runs the forward pass itself."""
    first = model_first(parameters)

    def arguments(model: nn.Module, batch: Batch, output: Any) -> Arguments:
        args, kwargs = first.arguments(model, batch, output)
        return args[1:], kwargs

    return Recipe(arguments, needs_output=False)


def shown(recipe: Recipe, loss: Loss, model: nn.Module, batch: Batch, output: Any) -> str:
    """The shapes a loss was called with, by the names of its parameters."""
    try:
        args, kwargs = recipe.arguments(model, batch, output)
    except Exception:
        return ""
    named = dict(zip((p.name for p in parameters_of(loss.function)), args, strict=False)) | kwargs
    shapes = {k: "×".join(map(str, v.shape)) for k, v in named.items() if isinstance(v, Tensor)}
    return ", ".join(f"`{k}` {shape}" for k, shape in shapes.items() if shape)


def cannot_bind(loss: Loss, unbound: Unbound | None, error: BaseException | None) -> TargetError:
    """What a user reads whose given loss could not be called."""
    signature = ", ".join(str(p) for p in parameters_of(loss.function))
    called = f"`{loss.name}({signature})`"
    if unbound is not None and unbound.parameter:
        message = f"the parameter `{unbound.parameter}` of {called} could not be bound: {unbound}"
    else:
        message = f"{called} could not be called: {summary(error) if error else 'no reading fits'}"
    return TargetError(
        message,
        next_step="write `def objective(model, *batch): ...` that returns the loss, "
        "then --objective objective",
    )
