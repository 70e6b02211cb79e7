"""Which gradients arrive: None, exactly zero and nonzero told apart, between any two values."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge

from .recording import Recording, Value


class Arrives(Enum):
    """What a gradient is: absent, present and exactly zero, or something to learn from."""

    NONE = "None"
    ZERO = "exactly 0"
    YES = "nonzero"


def kind_of(gradient: Tensor | None) -> Arrives:
    """Tell None, exact zero and nonzero apart."""
    if gradient is None:
        return Arrives.NONE
    return Arrives.YES if bool((gradient != 0).any()) else Arrives.ZERO


def gradient_between(
    of: Sequence[Value], to: Sequence[Value], seed: int = 0
) -> list[Tensor | None]:
    """Gradients of the values `of`, along a fixed random direction, at the values `to`.

    A random direction meets exact zeros with probability zero where the gradient is not zero.
    """
    roots = [v for v in of if v.edge is not None]
    leaves = [v for v in to if v.edge is not None]
    if not roots or not leaves:
        return [None] * len(to)
    generator = torch.Generator().manual_seed(seed)
    directions = [
        torch.rand(v.shape, generator=generator).to(v.tensor.device, v.tensor.dtype) + 0.5
        for v in roots
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        target = _along(roots, directions)
        edges = [_edge(v) for v in leaves]
        if target is not None:
            found = torch.autograd.grad(target, edges, allow_unused=True, retain_graph=True)
        else:
            found = torch.autograd.grad(
                [_edge(v) for v in roots],
                edges,
                grad_outputs=directions,
                allow_unused=True,
                retain_graph=True,
            )
    by_index = {v.index: g for v, g in zip(leaves, found, strict=True)}
    return [by_index.get(v.index) for v in to]


def _along(values: Sequence[Value], directions: Sequence[Tensor]) -> Tensor | None:
    """A scalar with the values' gradient along the directions; None if one was edited since.

    `grad_outputs` would do as well, but makes torch import sympy: a third of a second.
    """
    if any(not v.tensor.is_leaf and v.tensor.grad_fn is not _edge(v).node for v in values):
        return None
    with torch.enable_grad():
        parts = [_real(v.tensor * d).sum() for v, d in zip(values, directions, strict=True)]
        return torch.stack(parts).sum() if len(parts) > 1 else parts[0]


def _real(values: Tensor) -> Tensor:
    """Both parts of complex numbers: only a real scalar can be differentiated."""
    return torch.view_as_real(values) if values.is_complex() else values


def _edge(value: Value) -> GradientEdge:
    assert value.edge is not None
    return value.edge


@dataclass(frozen=True, slots=True)
class Gradients:
    """The loss's gradient at every parameter the step read, by parameter name.

    `error` holds what autograd raised; `composed` says that the loss was made up by vaedoctor.
    """

    loss: Tensor | None
    composed: bool
    by_name: dict[str, Tensor | None] = field(default_factory=dict)
    values: dict[str, Value] = field(default_factory=dict)
    error: BaseException | None = None


def parameter_gradients(recording: Recording, loss: Tensor | None, composed: bool) -> Gradients:
    """Differentiate the loss at every trainable parameter the recording met."""
    values = {
        v.name: v
        for v in recording.values
        if v.source == "parameter" and v.op is None and v.edge is not None
    }
    if loss is None or not loss.requires_grad or not values:
        return Gradients(loss, composed, dict.fromkeys(values), values)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            found = torch.autograd.grad(
                loss, [_edge(v) for v in values.values()], allow_unused=True, retain_graph=True
            )
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # whatever autograd or a user's backward raises
            return Gradients(loss, composed, {}, values, error)
    return Gradients(loss, composed, dict(zip(values, found, strict=True)), values)


def is_zero(gradient: Tensor) -> bool:
    """Whether every entry is exactly 0."""
    if gradient.layout is not torch.strided:
        return not bool((gradient != 0).any())
    return not bool(gradient.count_nonzero())  # a third of what a comparison costs
