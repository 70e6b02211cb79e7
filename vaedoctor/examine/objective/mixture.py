"""Whether a mixture prior is normalised: its components forced to one density, so is their mixture.

log p(z) = log Σ w_k N_k(z) is c where every log N_k is c, and nothing else if the weights add up to
one: a log K that is left out shows, whatever the components are. The KL by one sample is then
log q(z) - c, of which log q is known where the loss has the density of the sample.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ...finding import Span
from ...subject.subject import Subject
from ..anatomy.anatomy import Anatomy
from ..anatomy.latents import MULS
from ..anatomy.moves import inputs_of
from ..anatomy.pinning import held_to, loss_value
from ..runs.recording import Value
from .density import Density
from .divergence import Divergence
from .probe import Probe
from .summands import joined

CONSTANT = 1e-3  # nats a row
_LEAST = 3  # components


@dataclass(frozen=True, slots=True)
class Mixture:
    """A prior of several components: how many, and what log Σ w is, 0 where they add up to 1.

    `turned` says that the loss rises with its density, where log q has the sign of a KL.
    """

    components: int
    total: float
    at: Span | None
    turned: bool = False

    @property
    def normalised(self) -> bool:
        """Whether the components' weights add up to one."""
        return abs(self.total) < CONSTANT

    @property
    def slip(self) -> bool:
        """Whether they add up to the number of components, or to one over it."""
        return abs(abs(self.total) - math.log(self.components)) < CONSTANT


def mixture(
    subject: Subject,
    anatomy: Anatomy,
    of: Divergence,
    scored: Density | None,
    seed: int,
    rewind: Callable[[], None],
) -> Mixture | None:
    """Judge the prior that a sample is scored by; None where it is no mixture that can be forced.

    Raises Unavailable where the step cannot be repeated.
    """
    probe = Probe(subject, anatomy, of.latent, seed, rewind)
    found = joined(anatomy, of.latent, probe.mu, probe.h)
    if found is None or probe.samples > 1 or not probe.apart:
        return None
    parts = next(_components(anatomy, probe, found.term), None)
    if parts is None or found.term.op is None:
        return None
    parts = _scaled(anatomy, parts)
    setting = of.settings[0]
    mu, h = probe.leaves(setting.head, 1.0)
    (at_zero, low), (at_one, high) = (
        _term(probe, mu, h, found.term, parts, level) for level in (0.0, 1.0)
    )
    steps = at_zero - at_one  # the term's weight, of each row
    if at_zero.numel() != of.rows or bool((steps == 0).any()):
        return None
    if float(steps.max() - steps.min()) > CONSTANT:
        return None
    if high > low and _charged(probe, of, found.term, parts):
        return Mixture(parts.tensor.numel() // of.rows, 0.0, _joins(anatomy, parts), turned=True)
    if scored is None or not scored.exact:
        return None
    count, units = parts.tensor.numel() // of.rows, of.latent.z.tensor.numel() // of.rows
    log_q = -units * (0.5 * math.log(2 * math.pi) + math.log(abs(setting.scale)) + 0.5)
    if probe.h.index not in anatomy.flow.ancestors(found.term, stop=[of.latent.z]):
        log_q = 0.0  # log p is a term by itself
    off = float((log_q - at_zero / steps).mean())
    for two_pi in (0.0, 0.5 * units * math.log(2 * math.pi)):  # left out of both densities
        made = Mixture(count, off + two_pi, _joins(anatomy, parts))
        if made.normalised or made.slip:
            return made
    return None


def _charged(probe: Probe, of: Divergence, term: Value, parts: Value) -> bool:
    """Whether the loss falls with the scale as by log q of a KL, where the prior stays the same."""
    losses = []
    for setting in of.settings[:2]:
        mu, h = probe.leaves(setting.head, 1.0)
        losses.append(_term(probe, mu, h, term, parts, 0.0)[1])
    scales = [math.log(abs(s.scale)) for s in of.settings[:2]]
    return (losses[0] - losses[1]) * (scales[1] - scales[0]) > CONSTANT


def _term(
    probe: Probe, mu: Tensor, h: Tensor, term: Value, parts: Value, level: float
) -> tuple[Tensor, float]:
    """The KL's term, and the loss, with every component of the prior at one log-density."""
    edit = held_to(torch.full_like(parts.tensor.detach(), level))
    runs = [probe.forced(mu, h, sign, term, more={parts.place: edit}) for sign in (1.0, -1.0)]
    above, below = (run.tensors[term.index].detach().double() for run in runs)
    loss = sum(float(run.loss.detach().double().sum()) for run in runs)
    return ((above + below) / 2).flatten(), loss


def _components(anatomy: Anatomy, probe: Probe, term: Value) -> Iterator[Value]:
    """The first values on the way to the KL that hold a number for every row and component.

    They know the sample, and the data through it alone; the batch meets nothing of itself.
    """
    flow, z = anatomy.flow, probe.latent.z
    rows = z.shape[0] if z.shape else 0
    inputs = {v.index for v in inputs_of(anatomy.recording)}
    after, behind = flow.descendants(z), flow.ancestors(term)
    for value in anatomy.recording.values:
        if value.index not in after & behind or value.op is None or len(value.shape) != 2:
            continue
        if rows not in value.shape or not value.tensor.is_floating_point():
            continue
        count = value.shape[1] if value.shape[0] == rows else value.shape[0]
        if count < _LEAST or count == rows or value.shape == z.shape:
            continue
        if inputs.isdisjoint(flow.ancestors(value, stop=[z])):
            yield value


def _scaled(anatomy: Anatomy, parts: Value) -> Value:
    """A sum of squares times its -½: what is added after that may be a component's weight."""
    while True:
        ops = anatomy.flow.consumers.get(parts.index, ())
        if len(ops) != 1 or ops[0].name not in MULS | {"neg"} or len(ops[0].reads) != 1:
            return parts
        parts = ops[0].out


def _joins(anatomy: Anatomy, parts: Value) -> Span | None:
    """The line at which the components become one density."""
    value, loss = parts, loss_value(anatomy)
    behind = anatomy.flow.ancestors(loss)
    while True:
        ops = anatomy.flow.consumers.get(value.index, ())
        op = next((o for o in ops if o.makes and o.out.index in behind), None)
        if op is None:
            return None
        if op.out.shape != parts.shape:
            return op.span
        value = op.out
