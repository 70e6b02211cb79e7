"""The model's own methods beside forward, called with the arguments that are obvious."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from ...subject.subject import Batch, Subject
from .harmless import harmless_methods
from .places import is_user_file

_FURTHER = 12
METHODS = ("sample", "generate", "encode", "decode", "reconstruct")
_COUNTS = frozenset(
    "n k b bs num count size n_sample n_samples num_sample num_samples nsamples batch_size "
    "sample_size sample_num n_images num_images".split()
)
_DEVICES = frozenset("device current_device dev".split())
_LATENTS = frozenset("z latent latents code codes z_sample".split())
_INPUTS = frozenset("x input inputs data batch img imgs image images".split())


def method_calls(
    subject: Subject, latent: Tensor | None, device: torch.device
) -> Iterator[tuple[str, Callable[[nn.Module], Any]]]:
    """The model's own methods whose arguments are obvious: a count, x, z, a device, a condition.

    Those of a usual name, and others that only compute from what the batch tells.
    """
    kind = type(subject.model)
    usual = [(n, inspect.unwrap(getattr(kind, n, None) or (lambda: None))) for n in METHODS]
    further = [(n, f) for n, f in harmless_methods(subject.model) if n not in METHODS]
    for name, function in (*usual, *further[:_FURTHER]):
        code = getattr(function, "__code__", None)
        if code is None or not is_user_file(code.co_filename):
            continue
        arguments = _arguments(name, function, subject, latent, device)
        if arguments or (arguments is not None and name in METHODS):
            yield name, lambda m, n=name, a=arguments: getattr(m, n)(**a)  # type: ignore[misc]


def _arguments(
    name: str, function: Any, subject: Subject, latent: Tensor | None, device: torch.device
) -> dict[str, Any] | None:
    known = _known(subject.model, subject.batch)
    given: dict[str, Any] = {}
    parameters = list(inspect.signature(function).parameters.values())[1:]
    for i, p in enumerate(parameters):
        lower = p.name.lower()
        if p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD):
            continue
        if p.kind is p.POSITIONAL_ONLY:
            return None
        if lower in _DEVICES:
            given[p.name] = device
        elif p.default is not p.empty:
            continue
        elif lower in _COUNTS:
            given[p.name] = _rows_beside(parameters, known)
        elif p.name in known and (i or name != "decode"):
            given[p.name] = known[p.name]
        elif latent is not None and (lower in _LATENTS or (name == "decode" and i == 0)):
            given[p.name] = latent
        elif known and (lower in _INPUTS or (name in ("encode", "reconstruct") and i == 0)):
            given[p.name] = next(iter(known.values()))
        else:
            return None
    return given


def _rows_beside(parameters: list[inspect.Parameter], known: dict[str, Any]) -> int:
    """How many to draw: as many as there are rows of the condition that is given as well."""
    beside = [known[p.name] for p in parameters if p.name in known and p.default is p.empty]
    rows = [item.shape[0] for item in beside if isinstance(item, Tensor) and item.dim()]
    return rows[0] if rows else 3


def _known(model: nn.Module, batch: Batch) -> dict[str, Any]:
    """The batch's items under the names that forward knows them by."""
    names = list(inspect.signature(model.forward).parameters)
    return {**dict(zip(names, batch.args, strict=False)), **batch.kwargs}
