"""The reconstruction term: its weight, the range of what it compares, and how it compares it.

`weight` is dL/dx_hat over the gradient of a likelihood at unit weight, the same number for every
element when the loss is that likelihood.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ...finding import Span
from ..anatomy.anatomy import Anatomy
from ..runs.flow import RESHAPES, SLICES, Flow
from ..runs.recording import Op, Recording, Value
from .backwards import gradient_at
from .families import EVEN, class_weight, fits
from .ranges import RANGES, Bounded, bounded, through_link
from .spreads import with_scale

_LITTLE = 0.05  # of the range of the targets
_TELLING = 32  # elements that must agree before their directions say anything

BERNOULLI_LOSSES = frozenset({"binary_cross_entropy", "binary_cross_entropy_with_logits"})
ASYMMETRIC_LOSSES = BERNOULLI_LOSSES | {"cross_entropy", "nll_loss", "poisson_nll_loss"}
CLASS_LOSSES = frozenset({"cross_entropy", "nll_loss"})
"""They take class numbers as targets, of another shape than the output."""
RATES = frozenset(["Poisson", "negative binomial"])
"""Likelihoods whose x_hat is in the units of the data, and no plain difference from it."""
SYMMETRIC_LOSSES = frozenset("mse_loss l1_loss smooth_l1_loss huber_loss gaussian_nll_loss".split())


@dataclass(frozen=True, slots=True)
class Likelihood:
    """The reconstruction term's kind and its weight per row; `features` is D_x.

    `target` is the range of what x_hat is compared with.
    """

    kind: str
    weight: float
    rows: int
    features: int
    target: tuple[float, float]

    def averaged(self, outweighed: float) -> bool:
        """Whether a term that weighs so many times more does so because this one is a mean.

        A mean over D_x features is outweighed exactly D_x times, that of `mse_loss`, which lacks
        the half of a Gaussian's, D_x / 2 times.
        """
        return any(abs(outweighed / (n * self.features) - 1) < EVEN for n in (1.0, 0.5))


@dataclass(frozen=True, slots=True)
class Pulled:
    """Where x_hat is pulled by the gradient, and what it may be compared with."""

    gradient: Tensor
    made: Tensor
    targets: list[Tensor]

    @property
    def away(self) -> int:
        """How many elements are pulled away from the target, if all are; else 0.

        Every likelihood of a location, whatever its scale, pulls each element to its target, in
        the units of the data or behind a link. Elements must lie on both sides of it.
        """
        shares = self._shares()
        if any(share == 1 for share, _ in shares):
            return 0
        return max((count for share, count in shares if share == 0), default=0)

    @property
    def towards(self) -> bool:
        """Whether every element is pulled to the target, in the units of the data or by a link."""
        return any(share == 1 for share, _ in self._shares())

    def _shares(self) -> list[tuple[float, int]]:
        links = (self.made, torch.sigmoid(self.made), self.made.exp())
        targets = [t.reshape(self.made.shape) for t in self.targets]
        found = [_pulled_to(self.gradient, link - t) for t in targets for link in links]
        return [share for share in found if share is not None]


def _pulled_to(gradient: Tensor, error: Tensor) -> tuple[float, int] | None:
    """Which share of the elements gets smaller errors, and of how many; None if few tell."""
    known = (error.abs() > 1e-3) & (gradient != 0)
    above = int((known & (error > 0)).sum())
    count = int(known.sum())
    if count < _TELLING or not 0.1 * count < above < 0.9 * count:
        return None
    return float(((gradient * error) > 0)[known].float().mean()), count


def pulled(anatomy: Anatomy) -> Pulled | None:
    """The loss's gradient at x_hat with what may be its target; None where either is missing."""
    x_hat, x = anatomy.x_hat, anatomy.x
    if x_hat is None or x is None:
        return None
    made, given = x_hat.tensor.detach(), x.tensor.detach()
    if made.numel() != given.numel() or not given.is_floating_point():
        return None
    gradient = gradient_at(anatomy)
    if gradient is None:
        return None
    targets = [given, *(t for t in beside(anatomy) if t.numel() == made.numel())]
    return Pulled(gradient, made, targets)


