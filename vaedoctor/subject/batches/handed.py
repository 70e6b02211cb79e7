"""A batch that was handed over: values, a shape, a file, or a function that gives one."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import TargetError, summary
from ..subject import LOADED, Batch
from ..trials.trial import attempt, forward_parameters
from .guess import Guesser

_SHAPE = re.compile("\\d+(?:[x,\u00d7]\\d+)*")  # \u00d7 is the multiplication sign


def as_batch(model: nn.Module, given: Any, *, origin: str = "given", seed: int = 0) -> Batch:
    """A given object as the arguments of forward, in the reading that runs."""
    if isinstance(given, Batch):
        ran = attempt(lambda: given.run(model), model, seed=seed).ran
        return replace(given, ran=ran)
    readings = [Batch(*reading, origin) for reading in _readings(model, given)]
    taken = {p.name for p in forward_parameters(model)}
    readings = [replace(b, beside=frozenset(b.kwargs) - taken) for b in readings]
    for batch in readings:
        if attempt(partial(batch.run, model), model, seed=seed).ran:
            return batch
    return replace(readings[0], ran=False)


def parse_input(text: str, model: nn.Module, *, seed: int = 0) -> Any:
    """`16x784`, `batch.pt` or `data.py:one_batch` as a batch object.

    A shape is filled from [0, 1), which every reconstruction loss accepts; with integers below the
    vocabulary's size where the model starts with an embedding.
    """
    if _SHAPE.fullmatch(text.strip()):
        shape = tuple(int(n) for n in re.split("[x,\u00d7]", text.strip()))
        return Guesser(model, {}, shape[0], seed).fill(shape)
    if text.endswith((".pt", ".pth", ".bin")):
        return _load_tensor(Path(text))
    if ".py:" in text or ":" in text:
        from ..target import load_object

        thing = load_object(text)
        return _called(thing, text) if callable(thing) and not isinstance(thing, Tensor) else thing
    raise TargetError(
        f"`--input {text}` is neither a shape, a `.pt` file nor `data.py:name`",
        next_step="--input 16x784",
    )


def _called(thing: Any, text: str) -> Any:
    from ..target import guarded_call

    return guarded_call(thing, f"`--input {text}`")


def _load_tensor(path: Path) -> Any:
    if not path.is_file():
        raise TargetError(f"`--input {path}` does not exist", next_step="--input 16x784")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise TargetError(
            f"`{path.name}` could not be read with `weights_only=True`: {summary(error)}",
            next_step=f"torch.save(batch_of_tensors, {str(path)!r})",
        ) from None


def _readings(model: nn.Module, given: Any) -> Iterator[tuple[tuple[Any, ...], dict[str, Any]]]:
    """The ways to pass an object to forward, the most natural one first."""
    parameters = forward_parameters(model)
    required = [p for p in parameters if p.default is p.empty and p.kind is not p.VAR_POSITIONAL]
    if isinstance(given, tuple | list):
        fits = len(required) <= len(given) <= len(parameters) or any(
            p.kind is p.VAR_POSITIONAL for p in parameters
        )
        if fits:
            yield tuple(given), {}
        if len(parameters) == 1 or not fits:
            yield (given,), {}
        taken = max(1, len(required))
        beside = zip(parameters[taken:], given[taken:], strict=False)
        options = [isinstance(p.default, int | float | str) for p, v in beside if _is_data(v)]
        if given and len(parameters) >= 1 and (not fits or (options and all(options))):
            # A data loader's (x, label) for a model that wants x alone: the rest is the loss's.
            rest = {f"{LOADED}{i}": v for i, v in enumerate(given) if i >= taken}
            yield tuple(given[:taken]), rest
        if fits and len(required) <= 1 < len(parameters):
            yield (given,), {}  # the modalities of a row, beside an option
    elif isinstance(given, Mapping):
        names = {p.name for p in parameters}
        fits = {p.name for p in required} <= set(given)
        if fits and set(given) <= names:
            yield (), dict(given)
        yield (given,), {}
        if required and fits and all(isinstance(key, str) for key in given):
            yield (), dict(given)  # a loader's dict, of which the loss takes more than forward
    else:
        yield (given,), {}


def _is_data(value: Any) -> bool:
    """Whether something is data, and no option such as `n_samples=1`."""
    return isinstance(value, Tensor) and value.dim() > 0
