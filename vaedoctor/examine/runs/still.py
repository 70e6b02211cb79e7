"""Still noise: every random draw returns the centre of its distribution."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from .recording import DRAWS

_FILLS: dict[str, Callable[..., float]] = {
    "normal_": lambda mean=0.0, std=1.0, **_: mean,
    "uniform_": lambda a=0.0, b=1.0, **_: (a + b) / 2,
    "exponential_": lambda lambd=1.0, **_: 1 / lambd,
    "log_normal_": lambda mean=1.0, std=2.0, **_: math.exp(mean),
    "cauchy_": lambda median=0.0, sigma=1.0, **_: median,
}
_CONSTANTS = {"randn": 0.0, "randn_like": 0.0, "rand": 0.5, "rand_like": 0.5, "multinomial": 0.0}


class StillNoise(TorchFunctionMode):
    """Makes a run deterministic at any batch size: no draw differs from its centre.

    Entered outside the recorder, so that the recording shows the centres as the draws.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        name = getattr(func, "__name__", "")
        if name in DRAWS and isinstance(out, Tensor):
            return _centre(name, out, args, kwargs)
        return out


def _centre(name: str, out: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    if name in _FILLS:
        with torch.no_grad():
            out.fill_(_FILLS[name](*args[1:], **kwargs))
        return out
    if name in _CONSTANTS:
        return torch.full_like(out, _CONSTANTS[name])
    first = args[0] if args else next(iter(kwargs.values()), 0.0)
    if name == "normal":
        return first + torch.zeros_like(out) if isinstance(first, Tensor) else out.fill_(first)
    if name == "randperm":
        return torch.arange(len(out), dtype=out.dtype, device=out.device)
    if not isinstance(first, Tensor):
        return out
    with torch.enable_grad() if out.requires_grad else torch.no_grad():
        return _mean_of(name, out, first, args, kwargs)


def _mean_of(
    name: str, out: Tensor, first: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Tensor:
    """The centre of a draw whose distribution the first operand holds."""
    if name == "bernoulli":
        return (first > 0.5).to(out.dtype)
    if name == "bernoulli_":
        return out.fill_(0.0)
    if name == "gumbel_softmax":
        dim = kwargs.get("dim", -1)
        return torch.softmax(first / kwargs.get("tau", args[1] if len(args) > 1 else 1.0), dim)
    if name == "_sample_dirichlet":
        return first / first.sum(-1, keepdim=True)
    if name in ("_standard_gamma", "poisson"):
        return first + torch.zeros_like(out)
    if name == "binomial":
        mean: Tensor = first * args[1]
        return mean
    return out
