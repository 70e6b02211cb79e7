"""One model with its batch, called in the way in which it runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import nn

from .batches.batch import find_batch
from .batches.handed import parse_input
from .batches.nofit import NotGuessed
from .calling import Calling, calling_of, has_forward
from .code.source import Source
from .composing import EncodeDecode, is_pyro_pair
from .construct.built import Built
from .construct.unbuildable import is_of_a_library
from .script.stepped import Stepped, stepped
from .subject import Batch
from .trials.trial import Trial, attempt
from .trials.witness import TooMuchWork
from .whole import only_encodes, whole_passes

Chosen = tuple[Built, Batch, Calling]


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the user said, and what is known about the file: the same for every model tried.

    `loss` is what the user said the loss is.
    """

    batch: Any
    source: Source | None
    namespace: Mapping[str, Any]
    batch_size: int | None
    call: Mapping[str, Any]
    seed: int
    target: str
    loss: Any = None


def with_batch(built: Built, wanted: Wanted, *, patient: bool = True) -> Chosen:
    """The model with the first way to call it that runs, or else the first that has an input.

    Raises `NotGuessed` where there is no input, and `TooMuchWork` unless `patient`.
    """
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
        if chosen[1].ran or is_told(chosen, wanted):
            return chosen
        best = best or chosen
    if best is None:
        assert refused is not None
        raise refused
    return best


def is_told(chosen: Chosen, wanted: Wanted) -> bool:
    """Whether the step of the file's loop, on the file's own data, raises inside the model."""
    parts = chosen[2].parts
    if not isinstance(parts, Stepped) or chosen[1].guessed:
        return False
    return parts.tells(trial_of(chosen, wanted).error)


def _callings(model: nn.Module, wanted: Wanted) -> Iterator[Calling]:
    """The ways to call a model: of one without `forward` its parts, or a step of the file's loop.

    The step comes first where it calls other methods than those parts.
    """
    plain = calling_of(model, wanted.call)
    if has_forward(model) and not wanted.call and is_of_a_library(type(model), wanted.target):
        wholes = whole_passes(model) if only_encodes(model) else []
        yield from (Calling(parts=w, way=(f"`{w.method}` for `forward`",)) for w in wholes)
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
    if composed is not None:
        yield plain
    yield from (Calling(parts=w, way=(f"`{w.method}` for `forward`",)) for w in whole_passes(model))
    if composed is None and not steps:
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
            loss=wanted.loss,
        )
    return built, found, calling


def trial_of(chosen: Chosen, wanted: Wanted) -> Trial:
    """One more run of a model on its batch."""
    built, batch, calling = chosen
    with calling.on(built.model):
        return attempt(partial(batch.run, built.model), built.model, seed=wanted.seed)
