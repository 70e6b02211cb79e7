"""A batch that was handed over: values, a shape, a file, or a function that gives one."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import combinations, islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from ..errors import TargetError, summary
from ..subject import LOADED, Batch
from ..trials.trial import attempt, forward_parameters, leaves
from .guess import Guesser

_MOST_READINGS = 20
_SHAPE = re.compile("\\d+(?:[x,\u00d7]\\d+)*")  # \u00d7 is the multiplication sign


def as_batch(
    model: nn.Module, given: Any, *, origin: str = "given", seed: int = 0, loss: Any = None
) -> Batch:
    """A given object as the arguments of forward, in the reading that runs.

    First as a `loss` of the model and all entries hands them to forward. Of a loader its first
    batch; numbers of another floating type than the parameters' only where
    the model refuses them as they are. Raises TargetError where nothing in it is data.
    """
    if isinstance(given, Batch):
        ran = attempt(lambda: given.run(model), model, seed=seed).ran
        return replace(given, ran=ran)
    given = _as_tensors(_first_of(given) if isinstance(given, DataLoader) else given)
    _refuse_no_data(given)
    shown = _as_handed_on(model, given, loss, seed)
    readings = [Batch(*reading, origin) for reading in (*shown, *_readings(model, given))]
    taken = {p.name for p in forward_parameters(model)}
    readings = [replace(b, beside=frozenset(b.kwargs) - taken) for b in readings]
    for batch in readings:
        if attempt(partial(batch.run, model), model, seed=seed).ran:
            return batch
    kind = next((p.dtype for p in model.parameters() if p.is_floating_point()), None)
    if kind is not None and any(
        isinstance(v, Tensor) and v.is_floating_point() and v.dtype != kind
        for _, v in leaves(given)
    ):
        told = f"{origin}, as {str(kind).removeprefix('torch.')}, which the parameters are"
        for batch in readings:
            cast = batch.mapped(lambda v: v.to(kind) if v.is_floating_point() else v)
            if attempt(partial(cast.run, model), model, seed=seed).ran:
                return replace(cast, origin=told)
    return replace(readings[0], ran=False)


def _first_of(loader: DataLoader[Any]) -> Any:
    """A loader's first batch; what it shuffles by is left as it was."""
    own = loader.generator
    state = own.get_state() if own is not None else None
    try:
        with torch.random.fork_rng(devices=[]):
            return next(iter(loader))
    except Exception as error:
        raise TargetError(
            f"the first batch of the loader could not be had: {summary(error)}",
            next_step="check(model, batch) with one batch of tensors",
        ) from error
    finally:
        if own is not None and state is not None:
            own.set_state(state)


def _as_tensors(value: Any) -> Any:
    """What was given with the arrays of numpy in it as tensors: its own float64 says nothing."""
    if type(value).__module__ == "numpy" and type(value).__name__ == "ndarray":
        made = torch.as_tensor(value)
        return made.float() if made.dtype is torch.float64 else made
    if type(value) in (list, tuple):
        return type(value)(_as_tensors(v) for v in value)
    return {k: _as_tensors(v) for k, v in value.items()} if type(value) is dict else value


def _refuse_no_data(given: Any) -> None:
    """Sizes, a data set, a generator and a batch without rows are nothing to examine a model on."""
    tensors = [v for _, v in leaves(given) if isinstance(v, Tensor)]
    if tensors and not any(v.dim() and v.shape[0] for v in tensors):
        shapes = ", ".join("x".join(map(str, v.shape)) or "a number" for v in tensors)
        what = f"the batch has no rows: {shapes}"
    elif isinstance(given, Dataset | Iterator | str) or (not tensors and _is_numbers(given)):
        what = f"the batch is no tensor and holds none: `{type(given).__name__}`"
    else:
        return
    raise TargetError(
        what, next_step="check(model, batch), where a batch is what `forward` takes, or a loader"
    )


def _is_numbers(value: Any) -> bool:
    if isinstance(value, tuple | list):
        return all(_is_numbers(v) for v in value)
    return isinstance(value, int | float)


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
            yield from _parts(given, taken)
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
        elif len(required) == 1 and all(isinstance(key, str) for key in given):
            for value in given.values():  # a loader's dict, by keys of its own
                if _is_data(value):
                    yield (), {**given, required[0].name: value}
    else:
        yield (given,), {}


def _parts(
    given: tuple[Any, ...] | list[Any], taken: int
) -> Iterator[tuple[tuple[Any, ...], dict[str, Any]]]:
    """The first `taken` entries of a loader's for forward, or as many others in their order."""
    for places in islice(combinations(range(len(given)), taken), _MOST_READINGS):
        yield _part(given, places)


def _part(given: Sequence[Any], places: Sequence[int]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    rest = {f"{LOADED}{i}": v for i, v in enumerate(given) if i not in places}
    return tuple(given[i] for i in places), rest


def _as_handed_on(
    model: nn.Module, given: Any, loss: Any, seed: int
) -> Iterator[tuple[tuple[Any, ...], dict[str, Any]]]:
    """Some entries of a batch, where a loss of the model and all of them hands those to forward."""
    if not isinstance(given, tuple | list) or len(given) < 2 or not callable(loss):
        return

    def first_call() -> tuple[Any, ...]:
        calls: list[tuple[Any, ...]] = []
        handle = model.register_forward_pre_hook(lambda _, args: calls.append(args))
        try:
            loss(model, *given)
        finally:
            handle.remove()
        return calls[0] if calls else ()

    handed = attempt(first_call, model, seed=seed).value or ()
    entries = [id(v) for v in given]
    if not {id(a) for a in handed} <= set(entries):
        return
    places = [entries.index(id(a)) for a in handed]
    if places and len(places) < len(given) and places == sorted(set(places)):
        yield _part(given, places)


def _is_data(value: Any) -> bool:
    """Whether something is data, and no option such as `n_samples=1`."""
    return isinstance(value, Tensor) and value.dim() > 0
