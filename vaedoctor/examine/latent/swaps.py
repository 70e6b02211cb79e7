"""The reconstruction error with another latent: of another row, or drawn from the prior.

A decoder that ignores the latent makes the same error whichever it is given: the ratio to the error
with its own latent is exactly 1.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ...rule import Unavailable
from ...subject.subject import Subject
from ..anatomy.anatomy import Anatomy
from ..runs.edits import Edit, Edits
from ..runs.repeat import repeat


@dataclass(frozen=True, slots=True)
class Swaps:
    """Mean squared errors, with the row's own latent as unit."""

    another_row: float
    prior: float


def swap_latents(
    subject: Subject, anatomy: Anatomy, seed: int, rewind: Callable[[], None]
) -> Swaps:
    """Run the step twice more, with every latent rolled over the batch, and drawn anew.

    Raises Unavailable where there is nothing to compare.
    """
    x, x_hat, latents = anatomy.x, anatomy.x_hat, anatomy.latents
    if x is None or x_hat is None or x.tensor.numel() != x_hat.tensor.numel():
        raise Unavailable("no reconstruction of the input's size found")
    if not latents or any(found.z.op is None for found in latents):
        raise Unavailable("the latent cannot be replaced")
    if x.shape[0] < 2 or not x.tensor.is_floating_point():
        raise Unavailable("the rows cannot be swapped")
    own = _error(x_hat.tensor, x.tensor)
    ratios = []
    for change in (_rolled, _drawn(seed)):
        edits: Edits = {found.z.place: change for found in latents}
        made = repeat(
            subject,
            anatomy.recording,
            seed=seed,
            edits=edits,
            keep=[x_hat],
            rewind=rewind,
            grad=False,
        )
        if x_hat.index not in made.tensors or own == 0:
            raise Unavailable("the step cannot be repeated with another latent")
        ratios.append(_error(made.tensors[x_hat.index], x.tensor) / own)
    return Swaps(*ratios)


def _error(x_hat: Tensor, x: Tensor) -> float:
    difference = x_hat.detach().double().flatten() - x.detach().double().flatten()
    return float((difference**2).mean())


def _rolled(z: Tensor) -> Tensor:
    return z.roll(1, 0)


def _drawn(seed: int) -> Edit:
    generator = torch.Generator().manual_seed(seed + 1)
    return lambda z: torch.randn(z.shape, generator=generator).to(z)
