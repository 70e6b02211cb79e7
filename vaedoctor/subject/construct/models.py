"""From what a target names to a model: its class or factory called, its instance taken."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import nn

from ..code import cuda
from ..code.source import Source
from ..loading.checkpoint import load_checkpoint
from ..loading.loading import Loaded
from ..script.aftermath import Aftermath, apply_following
from ..script.construction import binding_of
from ..trials.switches import generators_restored
from ..trials.trial import attempt
from .build import builds
from .built import Built
from .smaller import MOST_PARAMETERS


def models_of(
    thing: Any,
    found: Loaded,
    args: Mapping[str, str],
    seed: int,
    label: str,
    most: int | None = MOST_PARAMETERS,
) -> Iterator[Built]:
    """The models of a loaded file; what says `cuda` says `cpu` where there is none.

    `most` as for `builds`.
    """
    if isinstance(thing, nn.Module):
        models = iter([_from_bound(thing, found, seed, label.rpartition(":")[2])])
    else:
        models = built_from(thing, found.source, found.namespace, args, seed, label, most)
    yield from map(_settled, models)


def trained(models: Iterator[Built], checkpoint: str) -> Iterator[Built]:
    """The models with the weights of a file."""
    for built in models:
        load_checkpoint(built.model, checkpoint)
        note = f"weights: {checkpoint}"
        yield replace(built, notes=(*built.notes, note))


def _settled(built: Built) -> Built:
    """The same with all its makers, where what says `cuda` says `cpu`."""
    return replace(
        built,
        model=cuda.settled(built.model),
        rebuild=built.rebuild and partial(_rebuilt, built.rebuild),
        remake=built.remake and partial(_remade, built.remake),
        smaller=partial(_siblings, built.smaller),
    )


def _siblings(smaller: Callable[[], Iterator[Built]]) -> Iterator[Built]:
    return map(_settled, smaller())


def _remade(remake: Callable[[dict[str, Any]], Built], values: dict[str, Any]) -> Built:
    with cuda.moves_ignored():
        return _settled(remake(values))


def _rebuilt(rebuild: Callable[[int], nn.Module], seed: int) -> nn.Module:
    with cuda.moves_ignored():
        return cuda.settled(rebuild(seed))


def built_from(
    thing: Any,
    source: Source | None,
    namespace: dict[str, Any],
    args: Mapping[str, str],
    seed: int,
    label: str,
    most: int | None = MOST_PARAMETERS,
) -> Iterator[Built]:
    """The model itself, or those that a class or factory gives, without their wrappers."""
    if isinstance(thing, nn.Module):
        yield Built(unwrapped(thing), None)
        return
    for built in builds(
        thing, source=source, namespace=namespace, args=args, seed=seed, label=label, most=most
    ):
        yield replace(built, model=unwrapped(built.model))  # its `remake` gives no wrapper either


def _from_bound(model: nn.Module, found: Loaded, seed: int, name: str) -> Built:
    """A top-level instance, with what the file does to it afterwards."""
    if found.whole:
        return Built(unwrapped(model), None, aftermath=Aftermath(_optimizers_of(model, found)))
    binding = binding_of(found.source, name) if found.source is not None and name else None
    aftermath = Aftermath()
    if binding is not None:
        with generators_restored():
            torch.manual_seed(seed)
            scope = binding.scope(found.namespace)
            aftermath = apply_following(binding, model, found.namespace, scope)
    return Built(unwrapped(model), None, aftermath=aftermath)


def _optimizers_of(model: nn.Module, found: Loaded) -> tuple[torch.optim.Optimizer, ...]:
    """The optimizers that a file has made for a model, where all of it has run."""
    own = {id(p) for p in model.parameters()}
    return tuple(
        value
        for value in found.namespace.values()
        if isinstance(value, torch.optim.Optimizer)
        and any(id(p) in own for group in value.param_groups for p in group["params"])
    )


def unwrapped(model: nn.Module) -> nn.Module:
    """The user's module inside `torch.compile`, `DataParallel` and `DistributedDataParallel`."""
    while True:
        if isinstance(inner := getattr(model, "_orig_mod", None), nn.Module):
            model = inner
        elif isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
            model = model.module
        else:
            return model


def attached_optimizers(model: nn.Module) -> tuple[torch.optim.Optimizer, ...]:
    """The optimizers that a model keeps as its attributes, or that Lightning would ask it for."""
    found: list[torch.optim.Optimizer] = []
    for value in vars(model).values():
        held = value if isinstance(value, tuple | list) else [value]
        found += [v for v in held if isinstance(v, torch.optim.Optimizer)]
    configure = getattr(model, "configure_optimizers", None)
    if not found and inspect.ismethod(configure) and not _takes_more(configure):
        made = attempt(configure, model).value
        nested = made if isinstance(made, tuple | list) else [made]
        parts = [p for part in nested for p in (part if isinstance(part, list) else [part])]
        parts = [p.get("optimizer") if isinstance(p, dict) else p for p in parts]
        found += [p for p in parts if isinstance(p, torch.optim.Optimizer)]
    return tuple(found)


def _takes_more(method: Callable[..., object]) -> bool:
    parameters = inspect.signature(method).parameters.values()
    return any(p.default is p.empty and p.kind is not p.VAR_KEYWORD for p in parameters)
