"""From what the user typed or passed to a `Subject`: the model, a batch, the objective."""

from __future__ import annotations

import ast
import inspect
import sys
import types
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..spelling import closest, did_you_mean
from .batch import find_batch, parse_input
from .build import Built, builds
from .calling import Calling, calling_of, typed_arguments
from .candidates import candidates, commands
from .checkpoint import load_checkpoint
from .construction import Aftermath, apply_following, binding_of
from .errors import TargetError, a_kind, summary, user_traceback
from .loading import Loaded, as_a_script, existing, load_file, load_module
from .objective import find_objective
from .source import Source, source_of, span_of
from .subject import Batch, Subject
from .trace import generators_restored

_MOST_MADE_UP = 6

__all__ = ["TargetError", "from_instance", "guarded_call", "load", "load_object"]


def load(
    target: str,
    *,
    args: Mapping[str, str] = types.MappingProxyType({}),
    input: str | None = None,
    objective: str | None = None,
    conditions: Iterable[int | str] = (),
    beta: float | None = None,
    batch_axis: int | None = 0,
    batch_size: int | None = None,
    checkpoint: str | None = None,
    call: Mapping[str, str] = types.MappingProxyType({}),
    seed: int = 0,
) -> Subject:
    """The subject that `mymodel.py:VAE`, `mymodel.py` or `pkg.module:VAE` names.

    Raises `TargetError` with a next step when there is nothing to examine.
    """
    place, name = _split(target)
    is_file = place.endswith(".py")
    path = existing(Path(place), name) if is_file else Path.cwd() / place
    folder = path.parent if is_file else Path.cwd()
    with as_a_script(folder, str(path)):
        loaded = _loaded(path if is_file else None, place, name, objective, seed)
        if not name:
            name = _only_candidate(loaded, place)
            target = f"{place}:{name}"
        label = f"{place}:{name}"
        thing = _resolve(loaded, name, place)
        models = _models(thing, loaded.source, loaded.namespace, args, seed, label, name)
        subject = _subject(
            models if checkpoint is None else _trained(models, checkpoint),
            batch=input,
            objective=objective,
            source=loaded.source or source_of(thing),
            namespace=loaded.namespace,
            batch_size=batch_size,
            call=typed_arguments(call),
            seed=seed,
            target=label,
        )
    notes = subject.notes
    if loaded.left_out is not None:
        notes = (
            f"loaded definitions only: line {loaded.left_out} would run code on import",
            *notes,
        )
    return replace(
        subject,
        conditions=frozenset(conditions),
        beta=beta,
        batch_axis=batch_axis,
        target=target,
        notes=notes,
    )


def from_instance(
    thing: Any,
    batch: Any = None,
    *,
    objective: Any = None,
    optimizer: Any = None,
    conditions: Iterable[int | str] = (),
    beta: float | None = None,
    batch_axis: int | None = 0,
    call: Mapping[str, Any] | None = None,
    seed: int = 0,
) -> Subject:
    """The subject for a model, a class or a factory that is already in memory."""
    defined = thing if inspect.isclass(thing) or inspect.isroutine(thing) else type(thing)
    source = source_of(defined)
    module = sys.modules.get(getattr(defined, "__module__", None) or "")
    namespace = module.__dict__ if module is not None and source is not None else {}
    label = getattr(defined, "__name__", type(thing).__name__)
    subject = _subject(
        _models(thing, source, namespace, {}, seed, "", ""),
        batch=batch,
        objective=objective,
        source=source,
        namespace=namespace,
        batch_size=None,
        call=call or {},
        seed=seed,
        target=label,
    )
    if optimizer is not None:
        several = tuple(optimizer) if isinstance(optimizer, tuple | list) else (optimizer,)
        subject = replace(subject, optimizers=several, optimizer_at=None)
    return replace(subject, conditions=frozenset(conditions), beta=beta, batch_axis=batch_axis)


def load_object(text: str, seed: int = 0) -> Any:
    """The object that `data.py:one_batch` or `pkg.data:one_batch` names."""
    place, name = _split(text)
    is_file = place.endswith(".py")
    path = existing(Path(place), name) if is_file else Path.cwd()
    with as_a_script(path.parent if is_file else path, str(path)):
        loaded = _loaded(path if is_file else None, place, name, None, seed)
        return _resolve(loaded, name, place, modules_only=False)


def guarded_call(thing: Callable[[], Any], label: str) -> Any:
    """Call the user's function; what it raises becomes a `TargetError`."""
    try:
        return thing()
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        raise TargetError(
            f"{label} raised {summary(error)}",
            traceback=user_traceback(error),
            next_step="--input 16x784 makes a batch of that shape up instead",
        ) from None


def _subject(
    models: Iterator[Built],
    *,
    batch: Any,
    objective: Any,
    source: Source | None,
    namespace: Mapping[str, Any],
    batch_size: int | None,
    call: Mapping[str, Any],
    seed: int,
    target: str,
) -> Subject:
    built, found, calling = _first_that_runs(
        models, batch, source, namespace, batch_size, call, seed, target
    )
    model = built.model
    calling = calling.settled(model, found, seed)
    with calling.on(model):
        chosen, notes = find_objective(
            model, found, objective, source=source, namespace=namespace, seed=seed
        )
    after = built.aftermath
    return Subject(
        model=model,
        batch=found,
        objective=chosen,
        optimizers=after.optimizers or _attached_optimizers(model),
        optimizer_at=after.optimizer_at,
        rebuild=calling.rebuilding(built.rebuild),
        target=target,
        at=span_of(type(model)),
        notes=(*built.notes, *notes),
        calling=calling,
    )


