"""Of the models that made-up arguments give, the first whose forward pass ends."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from typing import Any

from torch import Tensor, nn

from .batches.batch import NotGuessed, find_batch, parse_input
from .calling import Calling, calling_of, has_forward
from .code.source import Source
from .composing import EncodeDecode, is_pyro_pair
from .construct.after_all import calls_what_nobody_gave, given_too
from .construct.bases import meant_below
from .construct.built import Built
from .construct.gaps import with_gaps
from .construct.parts import holds_written, returning, stands_in
from .construct.set_elsewhere import with_what_is_set
from .construct.solving import Outcome, Values, as_wide_as_given, sizes_in, solve, with_size
from .construct.unbuildable import cannot_compose, cannot_run, factory
from .errors import TargetError
from .forwardless import meant_as_forward, without_forward
from .script.stepped import Stepped, stepped
from .subject import Batch
from .trials.trial import Trial, attempt, leaves
from .trials.witness import TooMuchWork, user_frame

_VIEWED = "view size is not compatible with"
_MOST_MADE_UP = 6
_MOST_ANSWERS = 8
_MOST_SECONDS = 30.0  # of one core, after which no further model is tried

Chosen = tuple[Built, Batch, Calling]


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the user said, and what is known about the file: the same for every model tried."""

    batch: Any
    source: Source | None
    namespace: Mapping[str, Any]
    batch_size: int | None
    call: Mapping[str, Any]
    seed: int
    target: str


def first_that_runs(models: Iterator[Built], wanted: Wanted) -> Chosen:
    """The first model; of several with made-up arguments the first whose forward pass ends.

    Where none does, sizes that must agree are solved for. Raises `TargetError` where no input
    can be made up, or where only the made-up sizes may be to blame.
    """
    best: Chosen | None = None
    refused: TargetError | None = None
    first: tuple[Built, Trial] | None = None
    ends = time.thread_time() + _MOST_SECONDS
    for built in islice(models, _MOST_MADE_UP):
        if first is not None and time.thread_time() > ends:
            break
        if (unnamed := _without_a_forward_of_its_own(built.model, wanted)) is not None:
            raise unnamed
        try:
            chosen = _affordable(built, wanted)
        except NotGuessed as unknown:
            if unknown.trial is not None and calls_what_nobody_gave(
                built.model, unknown.trial.error
            ):
                whole = _with_what_it_lacks(built, unknown.trial, wanted)
                if whole is not None:
                    return _as_wide_as_the_data(whole, wanted)
            refused = refused or _with_factory(unknown, built, wanted)
            if unknown.trial is not None:
                first = first or (built, unknown.trial)
            continue
        if chosen[1].ran:
            return _as_wide_as_the_data(chosen, wanted)
        trial = _trial(chosen, wanted)
        if wanted.batch is None and not has_forward(built.model) and chosen[2].parts is None:
            raise without_forward(built.model, wanted.target)
        if (whole := _with_what_it_lacks(built, trial, wanted)) is not None:
            return _as_wide_as_the_data(whole, wanted)
        if chosen[2].parts is not None and trial.error is not None and not _is_told(chosen, wanted):
            refused = refused or _not_composed(chosen, trial.error, wanted)
            if not built.made_up:
                raise refused
            first = first or (built, trial)
            continue
        if not (built.made_up or built.shrunk):
            error = trial.error
            if error and wanted.source is None and calls_what_nobody_gave(built.model, error):
                raise cannot_run(type(built.model), {}, error, wanted.target) from error
            return chosen
        best = best or chosen
        first = first or (built, trial)
    if first is not None and (one := _row_by_row(*first, wanted)) is not None:
        return one
    open_ = best is not None and _may_be_made_up(best, wanted)
    if first is not None and sizes_in(first[0].made_up):
        found, other = _solved(*first, wanted)
        if found is not None:
            return _as_wide_as_the_data(found, wanted)
        open_ = open_ or other
    if best is None:
        raise refused or TargetError(
            "nothing to examine", next_step=f"vaedoctor check {wanted.target}"
        )
    raised = _trial(best, wanted).error if open_ else None
    if raised is not None:
        raise cannot_run(type(best[0].model), best[0].made_up, raised, wanted.target) from raised
    return best


