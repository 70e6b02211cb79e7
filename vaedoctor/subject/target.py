"""From what the user typed or passed to a `Subject`: the model, a batch, the objective."""

from __future__ import annotations

import inspect
import sys
import types
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from .assembling import assembled
from .calling import typed_arguments
from .code import cuda
from .code.source import reading, source_of
from .construct.models import built_from, models_of, trained
from .construct.smaller import most_parameters
from .construct.unfilled import refuse_unfilled
from .errors import TargetError, summary, user_traceback
from .joining.joined import only_model
from .loading.lacking import lacking
from .loading.loading import Loaded, existing, is_file, load_file, load_module
from .loading.pretrained import Pretrained
from .loading.process import unchanged_process
from .loading.resolving import resolve
from .loading.surroundings import Surroundings
from .running import Wanted
from .subject import Subject
from .trials.trial import attempt

__all__ = ["TargetError", "from_instance", "guarded_call", "load", "load_object", "loaded"]


def load(target: str, **options: Any) -> Subject:
    """The subject of `loaded`; the process is left as it was."""
    with loaded(target, **options) as subject:
        return subject


@contextmanager
def loaded(
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
    exec: bool = False,
) -> Iterator[Subject]:
    """The subject that `mymodel.py:VAE`, `notebook.ipynb`, or `pkg.module:VAE` names.

    Inside, the user's own modules can be imported as they were while the target loaded.
    `exec` runs the whole file, not its definitions alone. Raises `TargetError` with a next step
    when there is nothing to examine.
    """
    with _opened(target, objective, seed, exec) as found:
        with cuda.moves_ignored():
            most = None if checkpoint is not None else most_parameters(input)
            models = models_of(found.thing, found.file, args, seed, found.label, most)
            try:
                wanted = Wanted(
                    input,
                    source=found.file.source or source_of(found.thing),
                    namespace=found.file.namespace,
                    batch_size=batch_size,
                    call=typed_arguments(call),
                    seed=seed,
                    target=found.label,
                    loss=objective,
                )
                if checkpoint is not None:
                    models = trained(models, checkpoint)
                subject = assembled(models, wanted)
            except TargetError as error:
                raise found.lacked(error) or error from None
            found.check_complete(subject, seed)
        yield replace(
            subject,
            conditions=frozenset(conditions),
            beta=beta,
            batch_axis=batch_axis if batch_axis != 0 else subject.batch.axis,
            target=found.label,
            notes=(*found.said(), *subject.notes),
        )


@dataclass(frozen=True, slots=True)
class _Found:
    """What a target names: the object, its file, and how to call it in a command."""

    thing: Any
    file: Loaded
    label: str
    surroundings: Surroundings
    pretrained: Pretrained

    def lacked(self, error: BaseException | None) -> TargetError | None:
        """A better reason for an exception, if what was not loaded is to blame."""
        return lacking(error, self.file, self.surroundings, self.label)

    def check_complete(self, subject: Subject, seed: int) -> None:
        """Raise the reason where the forward pass fails for what was not loaded."""
        if not subject.batch.ran:
            trial = attempt(partial(subject.batch.run, subject.model), subject.model, seed=seed)
            if (reason := self.lacked(trial.error)) is not None:
                raise reason

    def said(self) -> tuple[str, ...]:
        """How the file was loaded, as notes for the report."""
        notes = (self.surroundings.stubs.note(), self.pretrained.note())
        return (*self.file.said(), *filter(None, notes))


@contextmanager
def _opened(
    target: str, objective: Any, seed: int, whole: bool, *, modules_only: bool = True
) -> Iterator[_Found]:
    """The object that a target names; inside, the user's own modules can be imported."""
    place, name = _split(target)
    path = existing(Path(place), name) if is_file(place) else None
    folder = path.parent if path is not None else Path.cwd()
    pretrained = Pretrained()
    with (
        unchanged_process(str(path or place)),
        Surroundings(folder, whole=whole).in_force() as surroundings,
        nullcontext() if whole else cuda.hidden(),
        ExitStack() as stack,
        nullcontext() if whole else pretrained.in_force(),
    ):
        with cuda.moves_ignored():
            file = _loaded(path, place, name, objective, seed, surroundings, whole)
            if not name:
                name, together = only_model(file, place, surroundings.stubs.names)
                stack.enter_context(reading(together))
                if together is not None or name in file.executed.missing:
                    file = _loaded(path, place, name, objective, seed, surroundings, whole)
            thing = resolve(file, name, place, modules_only=modules_only)
        refuse_unfilled(thing, f"{place}:{name}")
        joined = file.source is not None and bool(file.source.joined)
        yield _Found(thing, file, place if joined else f"{place}:{name}", surroundings, pretrained)


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
    models = built_from(thing, source, namespace, {}, seed, "", most_parameters(batch))
    wanted = Wanted(
        batch,
        source=source,
        namespace=namespace,
        batch_size=None,
        call=call or {},
        seed=seed,
        target=label,
        loss=objective,
    )
    subject = assembled(models, wanted)
    if optimizer is not None:
        several = tuple(optimizer) if isinstance(optimizer, tuple | list) else (optimizer,)
        subject = replace(subject, optimizers=several, optimizer_at=None)
    axis = batch_axis if batch_axis != 0 else subject.batch.axis
    return replace(subject, conditions=frozenset(conditions), beta=beta, batch_axis=axis)


def load_object(text: str, seed: int = 0) -> Any:
    """The object that `data.py:one_batch` or `pkg.data:one_batch` names."""
    with _opened(text, None, seed, False, modules_only=False) as found:
        return found.thing


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


def _split(target: str) -> tuple[str, str]:
    place, colon, name = target.rpartition(":")
    if not colon or is_file(name) or "/" in name or "\\" in name:
        return target, ""
    return place, name


def _loaded(
    path: Path | None,
    place: str,
    name: str,
    objective: Any,
    seed: int,
    surroundings: Surroundings,
    whole: bool,
) -> Loaded:
    wanted = {name.partition(".")[0]} if name else set()
    if wanted and isinstance(objective, str) and ".py" not in objective:
        wanted.add(objective.partition(".")[0])
    if path is not None:
        return load_file(path, surroundings, wanted, seed, whole=whole)
    if "/" in place or not all(p.isidentifier() for p in place.split(".")):
        shown = place if Path(place).exists() else f"{place}.py"
        raise TargetError(
            f"`{place}` is neither a Python file, a notebook nor a module",
            next_step=f"vaedoctor check {shown}:{name or 'VAE'}",
        )
    return load_module(place, surroundings, wanted, seed, whole=whole)
