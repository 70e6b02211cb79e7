"""A reconstruction whose scale the model computes too: a variance or log-variance for x.

With the error e = x_hat - x and the loss's gradient g at x_hat, a Gaussian of weight w has
g = w e / σ², a Laplace density g = w sign(e) / b. A recorded value belongs to the scale when the
logarithm of e / g (or of 1 / |g|) is p times that value, or its logarithm, plus a constant: p is 1
or 2, negative for a precision. The density is normalised where the loss's gradient at the log of
the scale is w - e g: that gives w, one number for all elements, whatever the scale is at.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from ..anatomy.anatomy import Anatomy
from ..runs.recording import Value
from .families import EVEN

_LEAST = 1e-3  # of an error: below it the quotient is rounding
_ENOUGH = 32  # elements that must agree
_APART = 20.0  # times as far as the fit is off has the scale to range
_MOST = 60  # values that are looked at


def with_scale(
    anatomy: Anatomy, gradient: Tensor, x_hat: Tensor, x: Tensor
) -> tuple[str, float, float] | None:
    """Kind, weight and relative spread of the density that a gradient at x_hat fits, if one."""
    error, g = (x_hat - x).double(), gradient.double()
    known = (error.abs() > _LEAST) & (g != 0)
    if int(known.sum()) < max(_ENOUGH, 0.9 * g.numel()):
        return None
    pulls = error * g
    if bool((pulls[known] > 0).any()) and bool((pulls[known] < 0).any()):
        return None
    loss, values = anatomy.recording.loss, list(_candidates(anatomy, x_hat))
    forms = {"Gaussian with its variance": error / g, "Laplace with its scale": 1 / g}
    for value in values[-_MOST:]:
        for kind, size in forms.items():
            logs = size.abs().log()
            for log_scale, by in _log_scales(value, x_hat):
                power = _power(log_scale, logs, known)
                if power == 0:
                    continue
                slope = _slope(loss, value, by)
                found = _weight(slope, pulls, 2 / power if "Gaussian" in kind else 1 / power)
                if found is not None:
                    return kind, *found
    return None


def _candidates(anatomy: Anatomy, x_hat: Tensor) -> Iterator[Value]:
    """Learned values beside x_hat on the way to the loss, one for each element or each column."""
    flow, end = anatomy.flow, anatomy.recording.loss
    loss = anatomy.recording.value_of(end) if isinstance(end, Tensor) else None
    if loss is None or anatomy.x_hat is None:
        return
    behind = flow.ancestors(loss) - flow.descendants(anatomy.x_hat) - {anatomy.x_hat.index}
    for value in anatomy.recording.values:
        fits = value.shape == tuple(x_hat.shape) or value.shape[-1:] == tuple(x_hat.shape[-1:])
        if value.index not in behind or not fits or value.edge is None or not value.requires_grad:
            continue
        if value.tensor.is_floating_point() and value.tensor.numel() > 1:
            yield value


def _log_scales(value: Value, x_hat: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """What may be the log of a scale, and the factor from the gradient at the value to that."""
    made = value.tensor.detach().double()
    pairs = zip(reversed(made.shape), reversed(x_hat.shape), strict=False)
    if any(size not in (1, full) for size, full in pairs):
        return
    if made.dim() > x_hat.dim() or made.numel() > x_hat.numel():
        return
    yield made, torch.ones_like(made)
    if bool((made > 0).all()):
        yield made.log(), made


def _power(scale: Tensor, logs: Tensor, known: Tensor) -> int:
    """The p for which `logs` is p times this log of a scale and a constant; 0 where for none."""
    u, v = scale.expand_as(logs)[known], logs[known]
    moved = u - u.mean()
    if not bool((moved != 0).any()):
        return 0
    exponent = float((moved * v).sum() / moved.square().sum())
    if not math.isfinite(exponent):
        return 0
    power = round(exponent)
    if abs(power) not in (1, 2):
        return 0
    left = v - power * u
    off = float(left.max() - left.min())
    return power if off < EVEN and off * _APART < float(u.max() - u.min()) else 0


def _slope(loss: Tensor, value: Value, by: Tensor) -> Tensor | None:
    """The loss's gradient at the log of a scale."""
    if value.edge is None:
        return None
    (found,) = torch.autograd.grad(loss.sum(), [value.edge], allow_unused=True, retain_graph=True)
    return found.double() * by if found is not None else None


def _weight(slope: Tensor | None, pulls: Tensor, per: float) -> tuple[float, float] | None:
    """The weight w = e g + dL/dlog σ of every element, and its spread; None where uneven."""
    if slope is None:
        return None
    seen, times = pulls, 1
    if slope.shape != pulls.shape:  # one scale for several elements
        seen = pulls.sum_to_size(slope.shape)
        times = pulls.numel() // slope.numel()
    weights = (seen + per * slope) / times
    size = float(weights.abs().mean())
    spread = float(weights.max() - weights.min()) / size if size else float("inf")
    return (float(weights.mean()), spread) if spread < EVEN else None
