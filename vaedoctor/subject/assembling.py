"""From models that may be examined to a subject: the one that runs, its loss, its optimizers."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from torch import nn

from .batches.supported import within_the_support
from .calling import Calling, has_forward
from .choosing import cannot_run_as_made_up, first_that_runs
from .code import cuda
from .code.source import span_of
from .composing import GuideModel
from .construct.built import Built
from .construct.optimizers import backwards_in, optimizers_of
from .construct.unbuildable import is_of_a_library
from .errors import TargetError, summary
from .forwardless import meant_as_forward, without_forward
from .loss.objective import find_objective
from .loss.own_batch import own_batch, runs_alone
from .loss.refilled import Search, refilled
from .running import Wanted
from .script.stepped import Stepped
from .subject import Batch, Objective, Subject
from .total import total
from .trials.trial import attempt

WithLoss = tuple[Batch, Objective | None, tuple[str, ...]]


def assembled(models: Iterator[Built], wanted: Wanted) -> Subject:
    """The first model that runs with its batch, its loss, and the optimizers of the file.

    Raises `TargetError` where nothing runs.
    """
    built, batch, calling = first_that_runs(models, wanted)
    model, source = built.model, wanted.source
    calling = calling.settled(model, batch, wanted.seed)
    with calling.on(model):
        batch, chosen, notes = _with_objective(built, batch, calling, wanted)
    if chosen is None and calling.parts is None and not batch.ran and not has_forward(model):
        raise meant_as_forward(model) or without_forward(model, wanted.target)
    if isinstance(calling.parts, GuideModel):
        _refuse_unsure(built, batch, calling, wanted, chosen)
    optimizers, optimizer_at = optimizers_of(model, built.aftermath, source, wanted.namespace)
    return Subject(
        model=model,
        batch=batch,
        objective=chosen,
        optimizers=optimizers,
        optimizer_at=optimizer_at,
        rebuild=calling.rebuilding(built.rebuild),
        target=wanted.target,
        at=span_of(type(model)),
        notes=(*built.notes, *notes),
        calling=calling,
        made_up=bool(built.made_up),
        untold=bool(built.made_up) and is_of_a_library(built.thing or type(model), wanted.target),
        made_there=source is not None and cuda.is_default(source.tree),
        moves=source is None or not source.joined or cuda.is_named(source.text),
        backwards=backwards_in(source),
    )


def _refuse_unsure(
    built: Built, batch: Batch, calling: Calling, wanted: Wanted, chosen: Objective | None
) -> None:
    """Raise where Pyro refuses made-up data of which no `forward` tells what they are."""
    if not batch.guessed or chosen is None:
        return
    with calling.on(built.model):
        run = attempt(lambda: chosen.run(built.model, batch), built.model, seed=wanted.seed)
    if run.error is not None:
        raise cannot_run_as_made_up((built, batch, calling), run.error, wanted) from run.error


def _with_objective(built: Built, batch: Batch, calling: Calling, wanted: Wanted) -> WithLoss:
    """The loss with the batch on which it runs: the one at hand, or else the file's own."""
    model, source, seed, objective = built.model, wanted.source, wanted.seed, wanted.loss
    refusing: list[Objective] = []
    search = partial(
        find_objective,
        model,
        given=objective,
        source=source,
        namespace=wanted.namespace,
        seed=seed,
        invented=bool(built.made_up or built.shrunk),
    )
    if isinstance(calling.parts, Stepped) and objective is None:
        search = partial(search, stepped=calling.parts.objective())
    found, chosen, notes = _searched(model, batch, partial(search, refusing=refusing), seed)
    if refusing and (other := within_the_support(model, found, refusing[0], seed)) is not None:
        found = other
        chosen, notes = search(found)
    if objective is None and wanted.batch is None and source is not None and found.ran:
        runs = chosen is not None and runs_alone(model, found, chosen, seed)
        own = None if runs else own_batch(model, found, source, wanted.namespace, seed)
        if own is not None:
            return (*own, ())
    return found, chosen, notes


def _searched(model: nn.Module, batch: Batch, search: Search, seed: int) -> WithLoss:
    """The objective; with the made-up batch filled otherwise where it only runs on that."""
    try:
        chosen, notes = search(batch)
    except TargetError as why:
        if (other := refilled(model, batch, search, seed, str(why))) is None:
            raise
        return other
    raised = " ".join(note for note in notes if "is not used" in note) if chosen is None else ""
    if chosen is not None:
        run = attempt(lambda: total(chosen.run(model, batch)), model, seed=seed)
        raised = summary(run.error) if run.error is not None else ""
    if raised:
        return refilled(model, batch, search, seed, raised) or (batch, chosen, notes)
    return batch, chosen, notes
