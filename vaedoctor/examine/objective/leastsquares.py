"""Which weighted sum of known terms has a gradient: least squares, and Jacobians with a graph."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import torch
from torch import Tensor

EXACT = 2e-3  # of the gradient: what a fit may leave over in float32
CLOSE = 0.01  # of a weight


@dataclass(frozen=True, slots=True)
class Fit:
    """Weights, the relative residual, and how far the last column moves the whole by itself."""

    weights: list[float]
    left: float
    seen: float


def least_squares(target: Tensor, columns: list[Tensor]) -> Fit:
    """The weights of the columns whose sum comes nearest to the target."""
    matrix = torch.stack(columns, dim=1)
    sizes = matrix.norm(dim=0)
    known = sizes > 1e-6 * sizes.max()
    scaled = matrix[:, known] / sizes[known]
    solution = torch.linalg.lstsq(scaled, target[:, None], driver="gelsd").solution[:, 0]
    weights = torch.zeros(len(columns), dtype=target.dtype)
    weights[known] = solution / sizes[known]
    size = float(target.norm()) or 1.0
    left = float((matrix @ weights - target).norm()) / size
    seen = 0.0
    if bool(known[-1]):
        others = scaled[:, :-1]
        alone = scaled[:, -1:]
        if others.shape[1]:
            alone = alone - others @ torch.linalg.lstsq(others, alone, driver="gelsd").solution
        entropy = abs(float(weights[0]))
        seen = float(alone.norm()) * float(sizes[-1]) * entropy / size
    return Fit(weights.tolist(), left, seen)


def flat_gradient(of: Tensor, at: list[Tensor]) -> Tensor:
    """The gradient of a number at all tensors, as one vector in float64."""
    if not of.requires_grad:
        return torch.zeros(sum(t.numel() for t in at), dtype=torch.float64)
    found = torch.autograd.grad(of, at, allow_unused=True, retain_graph=True)
    parts = [
        torch.zeros(t.numel(), dtype=torch.float64) if g is None else g.detach().double().flatten()
        for t, g in zip(at, found, strict=True)
    ]
    return torch.cat(parts)


def log_determinants(before: Tensor, after: Tensor) -> Tensor | None:
    """Log |det J| of every row, with a graph; None where J is singular."""
    if not before.requires_grad or not after.requires_grad:
        return None
    lines = []
    for unit in range(after.shape[1]):
        (gradient,) = torch.autograd.grad(
            after[:, unit].sum(), before, create_graph=True, allow_unused=True
        )
        if gradient is None:
            return None
        lines.append(gradient)
    found = torch.linalg.slogdet(torch.stack(lines, dim=1).double())[1]
    return found if bool(torch.isfinite(found).all()) else None


def integrates(
    chain: list[Tensor], target: Tensor, columns: list[Tensor], at: list[Tensor]
) -> Tensor | None:
    """The traces of Euler steps a row, if a gradient fits the columns and them at -1 of the first.

    An Euler solver from one value of the chain to the next adds up tr(J - 1), which comes near to
    log |det J| only as its steps become small.
    """
    found = torch.zeros(len(chain[0]), dtype=torch.float64)
    for before, after in itertools.pairwise(chain):
        if not before.requires_grad or not after.requires_grad:
            return None
        for unit in range(after.shape[1]):
            of = after[:, unit].sum()
            (slope,) = torch.autograd.grad(of, before, create_graph=True, allow_unused=True)
            if slope is None:
                return None
            found = found + slope[:, unit].double() - 1
    fit = least_squares(target, [*columns, flat_gradient(found.sum(), at)])
    entropy = fit.weights[0]
    fits = fit.left < EXACT and abs(fit.weights[-1] + entropy) < CLOSE * abs(entropy)
    return found.detach() if fits else None
