"""Of the models that made-up arguments give, the first whose forward pass ends."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from itertools import islice
from typing import Any

from torch import nn

from .batches.fitting import blamed_for
from .batches.nofit import NotGuessed, refused_by
from .calling import Calling, calling_of, has_forward
from .code.signatures import by_name
from .code.source import source_of
from .construct.after_all import calls_what_nobody_gave, given_too
from .construct.bases import meant_below
from .construct.built import Built
from .construct.gaps import with_gaps
from .construct.parts import stands_in
from .construct.pasted import pasted
from .construct.solving import sizes_in
from .construct.spelled import as_function
from .construct.unbuildable import cannot_compose, cannot_run, in_order, is_of_a_library
from .doubts import is_doubtful
from .errors import TargetError
from .forwardless import meant_as_forward, without_forward
from .loss.objective import find_objective
from .mending import (
    affordable,
    as_wide_as_the_data,
    row_by_row,
    with_sizes_that_agree,
    with_what_it_lacks,
)
from .running import Chosen, Wanted, is_told, trial_of
from .total import total
from .trials.trial import Trial, attempt
from .trials.witness import user_frame

_MOST_MADE_UP = 6
_MOST_SECONDS = 30.0  # of one core, after which no further model is tried


def first_that_runs(models: Iterator[Built], wanted: Wanted) -> Chosen:
    """The first model; of several with made-up arguments the first whose forward pass ends.

    Where none does, sizes that must agree are solved for. Raises `TargetError` where no input
    can be made up, or where only the made-up sizes may be to blame.
    """
    tried = _Tried(wanted)
    ends = time.thread_time() + _MOST_SECONDS
    for built in islice(models, _MOST_MADE_UP):
        if tried.first is not None and time.thread_time() > ends:
            break
        if (chosen := tried.taken(built)) is not None:
            return _beyond_doubt(as_wide_as_the_data(chosen, wanted), wanted)
    return _beyond_doubt(tried.best_of_all(), wanted)


class _Tried:
    """The models that were tried and not taken.

    `best` is the first that has an input, `first` the first that raised, `refused` why another
    cannot be examined at all.
    """

    def __init__(self, wanted: Wanted) -> None:
        self.wanted = wanted
        self.best: Chosen | None = None
        self.first: tuple[Built, Trial] | None = None
        self.refused: TargetError | None = None

    def taken(self, built: Built) -> Chosen | None:
        """The model with its batch, if it is the one to examine; else it is remembered."""
        wanted = self.wanted
        if (unnamed := _without_a_forward_of_its_own(built.model, wanted)) is not None:
            raise unnamed
        try:
            chosen = affordable(built, wanted)
        except NotGuessed as unknown:
            return self._without_input(built, unknown)
        if chosen[1].ran:
            return chosen
        trial = trial_of(chosen, wanted)
        if wanted.batch is None and not has_forward(built.model) and chosen[2].parts is None:
            raise _with_a_forward(without_forward(built.model, wanted.target), built, wanted)
        if (whole := with_what_it_lacks(built, trial, wanted)) is not None:
            return whole
        error = trial.error
        if chosen[2].parts is not None and error is not None and not is_told(chosen, wanted):
            if (alone := _by_the_loss_alone(chosen, wanted)) is not None:
                return alone
            self.refused = self.refused or _not_composed(chosen, error, wanted)
            if not built.made_up:
                raise self.refused
        elif not (built.made_up or built.shrunk):
            if error and wanted.source is None and calls_what_nobody_gave(built.model, error):
                raise cannot_run(type(built.model), {}, error, wanted.target) from error
            return chosen
        else:
            self.best = self.best or chosen
        self.first = self.first or (built, trial)
        return None

    def _without_input(self, built: Built, unknown: NotGuessed) -> Chosen | None:
        """A model for which no batch was found, with the argument for lack of which it was none."""
        trial = unknown.trial
        if trial is not None and calls_what_nobody_gave(built.model, trial.error):
            whole = with_what_it_lacks(built, trial, self.wanted)
            if whole is not None:
                return whole
        self.refused = self.refused or _with_factory(unknown, built, self.wanted)
        if trial is not None:
            self.first = self.first or (built, trial)
        return None

    def best_of_all(self) -> Chosen:
        """Where none was taken: one with other sizes that runs, or the first that has an input."""
        wanted = self.wanted
        if self.first is not None and (one := row_by_row(*self.first, wanted)) is not None:
            return one
        open_ = self.best is not None and _may_be_made_up(self.best, wanted)
        if self.first is not None and sizes_in(self.first[0].made_up):
            found, other = with_sizes_that_agree(*self.first, wanted)
            if found is not None:
                return as_wide_as_the_data(found, wanted)
            open_ = open_ or other
        if self.best is None:
            raise self.refused or TargetError(
                "nothing to examine", next_step=f"vaedoctor check {wanted.target}"
            )
        raised = trial_of(self.best, wanted).error if open_ else None
        if raised is not None:
            raise cannot_run_as_made_up(self.best, raised, wanted) from raised
        return self.best


def _without_a_forward_of_its_own(model: nn.Module, wanted: Wanted) -> TargetError | None:
    """What is said of a model whose `forward` has another name, or is left to other classes."""
    if has_forward(model):
        return None
    if (misspelt := meant_as_forward(model)) is not None:
        return misspelt
    composed = calling_of(model).parts is not None
    return None if composed else meant_below(type(model), wanted.target)


def _by_the_loss_alone(chosen: Chosen, wanted: Wanted) -> Chosen | None:
    """The model without a forward pass, where the loss that was given runs its parts itself."""
    built, batch, calling = chosen
    if wanted.loss is None or batch.guessed:
        return None
    model, idle = built.model, replace(batch, ran=False)
    try:
        loss, _ = find_objective(
            model,
            idle,
            wanted.loss,
            source=wanted.source,
            namespace=wanted.namespace,
            seed=wanted.seed,
        )
    except TargetError:
        return None
    if loss is None:
        return None
    run = attempt(lambda: total(loss.run(model, idle)), model, seed=wanted.seed)
    if not run.ran and not _of_its_own(run.error, model):
        return None
    return built, idle, Calling(calling.kwargs)


def _of_its_own(error: BaseException | None, model: nn.Module) -> bool:
    """Whether torch refuses what a method of the model's hands it."""
    if not isinstance(error, RuntimeError | ValueError) or isinstance(error, NotImplementedError):
        return False
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_locals.get("self") is not model:
        trace = trace.tb_next
    return trace is not None


