"""Other weights for a while: where all start at one value, no two forms can be told apart."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

SHIFT = 0.3


def shift(tensors: Collection[Tensor]) -> None:
    """Add Gaussian noise of 0.3 to each tensor, always the same; the caller rewinds."""
    for tensor in tensors:
        generator = torch.Generator().manual_seed(tensor.numel())
        tensor.data = tensor.data + SHIFT * torch.randn(tensor.shape, generator=generator).to(
            tensor
        )


@contextmanager
def shifted(
    tensors: Collection[Tensor], rewind: Callable[[], None]
) -> Iterator[Callable[[], None]]:
    """Yield a `rewind` to the shifted weights; put the weights back at the end."""

    def again() -> None:
        rewind()
        shift(tensors)

    shift(tensors)
    try:
        yield again
    finally:
        rewind()
