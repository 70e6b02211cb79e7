"""The squared distance of the sample from its own location, as the loss weighs it.

In the log-density of a normal sample it is (z - m)² / σ², which is the squared noise itself,
whatever else the loss holds: a total correlation, a mixture over the batch, a bound of samples.
Where it is the noise's square times a power of the scale that was sampled, the density means
another scale.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ...finding import Span
from ..anatomy.anatomy import Anatomy
from ..anatomy.latents import ADDS, MULS, POWERS, Latent
from ..runs.flow import Flow
from ..runs.recording import Op, Value

_LEFT = 1e-3  # of a power law, in float32
_APART = 1e-3  # of the logarithms of scales, so that a power can be read off
_SIGNS = frozenset(["neg", "__neg__", "negative"])


@dataclass(frozen=True, slots=True)
class Residual:
    """(z - m)² as the loss weighs it is the noise's square times σ to the power of `power`."""

    latent: Latent
    power: float
    at: Span | None

    @property
    def meant(self) -> float:
        """The power of the sampled scale that the density takes for the scale."""
        return 1 - self.power / 2

    @property
    def misread(self) -> bool:
        """Whether it is another scale than the sample's."""
        return abs(self.power) > 10 * _LEFT


def residuals(anatomy: Anatomy) -> Iterator[Residual]:
    """Of each Gaussian sample whose squared distance the loss divides by something of the scale."""
    flow, loss = anatomy.flow, anatomy.recording.loss
    end = anatomy.recording.value_of(loss) if isinstance(loss, Tensor) else None
    if end is None:
        return
    judged = flow.ancestors(end)
    for latent in anatomy.latents:
        if latent.loc is None or latent.scale is None or latent.family != "gaussian":
            continue
        made = latent.z.tensor.detach() - latent.loc.tensor.detach()
        scale = latent.scale.tensor.detach().abs()
        if made.shape != scale.shape or not bool((scale > 0).all()):
            continue
        found = [
            Residual(latent, power, op.span)
            for op in _weighed(flow, latent, judged)
            if (power := _power(op.out.tensor.detach(), made, scale)) is not None
        ]
        if found:  # a square of the score, as in a Fisher divergence, may stand beside log q
            yield min(found, key=lambda r: abs(r.power))


def _weighed(flow: Flow, latent: Latent, judged: frozenset[int]) -> Iterator[Op]:
    """Where the squared distance from the location meets what the scale is computed from too."""
    assert latent.loc is not None
    head = latent.scale_head.value if latent.scale_head is not None else latent.scale
    assert head is not None
    of_scale = flow.descendants(head)
    for apart in flow.consumers.get(latent.z.index, ()):
        if apart.name not in ADDS or not apart.makes or latent.loc not in apart.reads:
            continue
        for square in flow.consumers.get(apart.out.index, ()):
            if not _squares(square, apart.out):
                continue
            waiting = [square.out]
            while waiting:
                value = waiting.pop()
                for op in flow.consumers.get(value.index, ()):
                    if op.name not in MULS | _SIGNS or not op.makes or op.out.index not in judged:
                        continue
                    others = [v for v in op.reads if v is not value]
                    if any(v.index in of_scale for v in others):
                        yield op
                    elif not others:
                        waiting.append(op.out)


def _squares(op: Op, value: Value) -> bool:
    if not op.makes or op.out.shape != value.shape:
        return False
    twice = op.name in MULS and len(op.reads) == 2 and op.reads[0] is op.reads[1]
    return (
        twice
        or op.name == "square"
        or (op.name in POWERS and any(isinstance(a, int | float) and a == 2 for a in op.args))
    )


def _power(weighed: Tensor, made: Tensor, scale: Tensor) -> float | None:
    """K of weighed = c noise² σᵏ; None where no such law holds."""
    if weighed.shape != made.shape:
        return None
    right = (made / scale).square().double().flatten()
    logs, kept = scale.double().log().flatten(), right > 1e-2
    ratio = (weighed.double().flatten()[kept] / right[kept]).abs()
    logs = logs[kept]
    if len(logs) < 8 or not bool((ratio > 0).all()) or float(logs.max() - logs.min()) < _APART:
        return None
    columns = torch.stack([torch.ones_like(logs), logs], 1)
    fit = torch.linalg.lstsq(columns, ratio.log()[:, None]).solution
    left = (columns @ fit - ratio.log()[:, None]).abs().max()
    spread = float(logs.max() - logs.min())
    return float(fit[1]) if float(left) < _LEFT * max(spread, _LEFT) else None
