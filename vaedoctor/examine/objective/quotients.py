"""Gradients of the loss beside those of a known KL: their quotients, and how even these are."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import torch
from torch import Tensor

from ...rule import Unavailable

EVEN = 1e-3  # relative spread of the weight over elements: larger means another prior or term


@dataclass(frozen=True, slots=True)
class Pulled:
    """A loss and its gradients at location and scale head, without the graph they come from.

    `connected` says whether autograd knows a way to the location.
    """

    loss: float
    at_mu: Tensor
    at_h: Tensor
    connected: bool

    @classmethod
    def of(cls, loss: Tensor, mu: Tensor, h: Tensor) -> Pulled:
        """Pulled a loss back to its leaves."""
        at_mu, at_h = pulled_back(loss, mu, h)
        value, connected = float(loss.detach()), at_mu is not None
        return cls(value, _or_zeros(at_mu, mu), _or_zeros(at_h, h), connected)

    def __add__(self, other: Pulled) -> Pulled:
        connected = self.connected or other.connected
        at_mu, at_h = self.at_mu + other.at_mu, self.at_h + other.at_h
        return Pulled(self.loss + other.loss, at_mu, at_h, connected)


def pulled_back(of: Tensor, *to: Tensor) -> tuple[Tensor | None, ...]:
    """The gradients at tensors; None where autograd knows no way there."""
    if not of.requires_grad:
        return (None,) * len(to)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return torch.autograd.grad(of, to, allow_unused=True, retain_graph=True)
        except RuntimeError as error:
            raise Unavailable("the backward pass raises (VAE606)") from error


def gradient_at(of: Tensor, to: Tensor) -> Tensor:
    """The gradient at one leaf; zeros where autograd knows no way to it."""
    (found,) = pulled_back(of, to)
    return _or_zeros(found, to)


def _or_zeros(gradient: Tensor | None, like: Tensor) -> Tensor:
    return torch.zeros_like(like) if gradient is None else gradient.detach()


def quotient(given: Tensor, reference: Tensor) -> Tensor:
    """Elementwise quotient where the reference is not zero."""
    known = reference != 0
    return (given[known].double() / reference[known].double()).flatten()


def of_rows(weights: Tensor, location: Tensor) -> tuple[Tensor, float] | None:
    """Weights that are one for all units of a row, as `q(y|x)` gives them, and their spread there.

    None where they differ within rows, where a row has one unit, or where one is not positive
    beside others that are.
    """
    shape = location.shape
    if weights.numel() != location.numel() or len(shape) < 2 or not bool((weights != 0).all()):
        return None
    for units in (shape[-1:], shape[1:]):
        rows = weights.reshape(-1, units.numel())
        means = rows.mean(1, keepdim=True)
        left = float(((rows - means) / means).abs().max())
        one_way = bool((means > 0).all()) or bool((means < 0).all())
        if units.numel() > 1 and one_way and left < EVEN:
            return means.expand_as(rows).flatten(), left
    return None


def spread(values: Tensor) -> float:
    """Largest minus smallest, relative to the mean size; infinite where there is no number."""
    if values.numel() == 0 or not bool(torch.isfinite(values).all()):
        return float("inf")
    size = float(values.abs().mean())
    return float(values.max() - values.min()) / size if size > 0 else 0.0
