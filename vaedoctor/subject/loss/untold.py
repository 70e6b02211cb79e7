"""What a user reads whose loss asks for something that nobody tells: what to type, to be edited."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from ..code.losses import parameters_of, underlying
from ..code.source import file_of, is_foreign
from ..errors import TargetError, summary
from ..subject import Batch
from ..trials.trial import forward_parameters
from .attempts import Tried

_OF_WHAT_IS_GIVEN = (RuntimeError, IndexError, ValueError, TypeError, LookupError, AssertionError)


def is_untold(tried: Tried) -> bool:
    """Whether a loss raised inside on an argument that was made up, and may be right with another.

    A name that is not there is missing whatever the loss is given.
    """
    error, recipe = tried.error, tried.recipe
    if recipe is None or not recipe.unknown or tried.ran:
        return False
    of_tensor = isinstance(error, AttributeError) and isinstance(error.obj, Tensor)
    return of_tensor or isinstance(error, _OF_WHAT_IS_GIVEN)


def untold(tried: Tried, model: nn.Module, batch: Batch) -> TargetError:
    """Which argument could not be known, what was tried, and the function that says it."""
    recipe, loss = tried.recipe, tried.loss
    assert recipe is not None
    assert tried.error is not None
    unknown = ", ".join(f"`{n}`" for n in recipe.unknown)
    signature = ", ".join(str(p) for p in parameters_of(loss.function))
    called = f"called with {tried.given} " if tried.given else ""
    names = _batch_names(model, batch)
    of_batch = [recipe.written[n] for n in recipe.unknown if recipe.written.get(n) in names[1:]]
    lines = list(_one_batch(names, batch, of_batch) if of_batch else _objective(tried, names))
    flag = "--input data.py:one_batch" if of_batch else "--objective losses.py:objective"
    file = "data.py" if of_batch else "losses.py"
    return TargetError(
        f"nothing tells what {unknown} of `{loss.name}({signature})` is: {called}it raised "
        f"{summary(tried.error)}, which may be due to that",
        next_step="\n".join([flag, "", f"where {file} says what {unknown} is:", "", *lines]),
    )


def _batch_names(model: nn.Module, batch: Batch) -> list[str]:
    names = [p.name for p in forward_parameters(model)]
    given = [names[i] if i < len(names) else f"arg{i}" for i in range(len(batch.args))]
    return [*given, *batch.kwargs]


def _one_batch(names: list[str], batch: Batch, unknown: list[str]) -> Iterator[str]:
    yield from ("import torch", "", "def one_batch():")
    for name, value in zip(names, [*batch.args, *batch.kwargs.values()], strict=True):
        told = _expression(value) if name not in unknown else "..."
        yield f"    {name} = {told}" + (f"  # not {_expression(value)}" if told == "..." else "")
    yield f"    return {{{', '.join(f'{n!r}: {n}' for n in names)}}}"


def _objective(tried: Tried, names: list[str]) -> Iterator[str]:
    recipe, loss = tried.recipe, tried.loss
    assert recipe is not None
    yield "import torch"
    called = f"model.{loss.name}" if loss.is_method else loss.name
    if not loss.is_method:
        function = underlying(loss.function)
        file = file_of(function)
        home = function.__module__ if is_foreign(file) else Path(file).stem
        if home and hasattr(sys.modules.get(function.__module__), loss.name):
            yield f"from {home} import {loss.name}"
        else:  # an object, a lambda
            called = "loss"
            yield f"loss = ...  # the `{loss.name}` that was given"
    yield from ("", f"def objective(model, {', '.join(names)}):")
    if recipe.needs_output or "output" in str(recipe.written):
        yield f"    output = model({', '.join(names)})"
    for name in recipe.unknown:
        tried_so = recipe.written.get(name, "the batch")
        yield f"    {name} = ...  # a row for each of {names[0]}, on its device; not {tried_so}"
    known = {n: n if n in recipe.unknown else e for n, e in recipe.written.items()}
    needed = [p.name for p in parameters_of(loss.function) if p.name in known]
    handed = ", ".join(f"{n}={known[n]}" for n in needed)
    yield f"    return {called}({handed})"


def _expression(value: Any) -> str:
    if not isinstance(value, Tensor):
        return repr(value)
    sides = ", ".join(map(str, value.shape))
    if value.is_floating_point():
        return f"torch.rand({sides})"
    if value.dtype.is_signed and value.numel():
        return f"torch.randint({int(value.max()) + 1}, ({sides},))"
    return f"torch.ones({sides}, dtype={value.dtype})"
