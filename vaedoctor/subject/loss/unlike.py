"""Whether pictures or sequences can come out of a model as they went in, shown by trying."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..subject import Batch
from ..trials.trial import attempt, leaves


def never_comes_out(model: nn.Module, batch: Batch, seed: int) -> bool:
    """Whether the one size that comes out is a size that the model refuses.

    Then no other made-up input would do better: the loss cannot compare the two.
    """
    tensors = [a for a in (*batch.args, *batch.kwargs.values()) if isinstance(a, Tensor)]
    if len(tensors) != 1 or len(batch.args) != 1 or tensors[0].dim() < 3:
        return False
    (x,) = tensors
    if not x.is_floating_point():
        return False
    first = attempt(lambda: batch.run(model), model, seed=seed)
    made = [v for _, v in leaves(first.value) if isinstance(v, Tensor) and v is not x]
    if any(v.numel() == x.numel() for v in made):
        return False
    shapes = {v.shape for v in made if v.dim() == x.dim() and v.shape[:2] == x.shape[:2]}
    if len(shapes) != 1:
        return False
    again = torch.zeros(next(iter(shapes)), dtype=x.dtype, device=x.device)
    second = attempt(lambda: model(again, **batch.kwargs), model, seed=seed)
    return isinstance(second.error, RuntimeError) and second.completed > 0


def refuses_values(error: BaseException | None, batch: Batch) -> bool:
    """Whether a distribution refuses several inputs that were made up, whose meaning is a guess.

    It raises over a value that it cannot have, or over a parameter that is not a number: never over
    a scale below zero, which is the model's.
    """
    given = len(batch.args) + len(batch.kwargs)
    if not (batch.guessed and given > 1 and isinstance(error, ValueError)):
        return False
    said = str(error)
    unlike = "not broadcastable with batch_shape" in said or "within the support" in said
    return unlike or ("to satisfy the constraint" in said and "nan" in said)