def _first_that_runs(
    models: Iterator[Built],
    batch: Any,
    source: Source | None,
    namespace: Mapping[str, Any],
    batch_size: int | None,
    call: Mapping[str, Any],
    seed: int,
    target: str,
) -> tuple[Built, Batch, Calling]:
    """The first model; of several with made-up arguments the first whose forward pass ends."""
    best: tuple[Built, Batch, Calling] | None = None
    refused: TargetError | None = None
    for built in islice(models, _MOST_MADE_UP):
        model = built.model
        given = parse_input(batch, model, seed=seed) if isinstance(batch, str) else batch
        calling = calling_of(model, call)
        try:
            with calling.on(model):
                found = find_batch(
                    model,
                    given,
                    source=source,
                    namespace=namespace,
                    hints=built.hints,
                    batch_size=batch_size,
                    seed=seed,
                    target=target,
                )
        except TargetError as error:
            refused = error
            continue
        if found.ran or not built.made_up:
            return built, found, calling
        best = best or (built, found, calling)
    if best is None:
        raise refused or TargetError("nothing to examine", next_step=f"vaedoctor check {target}")
    return best


def _models(
    thing: Any,
    source: Source | None,
    namespace: dict[str, Any],
    args: Mapping[str, str],
    seed: int,
    label: str,
    name: str,
) -> Iterator[Built]:
    if isinstance(thing, nn.Module):
        yield _from_bound(thing, source, namespace, seed, name)
        return
    for built in builds(
        thing, source=source, namespace=namespace, args=args, seed=seed, label=label
    ):
        yield replace(built, model=unwrapped(built.model))


def _trained(models: Iterator[Built], checkpoint: str) -> Iterator[Built]:
    for built in models:
        load_checkpoint(built.model, checkpoint)
        note = f"weights: {checkpoint}"
        yield replace(built, notes=(*built.notes, note))


def _from_bound(
    model: nn.Module, source: Source | None, namespace: dict[str, Any], seed: int, name: str
) -> Built:
    """A top-level instance, with what the file does to it afterwards."""
    binding = binding_of(source, name) if source is not None and name else None
    aftermath = Aftermath()
    if binding is not None:
        with generators_restored():
            torch.manual_seed(seed)
            aftermath = apply_following(binding, model, namespace, binding.scope(namespace))
    return Built(unwrapped(model), None, aftermath=aftermath)


def unwrapped(model: nn.Module) -> nn.Module:
    """The user's module inside `torch.compile`, `DataParallel` and `DistributedDataParallel`."""
    while True:
        if isinstance(inner := getattr(model, "_orig_mod", None), nn.Module):
            model = inner
        elif isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
            model = model.module
        else:
            return model


def _attached_optimizers(model: nn.Module) -> tuple[torch.optim.Optimizer, ...]:
    found: list[torch.optim.Optimizer] = []
    for value in vars(model).values():
        held = value if isinstance(value, tuple | list) else [value]
        found += [v for v in held if isinstance(v, torch.optim.Optimizer)]
    return tuple(found)


def _split(target: str) -> tuple[str, str]:
    place, colon, name = target.rpartition(":")
    if not colon or name.endswith(".py") or "/" in name or "\\" in name:
        return target, ""
    return place, name


def _loaded(path: Path | None, place: str, name: str, objective: Any, seed: int) -> Loaded:
    if path is None:
        if "/" in place or not all(p.isidentifier() for p in place.split(".")):
            shown = place if Path(place).exists() else f"{place}.py"
            raise TargetError(
                f"`{place}` is neither a Python file nor a module",
                next_step=f"vaedoctor check {shown}:{name or 'VAE'}",
            )
        return load_module(place)
    wanted = {name.partition(".")[0]} if name else set()
    if wanted and isinstance(objective, str) and ".py" not in objective:
        wanted.add(objective.partition(".")[0])
    return load_file(path, wanted, seed)


def _only_candidate(loaded: Loaded, place: str) -> str:
    found = candidates(loaded)
    if len(found) == 1:
        return found[0]
    if not found:
        raise TargetError(
            f"`{place}` defines no `nn.Module`",
            next_step=f"vaedoctor check {place}:make_model   (a function that returns one)",
        )
    raise TargetError(
        f"`{place}` holds {len(found)} models: which one?", next_step=commands(place, found)
    )


def _resolve(loaded: Loaded, name: str, place: str, *, modules_only: bool = True) -> Any:
    """The object a dotted name means; `TargetError` when there is none or it is no model."""
    thing: Any = loaded.module
    for part in name.split("."):
        if isinstance(thing, Mapping) and part in thing:
            thing = thing[part]
            continue
        if not hasattr(thing, part):
            raise _no_name(loaded, thing, part, name, place)
        thing = getattr(thing, part)
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


def _no_name(loaded: Loaded, owner: Any, part: str, name: str, place: str) -> TargetError:
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
