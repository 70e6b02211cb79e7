"""The example input: given, the user's own, or guessed from the first layer that is executed."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ..code.source import Source
from ..script.example import Example, own_examples
from ..script.feeding import fed
from ..subject import Batch
from ..trials.trial import Trial, attempt, forward_parameters, home, leaves
from ..trials.witness import TooMuchWork, observe
from .companions import is_graph
from .guess import Guesser, Made
from .handed import as_batch
from .nofit import no_guess

_DEFAULT_ROWS = 8
_FEW_ROWS = 2
MOST_WORK = 2e9  # multiplications of a forward pass: about 0.2 s on one core
_MOST_ROWS = 64
_MOST_NUMBERS = 200_000  # 16 rows of 3x64x64
_OF_SIZE = re.compile(r"shape|size|dimension|channels|must match", re.IGNORECASE)
_OF_INDEX = re.compile(r"^(Target \d+ is out of bounds|index out of range in self)")
_OF_VALUES = "to satisfy the constraint"  # torch.distributions on NaN, or a scale of 0


def find_batch(
    model: nn.Module,
    given: Any = None,
    *,
    source: Source | None = None,
    namespace: Mapping[str, Any] | None = None,
    hints: Mapping[str, Any] | None = None,
    batch_size: int | None = None,
    seed: int = 0,
    target: str = "",
    patient: bool = True,
    invented: bool = False,
    stepped: Iterable[Example] = (),
    loss: Any = None,
) -> Batch:
    """A batch for one forward pass; `ran` says whether the pass came to its end.

    A given batch is returned even when the model rejects it: the examination explains why.
    Unless `patient`, raises `TooMuchWork` where even a small batch costs more than is reasonable.
    `invented` says that arguments of the constructor were: the file's data may not go with them.
    `stepped` are examples for the step that is the forward pass of a model without one; `loss` is
    what the user said the loss is.
    """
    if given is not None:
        return as_batch(model, given, seed=seed, loss=loss)
    tried: Batch | None = None
    stops = ""
    if source is not None:
        own = own_examples(source, model, namespace or {}, seed)
        examples = itertools.chain(stepped, own, fed(source, model, namespace or {}, seed))
        taken, tried, stops = _of_the_file(examples, model, batch_size, seed, invented)
        if taken is not None:
            return taken
    made = _made_up(model, hints or {}, batch_size, seed, patient)
    if tried is not None and (made is None or not made.trial.ran or _comes_out_larger(made)):
        return tried
    if made is None or made.misfit:
        raise no_guess(model, target, made)
    origin = made.origin
    if tried is not None:
        origin += f", because {tried.origin} does not run"
    elif stops:
        origin += f", because {stops}"
    return Batch(made.args, made.kwargs, origin, True, made.trial.ran, made.axis, work=made.work)


def _of_the_file(
    examples: Iterable[Example],
    model: nn.Module,
    batch_size: int | None,
    seed: int,
    invented: bool,
) -> tuple[Batch | None, Batch | None, str]:
    """The example to take, if any; else the first that was tried, and what stopped others."""
    tried: Batch | None = None
    stops = ""
    for example in examples:
        stops, refused = stops or example.stops, None
        for batch in () if example.stops else _rows(example, batch_size, model, seed):
            trial = _tried(batch, model, seed, limited=example.few)
            if isinstance(trial.error, TooMuchWork):
                break
            if trial.ran or _OF_VALUES in str(trial.error):
                # Data that fits, of which the model makes what no distribution takes.
                return replace(batch, ran=trial.ran), tried, stops
            stopped = replace(batch, ran=False)
            if example.sure and _is_refused(trial) and not invented:
                refused = refused or stopped
            tried = tried or stopped
        if refused is not None:
            return refused, tried, stops
    return None, tried, stops


def _tried(batch: Batch, model: nn.Module, seed: int, *, limited: bool) -> Trial:
    """How a forward pass on the file's own data ends; `limited` one that costs too much."""
    run = partial(batch.run, model)
    if not limited:
        return attempt(run, model, seed=seed)
    return observe(run, model, {}, seed=seed, most_work=MOST_WORK).trial


def _is_refused(trial: Trial) -> bool:
    """Whether a layer of the model refuses the size or the indices of what it is given."""
    said = str(trial.error)
    of_size = isinstance(trial.error, RuntimeError) and _OF_SIZE.search(said)
    of_index = isinstance(trial.error, IndexError) and _OF_INDEX.search(said)
    return bool((of_size or of_index) and (trial.running or trial.completed))


