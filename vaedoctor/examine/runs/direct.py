"""A forward pass that is called by its name, `self.forward(x)`, which no hook of a module sees."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FunctionType
from typing import Any

from torch import nn

Around = Callable[[Callable[[], Any], tuple[Any, ...]], Any]


@contextmanager
def around_forward(model: nn.Module, around: Around) -> Iterator[None]:
    """Inside, `around(run, args)` stands for every forward pass of this one module.

    `run()` is the pass. A model whose forward is no plain method of its class is left alone.
    """
    kind = type(model)
    forward = inspect.getattr_static(kind, "forward", None)
    if not isinstance(forward, FunctionType) or "forward" in vars(model):
        yield
        return

    @functools.wraps(forward)
    def seen(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        run = functools.partial(forward, self, *args, **kwargs)
        return around(run, args) if self is model else run()

    own = "forward" in vars(kind)
    setattr(kind, "forward", seen)  # noqa: B010
    try:
        yield
    finally:
        if own:
            setattr(kind, "forward", forward)  # noqa: B010
        else:
            delattr(kind, "forward")