def likelihood(anatomy: Anatomy) -> Likelihood | None:
    """Which plain likelihood the loss's gradient at x_hat fits; None where it fits none."""
    known, x = pulled(anatomy), anatomy.x
    if known is None or x is None:
        return _of_classes(anatomy)
    gradient, made, targets = known.gradient, known.made, known.targets
    given = x.tensor.detach()
    found: list[tuple[str, float, float]] = []
    for target in targets:
        given = target
        found = list(fits(gradient, made, given.reshape(made.shape)))
        if found:
            break
    else:
        for target in targets:
            given = target
            scaled = with_scale(anatomy, gradient, made, given.reshape(made.shape))
            if scaled is not None:
                found = [scaled]
                break
        else:
            return None
    kind, weight = min(found, key=lambda f: f[2])[:2]
    rows = x.shape[0]
    compared = float(given.min()), float(given.max())
    return Likelihood(kind, weight * rows, rows, given.numel() // max(1, rows), compared)


def _of_classes(anatomy: Anatomy) -> Likelihood | None:
    """The cross-entropy of class numbers that the loss compares with the decoder's logits."""
    loss, x, x_hat = anatomy.recording.loss, anatomy.x, anatomy.x_hat
    if not isinstance(loss, Tensor) or x is None or x_hat is None or not x.shape:
        return None
    after = anatomy.flow.descendants(x_hat) | {x_hat.index}
    calls = [op for op in anatomy.recording.ops if op.name == "cross_entropy" and op.makes]
    calls = [op for op in calls if op.reads[0].index in after and len(op.reads) > 1]
    if len(calls) != 1 or not loss.requires_grad:
        return None
    logits, target = calls[0].reads[0], calls[0].reads[1].tensor.detach()
    if logits.edge is None or target.is_floating_point():
        return None
    (gradient,) = torch.autograd.grad(
        loss.sum(), [logits.edge], allow_unused=True, retain_graph=True
    )
    made = logits.tensor.detach()
    weight = class_weight(gradient, made, target) if gradient is not None else None
    if weight is None:
        return None
    rows, count = x.shape[0], target.numel()
    compared = float(target.min()), float(target.max())
    return Likelihood("categorical", weight * rows, rows, count // max(1, rows), compared)


def meeting(anatomy: Anatomy) -> Op | None:
    """The first operation of the loss that reads x_hat, or what follows from it, beside x."""
    flow, x_hat, loss = anatomy.flow, anatomy.x_hat, anatomy.recording.loss
    end = anatomy.recording.value_of(loss) if isinstance(loss, Tensor) else None
    if x_hat is None or end is None:
        return None
    after, behind = flow.descendants(x_hat), flow.ancestors(end)
    for op in anatomy.recording.ops:
        if not op.makes or op.out.index not in behind:
            continue
        data = [v for v in op.reads if _only_data(flow, v)]
        if data and any(v.index in after for v in op.reads):
            return op
    return None


def beside(anatomy: Anatomy) -> Iterator[Tensor]:
    """What the loss compares with the reconstruction where that is no more x itself: `2 * x - 1`.

    Layers and noise play no part in it.
    """
    flow, x_hat = anatomy.flow, anatomy.x_hat
    after = flow.descendants(x_hat) if x_hat is not None else set()
    for op in anatomy.recording.ops:
        if any(v.index in after for v in op.reads):
            for value in op.reads:
                if _only_data(flow, value) and value.tensor.is_floating_point():
                    yield value.tensor.detach()


@dataclass(frozen=True, slots=True)
class Comparison:
    """One operation of the loss that compares the model's output with the input.

    `swapped` says that the operands stand the wrong way round, `activation` names what made the
    output, `target` is the range of the input there. `reach` is the range of the activation,
    `met` that of what the loss makes of it before it compares: probabilities of logits.
    """

    op: Op
    swapped: bool
    activation: str
    activated_at: Span | None
    target: tuple[float, float]
    outside: float
    reach: tuple[float, float] | None
    met: tuple[float, float] | None


def compared_in(recording: Recording, flow: Flow, x_hat: Value | None) -> Iterator[Comparison]:
    """Every operation that reads the input beside what the model made of it.

    The input may have been normalised without learned weights. What x_hat is compared with may be
    no part of the batch, as a graph's adjacency beside its normalised form is.
    """
    for op in recording.ops:
        if len(op.reads) < 2:
            continue
        plain = [v for v in op.reads if _only_data(flow, v)]
        made = [v for v in op.reads if flow.posterior(v)]
        if not plain and made and op.name != "sub" and _is_output(flow, x_hat, made[0]):
            plain = [v for v in op.reads if v.source == "constant"]
        if not plain or not made or not plain[0].tensor.numel():
            continue
        classes = op.name in CLASS_LOSSES and not plain[0].tensor.is_floating_point()
        if not classes and made[0].tensor.numel() != plain[0].tensor.numel():
            continue
        known = op.name in ASYMMETRIC_LOSSES | SYMMETRIC_LOSSES | {"sub"}
        if not known or (op.name == "sub" and not _is_output(flow, x_hat, made[0])):
            continue
        target = plain[0].tensor.detach()
        swapped = op.name in ASYMMETRIC_LOSSES and op.reads[0] is plain[0]
        log_rates = op.name == "poisson_nll_loss" and _of_log_rates(op)
        found = None if log_rates else bounded(flow, made[0])
        yield _comparison(op, swapped, _activation(flow, made[0]), found, target, classes)


def rate_compared(anatomy: Anatomy, recon: Likelihood) -> Comparison | None:
    """How x_hat lies to the data where a likelihood of counts by their rates is written out."""
    met, x_hat = meeting(anatomy), anatomy.x_hat
    if recon.kind not in RATES or met is None or x_hat is None or anatomy.x is None:
        return None
    found = bounded(anatomy.flow, x_hat)
    target = anatomy.x.tensor.detach()
    return _comparison(met, False, _activation(anatomy.flow, x_hat), found, target, False)


def _of_log_rates(op: Op) -> bool:
    """Whether a Poisson loss takes the logarithms of rates, as it does unless told otherwise."""
    return bool(op.args[2] if len(op.args) > 2 else op.kwargs.get("log_input", True))


def _comparison(
    op: Op, swapped: bool, maker: Op | None, found: Bounded | None, target: Tensor, classes: bool
) -> Comparison:
    """A comparison with the range of what is compared, where its activation is known."""
    maker = found.op if found is not None else maker
    met = through_link(op, found)
    return Comparison(
        op,
        swapped,
        maker.name if maker is not None else "",
        maker.span if maker is not None else None,
        (float(target.min()), float(target.max())),
        0.0 if classes else _share_outside(target, met),
        (found.low, found.high) if found is not None else None,
        (met.low, met.high) if met is not None else None,
    )


def _only_data(flow: Flow, value: Value) -> bool:
    index = value.index
    return flow.data[index] and not flow.learned[index] and not flow.noise[index]


def _is_output(flow: Flow, x_hat: Value | None, value: Value) -> bool:
    while x_hat is not None and value is not x_hat:
        if value.op is None or value.op.name not in RESHAPES | SLICES | RANGES.keys():
            return False
        value = flow.parents(value)[0]
    return x_hat is not None


def _activation(flow: Flow, value: Value) -> Op | None:
    while value.op is not None and value.op.name in RESHAPES | SLICES:
        value = flow.parents(value)[0]
    return value.op


def _share_outside(target: Tensor, reach: Bounded | None) -> float:
    """The share of targets out of reach; what moves a range a little, as by 1e-3, is meant."""
    if reach is None or not target.numel():
        return 0.0
    slack = _LITTLE * float(target.max() - target.min()) if reach.moved else 1e-6
    outside = (target < reach.low - slack) | (target > reach.high + slack)
    return float(outside.float().mean())
