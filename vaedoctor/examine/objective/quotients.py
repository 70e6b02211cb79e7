"""Gradients of the loss beside those of a known KL: their quotients, and how even these are."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor

from ...rule import Unavailable

EVEN = 1e-3  # relative spread of the weight over elements: larger means another prior or term


def gradients_at(of: Tensor, mu: Tensor, h: Tensor) -> tuple[tuple[Tensor, Tensor], bool]:
    """The gradients at location and scale head, and whether autograd knows a way to the first."""
    if not of.requires_grad:
        return (torch.zeros_like(mu), torch.zeros_like(h)), False
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            by_mu, by_h = torch.autograd.grad(of, (mu, h), allow_unused=True, retain_graph=True)
        except RuntimeError as error:
            raise Unavailable("the backward pass raises (VAE606)") from error
    found = [
        torch.zeros_like(leaf) if g is None else g.detach() for g, leaf in ((by_mu, mu), (by_h, h))
    ]
    return (found[0], found[1]), by_mu is not None


def gradient_at(of: Tensor, to: Tensor) -> Tensor:
    """The gradient at one leaf; zeros where autograd knows no way to it."""
    if not of.requires_grad:
        return torch.zeros_like(to)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            (found,) = torch.autograd.grad(of, to, allow_unused=True, retain_graph=True)
        except RuntimeError as error:
            raise Unavailable("the backward pass raises (VAE606)") from error
    return torch.zeros_like(to) if found is None else found.detach()


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