def _not_composed(chosen: Chosen, error: BaseException, wanted: Wanted) -> TargetError:
    built, _, calling = chosen
    if _may_be_made_up(chosen, wanted):
        return cannot_run_as_made_up(chosen, error, wanted)
    told = cannot_compose(built.model, calling.text, error, wanted.target)
    return _with_a_forward(told, built, wanted)


def _with_a_forward(told: TargetError, built: Built, wanted: Wanted) -> TargetError:
    """The same with a file to write the forward pass of a library's class in."""
    maker = _maker(built)
    if is_of_a_library(maker, wanted.target):
        made = in_order(maker, {**by_name(maker, built.made_up), **built.typed})
        told.next_step = _first(
            pasted(maker, wanted.target, made, forwardless=True, model=built.model)
        )
    return told


def cannot_run_as_made_up(chosen: Chosen, error: BaseException, wanted: Wanted) -> TargetError:
    """What is said of a model that does not run, with the input it was given."""
    built, batch, calling = chosen
    model, args, kwargs = built.model, batch.args, batch.kwargs
    lines: list[str] = []
    if batch.guessed:
        with calling.on(model):
            lines = as_function(model, args, kwargs, blamed_for(model, args, kwargs, wanted.seed))
    return cannot_run(_maker(built), built.made_up, error, wanted.target, lines, built.typed)


def _beyond_doubt(chosen: Chosen, wanted: Wanted) -> Chosen:
    """The same; raises where the made-up batch may be to blame for what the forward pass raises."""
    built, batch, calling = chosen
    maker = _maker(built)
    of_library = is_of_a_library(maker, wanted.target)
    own = not of_library and source_of(type(built.model)) is not None
    if not is_doubtful(chosen, wanted, own=own):
        return chosen
    error = trial_of(chosen, wanted).error
    assert error is not None
    nothing_said = not (built.made_up or built.shrunk or built.typed)
    if nothing_said and not of_library and (built.thing is None or isinstance(maker, type)):
        with calling.on(built.model):
            raise refused_by(built.model, wanted.target, batch, error, wanted.seed) from error
    raise cannot_run_as_made_up(chosen, error, wanted) from error


def _maker(built: Built) -> Callable[..., Any]:
    """What the user named: a class, or a function that makes the model."""
    return built.thing if built.thing is not None else type(built.model)


def _may_be_made_up(chosen: Chosen, wanted: Wanted) -> bool:
    """Whether a failure may be due to an argument that nobody gave: a part, a lack, a refusal."""
    built, error = chosen[0], trial_of(chosen, wanted).error
    frame = user_frame(error)
    refuses = frame is not None and frame[1].startswith(("raise ", "assert "))
    return (
        bool(built.like)
        or stands_in(built.made_up)
        or calls_what_nobody_gave(built.model, error)
        or any(True for _ in given_too(built, error, wanted.namespace))
        or (refuses and bool(built.made_up))
        or _is_configured(built, wanted)
    )


def _is_configured(built: Built, wanted: Wanted) -> bool:
    """Whether a library's class was given a configuration whose entries nobody told.

    Which of them go together (`double_z`, and twice as many channels) its own files say.
    """
    held = any(isinstance(v, Mapping) for v in built.made_up.values())
    return held and is_of_a_library(type(built.model), wanted.target)


def _first(step: str) -> str:
    """A step before which no other stands."""
    return step.removeprefix("or ")


def _with_factory(error: NotGuessed, built: Built, wanted: Wanted) -> TargetError:
    """The refusal with the function that makes the same model, where nobody gave its sizes."""
    maker, invented = _maker(built), {**built.made_up, **built.shrunk}
    raised = None if error.trial is None else error.trial.error
    if raised is not None and invented:
        asked = with_gaps(maker, invented, raised, by_lines=False)
        if asked != invented:
            return cannot_run(maker, invented, raised, wanted.target, error.lines, built.typed)
    own = isinstance(maker, type) and not is_of_a_library(maker, wanted.target)
    if wanted.target and built.thing is not None and (invented or built.typed or not own):
        made = in_order(maker, {**by_name(maker, invented), **built.typed})
        lines, model = error.lines, built.model
        file = pasted(maker, wanted.target, made, lines, with_batch=True, model=model)
        error.next_step = f"{error.shape}\n\n{file}" if error.shape else _first(file)
    return error
