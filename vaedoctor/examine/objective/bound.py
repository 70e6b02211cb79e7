"""Whether an objective rises as the reconstruction gets better: a bound, to be maximised."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from ..anatomy.anatomy import anatomize
from ..runs.flow import Flow
from ..runs.recording import Recording
from .likelihood import likelihood


def rewards_likeness(recording: Recording) -> bool:
    """Whether moving x_hat to x raises the recorded objective, by its gradient at x_hat.

    Where the gradient fits no plain likelihood (several samples a row), x_hat and its logistic
    must agree about the direction.
    """
    loss = recording.loss
    if recording.error is not None or not isinstance(loss, Tensor) or not loss.requires_grad:
        return False
    anatomy = anatomize(recording, Flow(recording))
    x, x_hat = anatomy.x, anatomy.x_hat
    if x is None or x_hat is None or x_hat.edge is None or not x.tensor.is_floating_point():
        return False
    found = likelihood(anatomy)
    if found is not None:
        return found.weight < 0
    (pull,) = torch.autograd.grad(loss.sum(), [x_hat.edge], allow_unused=True, retain_graph=True)
    made = x_hat.tensor.detach()
    if pull is None:
        return False
    ways = [
        float((pull * (guess - given)).sum())
        for given in _aligned(x.tensor.detach(), made)
        for guess in (made, torch.sigmoid(made))
    ]
    return bool(ways) and max(ways) < 0


def _aligned(given: Tensor, made: Tensor) -> Iterator[Tensor]:
    """The input in the shape of the reconstruction of several samples a row."""
    for target in (given, given.unsqueeze(0), given.unsqueeze(1) if given.dim() else given):
        try:
            yield target.expand_as(made)
            return
        except RuntimeError:
            continue