def _comes_out_larger(made: Made) -> bool:
    """Whether images or sequences come out in another size than went in: no input for this model.

    Then the user's own example, which does not run, is what the model was written for.
    """
    x = next((a for a in made.args if isinstance(a, Tensor) and a.is_floating_point()), None)
    if x is None or x.dim() < 3 or made.score[1]:
        return False
    return any(
        isinstance(v, Tensor) and v.dim() == x.dim() and v.shape[:2] == x.shape[:2]
        for _, v in leaves(made.trial.value)
    )


def _made_up(
    model: nn.Module, hints: Mapping[str, Any], batch_size: int | None, seed: int, patient: bool
) -> Made | None:
    """The best guess, with fewer rows where a forward pass costs too much with the usual ones.

    With other rows, too, where an input has as many steps: a number a row may then be taken for
    one a step.
    """
    rows = [batch_size] if batch_size else [_DEFAULT_ROWS, _FEW_ROWS]
    made: Made | None = None
    for few in rows:
        guesser = Guesser(model, hints, few, seed, MOST_WORK)
        made = guesser.best()
        if (
            made is not None
            and made.trial.ran
            and batch_size is None
            and steps_like_rows(made, few)
        ):
            other = Guesser(model, hints, few + 1, seed, MOST_WORK).best()
            if other is not None and other.trial.ran and not steps_like_rows(other, few + 1):
                return other
        if (made is not None and made.trial.ran) or not guesser.heavy:
            return made
    if not patient:
        stopped = TooMuchWork()
        stopped.trial = None if made is None else made.trial
        raise stopped
    return Guesser(model, hints, rows[-1], seed).best()


def steps_like_rows(made: Batch | Made, rows: int) -> bool:
    """Whether an input of several axes has another as long as the first, beside one of fewer."""
    inside = [leaf for _, leaf in leaves((made.args, dict(made.kwargs)))]
    tensors = [t for t in inside if isinstance(t, Tensor) and t.dim() and t.shape[0] == rows]
    fewest = min((t.dim() for t in tensors), default=0)
    return any(t.dim() > max(2, fewest) and rows in t.shape[1:-1] for t in tensors)


def _rows(example: Example, batch_size: int | None, model: nn.Module, seed: int) -> Iterator[Batch]:
    """The user's example with a sensible number of rows, then exactly as it was written."""
    origin = example.origin or f"your own example in {example.line}"
    axis = None if _is_one_graph(example, model) else 0
    written = Batch(example.args, example.kwargs, origin, axis=axis, around=example.around)
    first = next((a for a in example.args if isinstance(a, Tensor) and a.dim()), None)
    if first is None:
        yield written
        return
    rows = batch_size or (first.shape[0] if first.shape[0] > 1 else _DEFAULT_ROWS)
    rows = batch_size or min(rows, _few(first) if example.few else _MOST_ROWS)
    generator = torch.Generator().manual_seed(seed)

    def resized(value: Any) -> Any:
        if not isinstance(value, Tensor) or not value.dim() or value.shape[0] != first.shape[0]:
            return value
        return _with_rows(value, rows, generator)

    kwargs = {k: resized(v) for k, v in example.kwargs.items()}
    dtype, device = home(model)
    args = tuple(_moved(resized(a), dtype, device) for a in example.args)
    yield replace(written, args=args, kwargs=kwargs)
    if rows != first.shape[0]:
        yield written


def _few(first: Tensor) -> int:
    """How many rows of a loader's batch do: fewer of large pictures."""
    size = max(first[:1].numel(), 1)
    return max(_FEW_ROWS, min(_DEFAULT_ROWS, _MOST_NUMBERS // size))


def _is_one_graph(example: Example, model: nn.Module) -> bool:
    """Whether an argument beside a matrix of features says that its rows are nodes."""
    names = [p.name for p in forward_parameters(model)][: len(example.args)]
    first = next((a for a in example.args if isinstance(a, Tensor)), None)
    flat = first is not None and first.dim() < 3
    return flat and any(map(is_graph, [*names, *example.kwargs]))


def _with_rows(value: Tensor, rows: int, generator: torch.Generator) -> Tensor:
    """The first rows, or fresh ones of the same kind where there are too few or all are equal."""
    if rows <= value.shape[0] and bool((value[:1] != value[:rows]).any()):
        return value[:rows].clone()
    shape = (rows, *value.shape[1:])
    if value.is_floating_point():
        signed = bool((value < 0).any())
        draw = torch.randn if signed else torch.rand
        return draw(shape, generator=generator).to(value.dtype)
    if value.dtype is torch.bool or value.is_complex():
        return value[:1].expand(shape).clone()
    top = max(int(value.max()) + 1, 1)
    return torch.randint(0, top, shape, generator=generator).to(value.dtype)


def _moved(value: Any, dtype: torch.dtype, device: torch.device) -> Any:
    if not isinstance(value, Tensor):
        return value
    return value.to(device, dtype) if value.is_floating_point() else value.to(device)
