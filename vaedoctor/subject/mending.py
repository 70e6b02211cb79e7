"""A model with made-up arguments that does not run: given what it lacks, or other sizes."""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import islice

from torch import Tensor

from .batches.nofit import NotGuessed
from .construct.after_all import given_too
from .construct.built import Built
from .construct.parts import holds_written, returning
from .construct.set_elsewhere import with_what_is_set
from .construct.solving import Outcome, Values, as_wide_as_given, sizes_in, solve, with_size
from .running import Chosen, Wanted, trial_of, with_batch
from .trials.trial import Trial, leaves
from .trials.witness import TooMuchWork

_VIEWED = "view size is not compatible with"
_OF_SIZES = re.compile(r"shape|size of tensor|sizes of tensors|channels", re.IGNORECASE)
_MOST_ANSWERS = 8
_MOST_OPTIONS = 3


def affordable(built: Built, wanted: Wanted) -> Chosen:
    """The model with its batch; a sibling with smaller defaults where that costs too much."""
    try:
        return with_batch(built, wanted, patient=False)
    except TooMuchWork as stopped:
        if (wide := _as_wide_as_given(built, stopped.trial, wanted)) is not None:
            return wide
    for less in built.smaller():
        try:
            chosen = with_batch(less, wanted, patient=False)
        except (NotGuessed, TooMuchWork):
            continue
        if chosen[1].ran:
            return chosen
    return with_batch(built, wanted)


def _as_wide_as_given(built: Built, trial: Trial | None, wanted: Wanted) -> Chosen | None:
    """The model whose made-up sizes are as wide as what is cut into rows of them."""
    if built.remake is None or trial is None:
        return None
    start = Outcome(dict(built.made_up), trial.error, trial.completed, trial.given)
    for values in as_wide_as_given(start):
        try:
            chosen = with_batch(built.remake(values), wanted, patient=False)
        except KeyboardInterrupt:
            raise
        except BaseException:
            continue
        if chosen[1].ran:
            return _noted(chosen, str(trial.error))
    return None


def with_what_it_lacks(built: Built, trial: Trial, wanted: Wanted) -> Chosen | None:
    """The model with an optional argument after all, without which an attribute is never set.

    Or with parts that return what is asked of them.
    """
    waiting: list[tuple[Built, Values]] = []
    start = built
    for _ in range(_MOST_ANSWERS):
        if (filled := with_what_is_set(built, trial.error)) is not None:
            chosen = with_batch(filled, wanted)
            if chosen[1].ran:
                return chosen
            built, trial = filled, trial_of(chosen, wanted)
            continue
        options = list(islice(given_too(built, trial.error, wanted.namespace), _MOST_OPTIONS))
        if not options and (values := returning(built.made_up, trial)):
            options = [values]
        waiting = [(built, values) for values in options if built.remake is not None] + waiting
        if not waiting:
            break
        before, values = waiting.pop(0)
        assert before.remake is not None
        try:
            built = before.remake(values)
            chosen = with_batch(built, wanted)
        except KeyboardInterrupt:
            raise
        except NotGuessed as error:
            if error.trial is None:
                return None
            trial = error.trial
            continue
        except BaseException:
            return None
        if chosen[1].ran:
            return chosen
        trial = trial_of(chosen, wanted)
    of_sizes = built is not start and _OF_SIZES.search(str(trial.error)) is not None
    if not of_sizes and not any(map(holds_written, built.made_up.values())):
        return None
    return with_sizes_that_agree(built, trial, wanted)[0]


def as_wide_as_the_data(chosen: Chosen, wanted: Wanted) -> Chosen:
    """The model whose made-up sizes let it give back what it takes, where one of them decides."""
    built, remake = chosen[0], chosen[0].remake
    if not built.made_up or remake is None or (widths := _widths(chosen, wanted)) is None:
        return chosen
    for path, size in sizes_in(built.made_up):
        for old, new in (widths, widths[::-1]):
            if size != old:
                continue
            try:
                other = with_batch(remake(with_size(dict(built.made_up), path, new)), wanted)
            except KeyboardInterrupt:
                raise
            except BaseException:
                continue
            if other[1].ran and _widths(other, wanted) is None:
                return other
    return chosen


def _widths(chosen: Chosen, wanted: Wanted) -> tuple[int, int] | None:
    """The widths of what comes out and of the data, where nothing that comes out is like it.

    Of pictures the channels.
    """
    x = next((a for a in chosen[1].args if isinstance(a, Tensor)), None)
    if x is None or not x.is_floating_point() or x.dim() < 2:
        return None
    given = {id(a) for a in chosen[1].args}  # some models return what they were given
    out = (v for _, v in leaves(trial_of(chosen, wanted).value) if id(v) not in given)
    made = [v for v in out if isinstance(v, Tensor)]
    if any(v.numel() == x.numel() for v in made):
        return None
    axis = -1 if x.dim() < 4 else 1
    others = [n for i, n in enumerate(x.shape) if i != axis % x.dim()]
    alike = [
        v.shape[axis]
        for v in made
        if v.dim() == x.dim()
        and [n for i, n in enumerate(v.shape) if i != axis % x.dim()] == others
    ]
    return (max(alike), x.shape[axis]) if alike else None


def row_by_row(built: Built, trial: Trial, wanted: Wanted) -> Chosen | None:
    """The model with one row, where a view of turned axes runs with nothing else."""
    if wanted.batch_size is not None or not built.made_up or _VIEWED not in str(trial.error):
        return None
    one = replace(wanted, batch_size=1)
    try:
        chosen = with_batch(built, one)
    except NotGuessed as error:
        return None if error.trial is None else with_sizes_that_agree(built, error.trial, one)[0]
    return chosen if chosen[1].ran else with_sizes_that_agree(built, trial_of(chosen, one), one)[0]


def with_sizes_that_agree(built: Built, trial: Trial, wanted: Wanted) -> tuple[Chosen | None, bool]:
    """The model with sizes that agree, and else whether there may be some."""
    remake = built.remake
    if remake is None or trial.ran:
        return None, False

    def again(values: Values) -> Outcome | None:
        try:
            other = remake(values)
        except KeyboardInterrupt:
            raise
        except BaseException:  # sizes that the constructor itself refuses
            return None
        try:
            chosen = with_batch(other, wanted)
        except NotGuessed as error:
            tried = error.trial
            if tried is None:
                return None
            return Outcome(values, tried.error, tried.completed, tried.given)
        if chosen[1].ran:
            return Outcome(values, None, 0, result=chosen)
        tried = trial_of(chosen, wanted)
        return Outcome(values, tried.error, tried.completed, tried.given, chosen)

    start = Outcome(dict(built.made_up), trial.error, trial.completed, trial.given)
    solution = solve(start, again, rows=wanted.batch_size or 8)
    if solution.ran is None:
        return None, solution.open
    return _noted(solution.ran.result, solution.because), True


def _noted(chosen: Chosen, because: str) -> Chosen:
    first = because.partition("\n")[0]
    notes = (*chosen[0].notes, f"made-up sizes were changed until they agreed: {first}")
    return (replace(chosen[0], notes=notes), *chosen[1:])
