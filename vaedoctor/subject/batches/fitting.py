"""How well a trial of a made-up batch went."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

from torch import Tensor, nn

from ..construct.asserted import check_in
from ..trials.trial import Trial, forward_parameters, leaves
from ..trials.witness import Observed, TooMuchWork, observe, user_frame
from .keyed import OF_DICTS
from .layers import KNOWN
from .repairs import unpacked_paths


def fits(output: Any, x: Tensor) -> int:
    """2 where an output other than x itself is shaped like x, 1 where it has as many numbers."""
    best = 0
    for _, value in leaves(output):
        tensor = value if isinstance(value, Tensor) else getattr(value, "mean", None)
        if not isinstance(tensor, Tensor) or tensor is x:
            continue
        if tensor.shape == x.shape:
            return 2
        if not x.is_floating_point() and tensor.shape[: x.dim()] == x.shape:
            return 2
        if tensor.shape[:1] == x.shape[:1] and tensor.numel() == x.numel() and x.dim() > 1:
            best = 1
    return best


def is_misfit(seen: Observed) -> bool:
    """Whether a trial failed where the sizes of its own arguments arrived."""
    failed = seen.failed
    if seen.trial.ran:
        return False
    if failed is not None and failed.error is seen.trial.error:
        return not failed.of_weights and any(o.paths for o in failed.operands)
    error = seen.trial.error
    if isinstance(error, AttributeError) and isinstance(error.obj, Tensor):
        return error.name in OF_DICTS and bool(seen.paths(error.obj))
    running = [c for c in seen.trial.running if isinstance(c.module, KNOWN)]
    refused = isinstance(seen.trial.error, RuntimeError | ValueError) and running
    # Recurrent layers look at what they are given before any operation does.
    first = running[-1].first if refused else None
    if first is not None and seen.operand(first).paths:
        return "input_size" not in str(error) or not seen.widths.has_told_features(first)
    return bool(unpacked_paths(seen))


def blamed_in(seen: Observed) -> frozenset[str]:
    """The arguments of forward whose sizes met in the operation that raised, or came into it.

    Where the code itself raises, those that are read in the line or in the condition above it.
    """
    failed = seen.failed
    if failed is None or failed.error is not seen.trial.error:
        return frozenset(_read_where_it_raised(seen))
    by_size = {str(p[0]) for o in failed.operands for p in o.paths}
    return frozenset(by_size or {str(p[0]) for o in failed.operands for p in o.sources})


def blamed_for(
    model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], seed: int
) -> frozenset[str]:
    """The arguments behind what a forward pass raises."""
    named = zip((p.name for p in forward_parameters(model)), args, strict=False)
    slots = {(name, *path): t for name, v in (*named, *kwargs.items()) for path, t in leaves(v)}
    return blamed_in(observe(partial(model, *args, **kwargs), model, slots, seed=seed))


def _read_where_it_raised(seen: Observed) -> Iterator[str]:
    frame, error = user_frame(seen.trial.error), seen.trial.error
    if frame is None or error is None:
        return
    checked = check_in(error)
    text = frame[1] if checked is None else f"{frame[1]} {ast.unparse(checked[0])}"
    for name in re.findall(r"[A-Za-z_]\w*", text):
        for path in seen.sources(frame[0].f_locals.get(name)):
            yield str(path[0])


def is_too_much(seen: Observed) -> bool:
    """Whether a trial was given up because of its size, or asked for more memory than there is."""
    error = seen.trial.error
    return isinstance(error, TooMuchWork | MemoryError) or "not enough memory" in str(error)


def has_layers(trial: Trial) -> bool:
    """Whether a trial went through a layer whose weights tell its sizes."""
    return any(isinstance(c.module, KNOWN) for c in trial.calls)
