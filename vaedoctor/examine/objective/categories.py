"""The KL of categories by its gradient at the logits, and along which axis they lie."""

from __future__ import annotations

import torch
from torch import Tensor

from ..runs.flow import Flow
from ..runs.recording import Value

EVEN = 1e-3


def kind_of(logits: Tensor, gradient: Tensor | None, axis: int = -1) -> tuple[str, float]:
    """Which KL's gradient this is at these logits of categories along an axis, and its weight."""
    if gradient is None:
        return "other", 0.0
    log_p = torch.log_softmax(logits.double(), axis)
    p = log_p.exp()
    references = {
        "kl": p * (log_p - (p * log_p).sum(axis, keepdim=True)),
        "reverse": p - 1 / logits.shape[axis],
    }
    for kind, reference in references.items():
        g = gradient.double()
        weight = float((g * reference).sum() / reference.square().sum())
        error = float((g - weight * reference).abs().max())
        if weight != 0 and error < EVEN * float(g.abs().max()):
            return kind, weight
    return "other", 0.0


def axis_of(flow: Flow, z: Value) -> int | None:
    """The only axis over which a sample, one-hot or relaxed, adds up to 1; None if there is none.

    Of noisy logits that is their softmax, before the next layer.
    """
    for value in flow.onward(z, past=lambda op: not flow.layer(op)):
        made = value.tensor.detach()
        if value.shape != z.shape or not made.is_floating_point():
            continue
        ones = [n for n in range(made.dim()) if bool((made.sum(n) - 1).abs().max() < EVEN)]
        if ones:
            return ones[0] if len(ones) == 1 else None
    return None


def across(measured: list[tuple[Tensor, Tensor | None]], own: int) -> tuple[str, list[float], int]:
    """The axis along which the gradients are a KL's, if not along its own, and the weights."""
    for axis in range(measured[0][0].dim()):
        found = [kind_of(leaf, g, axis) for leaf, g in measured]
        if axis != own and all(kind == "kl" for kind, _ in found):
            return "across", [w for _, w in found], axis
    return "other", [0.0, 0.0], own
