"""What the decoder makes on its way to the loss: is each element pulled to the data, or from it?

A rate in the units of the data may stand behind x_hat, as where it is a share of each row's total,
in a likelihood of counts that is written out. Whatever it is written as, the gradient pulls every
rate to its count. Values in between are pulled one way here and the other way there.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor

from ..anatomy.anatomy import Anatomy
from ..anatomy.pinning import loss_value
from ..runs.recording import Value
from .likelihood import Pulled

_MOST = 40  # values, those next to the sample first


def pulled_away(anatomy: Anatomy) -> int:
    """How many elements of something decoded the loss pulls away from the data, if all; else 0.

    0 as well where all elements of anything else that is decoded are pulled to the data.
    """
    loss, x = anatomy.recording.loss, anatomy.x
    if not isinstance(loss, Tensor) or not loss.requires_grad or x is None:
        return 0
    most, given = 0, x.tensor.detach()
    for value in _decoded(anatomy, given):
        assert value.edge is not None
        (gradient,) = torch.autograd.grad(
            loss.sum(), [value.edge], allow_unused=True, retain_graph=True
        )
        if gradient is None:
            continue
        known = Pulled(gradient, value.tensor.detach(), [given])
        if known.towards:
            return 0
        constant = replace(known, targets=[torch.full_like(given, float(given.mean()))])
        if not constant.away:  # else it is the value's own sign that tells, and not the data
            most = max(most, known.away)
    return most


def _decoded(anatomy: Anatomy, given: Tensor) -> Iterator[Value]:
    """The values behind the samples, on their way to the loss, that are as many as the data."""
    flow, samples = anatomy.flow, [x.z for x in anatomy.sampled]
    if not samples or not given.is_floating_point():
        return
    known = flow.descendants(*samples) & flow.ancestors(loss_value(anatomy))
    found = (
        v
        for v in anatomy.recording.values
        if v.index in known
        and v.edge is not None
        and v.tensor.is_floating_point()
        and v.tensor.numel() == given.numel()
    )
    for value, _ in zip(found, range(_MOST), strict=False):
        yield value
