"""A made-up batch with values that the likelihood takes: counts for a Poisson, 0 and 1, shares.

Forward does not mind real numbers where only the loss asks for whole ones.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

from torch import Tensor, nn

from ..subject import Batch, Objective
from ..trials.slots import Slot
from ..trials.trial import attempt, home
from ..trials.witness import local_values, observe
from .values import kind_in_support


def within_the_support(
    model: nn.Module, batch: Batch, objective: Objective, seed: int
) -> Batch | None:
    """The batch with other values where a distribution in the loss refuses those made up.

    None for a batch that somebody gave, and where the values refused are not the batch's own.
    """
    if not batch.guessed:
        return None
    given: dict[Any, Any] = dict(enumerate(batch.args))
    given |= batch.kwargs
    slots = {(key,): value for key, value in given.items() if isinstance(value, Tensor)}
    seen = observe(partial(objective.run, model, batch), model, slots, seed=seed)
    error = seen.trial.error
    kind = kind_in_support(str(error))
    value = next((v["value"] for v in local_values(error) if "value" in v), None)
    refused = [key for (key,) in seen.paths(value) if given[key].is_floating_point()]
    if kind is None or not refused:
        return None
    origin, dtype, device = batch.origin, *home(model)
    for key in refused:
        shape = tuple(given[key].shape)
        old, new = Slot(shape), Slot(shape, kind)
        given[key] = new.filled(dtype, device, seed)
        told = origin.replace(old.told(), new.told(), 1)
        origin = told if told != origin else f"{origin}: {new.told()}"
    args: tuple[Any, ...] = tuple(given[i] for i in range(len(batch.args)))
    other = replace(batch, args=args, kwargs={k: given[k] for k in batch.kwargs}, origin=origin)
    return other if attempt(partial(other.run, model), model, seed=seed).ran else None
