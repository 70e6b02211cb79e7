"""Examine the model itself and leave no trace: a snapshot, and its restoration whatever happens.

A deep copy fails on models that keep graph tensors on `self` and can silently measure another
model (a closure still holds the original's parameters), so the original is examined and restored.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from torch import Tensor

from .contents import Contents, TensorState
from .reachable import reachable
from .switches import generators_restored, switches_restored, uncompiled


@contextmanager
def leaves_no_trace(*roots: object) -> Iterator[Callable[[], None]]:
    """Restore the model bit for bit on leaving, also when it raises.

    Covers parameters and buffers (value, storage, `.grad`, `requires_grad`), train/eval flags,
    hooks, attributes of every module and helper object, lists and dicts they hold, every random
    generator, grad mode, default dtype and anomaly mode. Gradients are hidden while inside, so
    that a backward pass of the user's own code cannot add to them. Yields a function that rewinds
    to the snapshot between two experiments.
    """
    things = list(reachable(roots))
    tensors = [TensorState(t) for t in things if isinstance(t, Tensor) and t.is_leaf]
    contents = Contents(things)

    def restore() -> None:
        contents.restore()
        for state in tensors:
            state.restore()

    def hide_gradients() -> None:
        for state in tensors:
            state.tensor.grad = None

    def rewind() -> None:
        restore()
        hide_gradients()

    with generators_restored(), switches_restored(), uncompiled():
        try:
            hide_gradients()
            yield rewind
        finally:
            restore()