def _row_by_row(built: Built, trial: Trial, wanted: Wanted) -> Chosen | None:
    """The model with one row, where a view of turned axes runs with nothing else."""
    if wanted.batch_size is not None or not built.made_up or _VIEWED not in str(trial.error):
        return None
    one = replace(wanted, batch_size=1)
    try:
        chosen = _with_batch(built, one)
    except NotGuessed as error:
        return None if error.trial is None else _solved(built, error.trial, one)[0]
    return chosen if chosen[1].ran else _solved(built, _trial(chosen, one), one)[0]


def _without_a_forward_of_its_own(model: nn.Module, wanted: Wanted) -> TargetError | None:
    """What is said of a model whose `forward` has another name, or is left to other classes."""
    if has_forward(model):
        return None
    if (misspelt := meant_as_forward(model)) is not None:
        return misspelt
    composed = calling_of(model).parts is not None
    return None if composed else meant_below(type(model), wanted.target)


def _not_composed(chosen: Chosen, error: BaseException, wanted: Wanted) -> TargetError:
    built, _, calling = chosen
    if _may_be_made_up(chosen, wanted):
        return cannot_run(type(built.model), built.made_up, error, wanted.target)
    return cannot_compose(built.model, calling.text, error, wanted.target)


def _may_be_made_up(chosen: Chosen, wanted: Wanted) -> bool:
    """Whether a failure may be due to an argument that nobody gave: a part, a lack, a refusal."""
    built, error = chosen[0], _trial(chosen, wanted).error
    frame = user_frame(error)
    refuses = frame is not None and frame[1].startswith(("raise ", "assert "))
    return (
        bool(built.like)
        or stands_in(built.made_up)
        or calls_what_nobody_gave(built.model, error)
        or given_too(built, error, wanted.namespace) is not None
        or (refuses and bool(built.made_up))
    )


def _with_factory(error: NotGuessed, built: Built, wanted: Wanted) -> TargetError:
    """The refusal with the function that makes the same model, where nobody gave its sizes."""
    kind, invented = type(built.model), {**built.made_up, **built.shrunk}
    raised = None if error.trial is None else error.trial.error
    if raised is not None and invented:
        asked = with_gaps(kind, invented, raised, by_lines=False)
        if asked != invented:
            return cannot_run(kind, invented, raised, wanted.target)
    if wanted.target and invented:
        made = factory(kind, wanted.target, invented)
        error.next_step += f"\n\n{made} --input data.py:one_batch"
    return error


def _affordable(built: Built, wanted: Wanted) -> Chosen:
    """The model with its batch; a sibling with smaller defaults where that costs too much."""
    try:
        return _with_batch(built, wanted, patient=False)
    except TooMuchWork as stopped:
        if (wide := _as_wide_as_given(built, stopped.trial, wanted)) is not None:
            return wide
    for less in built.smaller():
        try:
            chosen = _with_batch(less, wanted, patient=False)
        except (NotGuessed, TooMuchWork):
            continue
        if chosen[1].ran:
            return chosen
    return _with_batch(built, wanted)


def _as_wide_as_given(built: Built, trial: Trial | None, wanted: Wanted) -> Chosen | None:
    """The model whose made-up sizes are as wide as what is cut into rows of them."""
    if built.remake is None or trial is None:
        return None
    start = Outcome(dict(built.made_up), trial.error, trial.completed, trial.given)
    for values in as_wide_as_given(start):
        try:
            chosen = _with_batch(built.remake(values), wanted, patient=False)
        except KeyboardInterrupt:
            raise
        except BaseException:
            continue
        if chosen[1].ran:
            return _noted(chosen, str(trial.error))
    return None


def _with_batch(built: Built, wanted: Wanted, *, patient: bool = True) -> Chosen:
    model, given = built.model, wanted.batch
    if isinstance(given, str):
        given = parse_input(given, model, seed=wanted.seed)
    refused: NotGuessed | TooMuchWork | None = None
    best: Chosen | None = None
    for calling in _callings(model, wanted):
        try:
            chosen = _called(built, calling, given, wanted, patient)
        except (NotGuessed, TooMuchWork) as error:
            refused = refused or error
            continue
        if chosen[1].ran or _is_told(chosen, wanted):
            return chosen
        best = best or chosen
    if best is None:
        assert refused is not None
        raise refused
    return best


