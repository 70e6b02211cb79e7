"""The example input: given, the user's own, or guessed from the first layer that is executed."""

from __future__ import annotations

import inspect
import itertools
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..code.source import Source
from ..errors import TargetError, summary
from ..script.example import Example, own_examples
from ..script.feeding import fed
from ..subject import LOADED, Batch
from ..trials.trial import Trial, attempt, forward_parameters, home, leaves
from ..trials.witness import TooMuchWork, observe
from .companions import is_graph
from .guess import Guesser, Made

_SHAPE = re.compile("\\d+(?:[x,\u00d7]\\d+)*")  # \u00d7 is the multiplication sign
_DEFAULT_ROWS = 8
_FEW_ROWS = 2
MOST_WORK = 2e9  # multiplications of a forward pass: about 0.2 s on one core
_MOST_ROWS = 64
_MOST_NUMBERS = 200_000  # 16 rows of 3x64x64
_OF_SIZE = re.compile(r"shape|size|dimension|channels|must match", re.IGNORECASE)
_OF_INDEX = re.compile(r"^(Target \d+ is out of bounds|index out of range in self)")
_OF_VALUES = "to satisfy the constraint"  # torch.distributions on NaN, or a scale of 0


class NotGuessed(TargetError):
    """No made-up input fits; `trial` is the one that came furthest, if any was made."""

    trial: Trial | None = None


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
) -> Batch:
    """A batch for one forward pass; `ran` says whether the pass came to its end.

    A given batch is returned even when the model rejects it: the examination explains why.
    Unless `patient`, raises `TooMuchWork` where even a small batch costs more than is reasonable.
    `invented` says that arguments of the constructor were: the file's data may not go with them.
    `stepped` are examples for the step that is the forward pass of a model without one.
    """
    if given is not None:
        return as_batch(model, given, seed=seed)
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
        raise _no_guess(model, target, made)
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
    """The best guess, with fewer rows where a forward pass costs too much with the usual ones."""
    rows = [batch_size] if batch_size else [_DEFAULT_ROWS, _FEW_ROWS]
    made: Made | None = None
    for few in rows:
        guesser = Guesser(model, hints, few, seed, MOST_WORK)
        made = guesser.best()
        if (made is not None and made.trial.ran) or not guesser.heavy:
            return made
    if not patient:
        stopped = TooMuchWork()
        stopped.trial = None if made is None else made.trial
        raise stopped
    return Guesser(model, hints, rows[-1], seed).best()


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


def _nearest(made: Made | None, parameters: list[inspect.Parameter]) -> dict[str, str]:
    """What the try that came furthest gave to each parameter, as an expression to be edited."""
    given: dict[str, Any] = {}
    if made is not None:
        names = [p.name for p in parameters]
        given = dict(zip(names, made.args, strict=False)) | dict(made.kwargs)
    needed = [p.name for p in parameters if p.default is p.empty or p.name in given] or ["x"]
    return {n: _expression(given.get(n, ...)) for n in needed}


def _expression(value: Any) -> str:
    match value:
        case Tensor() if value.dtype is torch.bool:
            return f"torch.ones({_sides(value)}, dtype=torch.bool)"
        case Tensor() if value.dim() and not value.is_floating_point() and value.numel():
            return f"torch.randint({int(value.max()) + 1}, ({_sides(value)},))"
        case Tensor() if value.dim() > 1:
            return f"torch.rand({_sides(value)})"
        case torch.device():
            return f'torch.device("{value}")'
        case bool() | int() | float() | str() | None:
            return repr(value)
        case dict() if value:
            entries = (f"        {k!r}: {_expression(v)}," for k, v in value.items())
            return "\n".join(["{", *entries, "    }"])
        case list() | tuple() if value:
            inside = ", ".join(map(_expression, value))
            return f"[{inside}]" if isinstance(value, list) else f"({inside},)"
    return "torch.rand(16, 784)"


def _sides(value: Tensor) -> str:
    return ", ".join(map(str, value.shape))


def _no_guess(model: nn.Module, target: str, made: Made | None) -> NotGuessed:
    parameters = [p for p in forward_parameters(model) if p.kind is not p.VAR_POSITIONAL]
    names = ", ".join(p.name for p in parameters)
    command = f"vaedoctor check {target or 'mymodel.py:VAE'}"
    tried = ""
    if made is not None and made.trial.error is not None:
        tried = f"; the nearest try ({made.origin}) raised {summary(made.trial.error)}"
    lines = [f"{command} --input 16x784"] if len(parameters) < 2 else []
    shown = _nearest(made, parameters)
    alone = len(shown) == 1
    given = ", ".join(f"{e}  # {n}" if alone else n for n, e in shown.items())
    rows = [] if alone else [f"    {n} = {e}" for n, e in shown.items()]
    refused = NotGuessed(
        f"the input of `{type(model).__name__}.forward({names})` cannot be guessed{tried}",
        next_step="\n".join(
            [
                *lines,
                f"{command} --input data.py:one_batch",
                "",
                "where data.py says what forward takes:",
                "",
                "import torch",
                "",
                "def one_batch():",
                *rows,
                f"    return {given}",
            ]
        ),
    )
    refused.trial = None if made is None else made.trial
    return refused
