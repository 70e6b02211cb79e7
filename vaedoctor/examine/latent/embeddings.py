"""Are codes stable: what the model's embedding methods return, in two calls with two seeds."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ...finding import Span
from ...rule import Unavailable
from ...subject.subject import Subject
from ...subject.trials.switches import seed_everything, set_mode
from ..code.listing import Method, methods_of, span_in
from ..runs.inventory import inventory, leaf_names
from ..runs.outputs import named_tensors
from ..runs.recorder import Recorder
from ..runs.recording import Op

EMBEDS = (
    "encode embed predict transform get_latent get_latents get_embedding get_embeddings "
    "embedding represent get_latent_representation encode_mean to_latent codes get_codes "
    "get_features extract_features"
).split()


@dataclass(frozen=True, slots=True)
class Embedding:
    """What one embedding method returned in two calls: the largest difference, and the draw."""

    name: str
    difference: float
    draw: str
    at: Span | None


def embeddings(subject: Subject, seed: int, rewind: Callable[[], None]) -> list[Embedding]:
    """Call every embedding method twice in evaluation mode, with two seeds."""
    model, found = subject.model, []
    args = subject.batch.args or tuple(subject.batch.kwargs.values())
    for name in EMBEDS:
        method = getattr(type(model), name, None)
        own = next((m for m in methods_of(type(model)) if m.name == name), None)
        if method is None or own is None or not args:
            continue
        count = _takes(getattr(model, name))
        if count is None or count > len(args):
            continue
        pair = _two_calls(subject, name, args[: max(1, count)], seed, rewind)
        if pair is None:
            continue
        first, second, draw = pair
        found.append(
            Embedding(
                name,
                _difference(first, second),
                draw.name if draw else "",
                _given_back(own, draw),
            )
        )
    if not found:
        raise Unavailable("the model has no `encode`, `embed`, `predict` or `transform`")
    return found


def _given_back(method: Method, draw: Op | None) -> Span | None:
    """Where a method draws; of a draw that another function makes, where it returns it."""
    first, last = method.lines
    span = draw.span if draw is not None else None
    if span is not None and span.file == method.file and first <= span.line <= last:
        return span
    returns = [n for n in ast.walk(method.node) if isinstance(n, ast.Return) and n.value]
    return span_in(method, max(returns, key=lambda n: n.lineno)) if returns else span


def _takes(method: Callable[..., object]) -> int | None:
    try:
        parameters = inspect.signature(method).parameters.values()
    except (TypeError, ValueError):
        return None
    return sum(p.default is p.empty and p.kind < p.VAR_POSITIONAL for p in parameters)


def _two_calls(
    subject: Subject,
    name: str,
    args: tuple[object, ...],
    seed: int,
    rewind: Callable[[], None],
) -> tuple[list[Tensor], list[Tensor], Op | None] | None:
    """Two calls that differ in their seed alone: a state that the first changes is put back."""
    model = subject.model
    results, draw, known = [], None, inventory(subject)
    for i in range(2):
        set_mode(model, False)
        seed_everything(seed + i)
        recorder = Recorder(model, leaf_names(known, subject, subject.batch), known.paths)
        try:
            with torch.no_grad(), recorder:
                output = run_recorded_method(model, name, args)
        except Exception:  # a method that is not meant to be called like this
            rewind()
            return None
        results.append([t.detach().clone() for _, t in named_tensors(output)])
        draw = draw or next((op for op in recorder.recording.ops if op.noise is not None), None)
        recorder.recording.release()
        rewind()
    return results[0], results[1], draw


def run_recorded_method(model: nn.Module, name: str, args: tuple[object, ...]) -> object:
    """One call of a method of the model."""
    return getattr(model, name)(*args)


def _difference(first: list[Tensor], second: list[Tensor]) -> float:
    """The smallest change of any returned tensor: with the mean beside the draw it is 0.

    Of whole numbers, as codes are, only where nothing else is returned.
    """
    alike = [
        (a, b)
        for a, b in zip(first, second, strict=False)
        if a.dim() > 0 and a.numel() and a.shape == b.shape and not a.is_complex()
    ]
    pairs = [(a, b) for a, b in alike if a.is_floating_point()] or alike
    return min((float((a.double() - b.double()).abs().max()) for a, b in pairs), default=0.0)