def _is_told(chosen: Chosen, wanted: Wanted) -> bool:
    """Whether the step of the file's loop, on the file's own data, raises inside the model."""
    parts = chosen[2].parts
    if not isinstance(parts, Stepped) or chosen[1].guessed:
        return False
    return parts.tells(_trial(chosen, wanted).error)


def _callings(model: nn.Module, wanted: Wanted) -> Iterator[Calling]:
    """The ways to call a model: of one without `forward` its parts, or a step of the file's loop.

    The step comes first where it calls other methods than those parts.
    """
    plain = calling_of(model, wanted.call)
    if has_forward(model) or wanted.call or is_pyro_pair(model):
        yield plain
        return
    steps = stepped(model, wanted.source, wanted.namespace, wanted.seed)
    if wanted.source is not None and wanted.source.joined == type(model).__name__ and steps:
        yield from (Calling(parts=s, way=s.way) for s in steps)
        return
    composed = plain.parts
    known = set[str]()
    if isinstance(composed, EncodeDecode):
        known = {composed.encode, composed.sample, composed.decode}
    fuller = [s for s in steps if composed is None or _is_fuller({*s.cut.methods}, known)]
    yield from (Calling(parts=s, way=s.way) for s in fuller)
    if composed is not None or not steps:
        yield plain
    rest = [s for s in steps if s not in fuller]
    yield from (Calling(parts=s, way=s.way) for s in rest)


def _is_fuller(methods: set[str], known: set[str]) -> bool:
    return len(methods) > 1 and not methods <= known


def _called(built: Built, calling: Calling, given: Any, wanted: Wanted, patient: bool) -> Chosen:
    model, parts = built.model, calling.parts
    examples = parts.examples(model, wanted.seed) if isinstance(parts, Stepped) else ()
    with calling.on(model):
        found = find_batch(
            model,
            given,
            source=wanted.source,
            namespace=wanted.namespace,
            hints=built.hints,
            batch_size=wanted.batch_size,
            seed=wanted.seed,
            target=wanted.target,
            patient=patient,
            invented=bool(built.made_up or built.shrunk),
            stepped=examples,
        )
    return built, found, calling


def _with_what_it_lacks(built: Built, trial: Trial, wanted: Wanted) -> Chosen | None:
    """The model with an optional argument after all, without which an attribute is never set.

    Or with parts that return what is asked of them.
    """
    for _ in range(_MOST_ANSWERS):
        if (filled := with_what_is_set(built, trial.error)) is not None:
            chosen = _with_batch(filled, wanted)
            if chosen[1].ran:
                return chosen
            built, trial = filled, _trial(chosen, wanted)
            continue
        values = given_too(built, trial.error, wanted.namespace) or returning(built.made_up, trial)
        if built.remake is None or not values:
            break
        try:
            built = built.remake(values)
            chosen = _with_batch(built, wanted)
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
        trial = _trial(chosen, wanted)
    if not any(map(holds_written, built.made_up.values())):
        return None
    return _solved(built, trial, wanted)[0]


def _as_wide_as_the_data(chosen: Chosen, wanted: Wanted) -> Chosen:
    """The model whose made-up sizes let it give back what it takes, where one of them decides."""
    built, remake = chosen[0], chosen[0].remake
    if not built.made_up or remake is None or (widths := _widths(chosen, wanted)) is None:
        return chosen
    for path, size in sizes_in(built.made_up):
        for old, new in (widths, widths[::-1]):
            if size != old:
                continue
            try:
                other = _with_batch(remake(with_size(dict(built.made_up), path, new)), wanted)
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
    out = (v for _, v in leaves(_trial(chosen, wanted).value) if id(v) not in given)
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


def _trial(chosen: Chosen, wanted: Wanted) -> Trial:
    built, batch, calling = chosen
    with calling.on(built.model):
        return attempt(partial(batch.run, built.model), built.model, seed=wanted.seed)


def _solved(built: Built, trial: Trial, wanted: Wanted) -> tuple[Chosen | None, bool]:
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
            chosen = _with_batch(other, wanted)
        except NotGuessed as error:
            tried = error.trial
            if tried is None:
                return None
            return Outcome(values, tried.error, tried.completed, tried.given)
        if chosen[1].ran:
            return Outcome(values, None, 0, result=chosen)
        tried = _trial(chosen, wanted)
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
