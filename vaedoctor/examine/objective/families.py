"""Which likelihood a gradient at x_hat is that of: one weight for every element that is scored.

The reference is the gradient at unit weight: x_hat - x for half a squared error, sigmoid(x_hat) - x
for a Bernoulli with logits, and so on. A mask takes elements out: their gradient is exactly 0.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

EVEN = 1e-2  # relative spread of the weight over elements, in float32
_LEAST = 1e-3  # of a reference: below it the quotient is rounding
_ENOUGH = 32  # elements without a mask's that must agree


def fits(gradient: Tensor, x_hat: Tensor, x: Tensor) -> Iterator[tuple[str, float, float]]:
    """Kind, weight and relative spread of every plain likelihood that a gradient at x_hat fits."""
    scored = gradient != 0
    masked = not bool(scored.all())
    for kind, reference in (*_references(x_hat, x), *_multinomial(gradient, x_hat, x)):
        known = reference.abs() > _LEAST
        if not bool(known.any()):
            continue
        if masked and _touched(scored, known):
            known = known & scored
        weights = (gradient.double() / reference.double())[known]
        size = float(weights.abs().mean())
        spread = float(weights.max() - weights.min()) / size if size else float("inf")
        if spread < EVEN:
            yield kind, float(weights.mean()), spread
    found = _negative_binomial(gradient, x_hat, x)
    if found is not None:
        yield "negative binomial", *found


def class_weight(gradient: Tensor, logits: Tensor, target: Tensor) -> float | None:
    """The weight of one class number's cross-entropy, the classes on axis 1; None if uneven.

    A number that is ignored, or left out by a mask, has a gradient of 0 for all classes.
    """
    axis = min(1, logits.dim() - 1)
    classes = torch.arange(logits.shape[axis], device=target.device)
    given = target.unsqueeze(axis)
    one_hot = given == classes.view([-1 if i == axis else 1 for i in range(logits.dim())])
    reference = torch.softmax(logits.double(), axis) - one_hot.double()
    known = (reference.abs() > _LEAST) & (gradient != 0).any(axis, keepdim=True)
    if int(known.sum()) < _ENOUGH:
        return None
    weights = (gradient.double() / reference)[known]
    size = float(weights.abs().mean())
    spread = float(weights.max() - weights.min()) / size if size else float("inf")
    return float(weights.mean()) if spread < EVEN else None


def _touched(scored: Tensor, known: Tensor) -> bool:
    """Whether enough elements are scored to speak for all, and the others are left out."""
    return int((known & scored).sum()) >= _ENOUGH and bool((known & ~scored).any())


def _references(x_hat: Tensor, x: Tensor) -> Iterator[tuple[str, Tensor]]:
    """The gradient at x_hat of every likelihood without further parameters."""
    yield "half a squared error", x_hat - x
    yield "Bernoulli with logits", torch.sigmoid(x_hat) - x
    yield "absolute error", torch.sign(x_hat - x)
    if bool(((x_hat > 0) & (x_hat < 1)).all()):
        probability = x_hat.clamp(1e-6, 1 - 1e-6)
        yield "Bernoulli", (probability - x) / (probability * (1 - probability))
    if bool((x >= 0).all()) and bool((x == x.round()).all()) and bool((x > 1).any()):  # counts
        if bool((x_hat > 0).all()):
            yield "Poisson", 1 - x / x_hat
        yield "Poisson with log rates", x_hat.exp() - x


def _multinomial(gradient: Tensor, x_hat: Tensor, x: Tensor) -> Iterator[tuple[str, Tensor]]:
    """The gradient at x_hat of shares of the last axis: log-shares, shares, or logits of them.

    Where nothing was counted, what is no logit has a gradient of exactly 0.
    """
    if x.dim() < 2 or x.shape[-1] < 2 or bool((x < 0).any()) or not bool((x > 0).any()):
        return
    h, counts = x_hat.double(), x.double()
    if bool((gradient[x == 0] == 0).all()):
        if bool((h.logsumexp(-1).abs() < EVEN).all()):
            yield "multinomial", -counts
        elif bool((h > 0).all()) and bool(((h.sum(-1) - 1).abs() < EVEN).all()):
            yield "multinomial", -counts / h
    else:
        yield "multinomial with logits", counts.sum(-1, keepdim=True) * h.softmax(-1) - counts


def _negative_binomial(gradient: Tensor, mean: Tensor, x: Tensor) -> tuple[float, float] | None:
    """Weight and spread of a negative binomial's, each column with a dispersion of its own.

    With the dispersion r the gradient is w (m - x) r / (m (m + r)): (m - x) / (m g) is
    1/w + m / (w r), a line over the rows of a column, and all lines meet at 1/w.
    """
    rows = x.shape[0] if x.shape else 0
    counts = bool((x >= 0).all()) and bool((x == x.round()).all()) and bool((x > 1).any())
    if not counts or rows < 4 or not bool((mean > 0).all()) or not bool((gradient != 0).all()):
        return None
    m, g, k = (t.double().reshape(rows, -1) for t in (mean, gradient, x))
    line = (m - k) / (m * g)
    apart = m - m.mean(0)
    if bool((apart.square().mean(0).sqrt() < EVEN * m.mean(0)).any()):
        return None
    slope = (apart * line).sum(0) / apart.square().sum(0)
    start = line.mean(0) - slope * m.mean(0)
    left = (line - start - slope * m).abs().max() / line.abs().max()
    weights = 1 / start
    size = float(weights.abs().mean())
    spread = float(weights.max() - weights.min()) / size if size else float("inf")
    if float(left) > _LEAST or spread > EVEN or bool((slope * start <= 0).any()):
        return None
    return float(weights.mean()), spread
