"""The value of a reported KL at the prior, where every KL is 0.

A tensor that forward or the loss returns is a reported KL when its gradients at location and
scale are those of the exact one; location 0 and scale 1 are then forced, the noise to ±1, so that
an estimate by one sample is judged as well.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..finding import Span
from ..rule import Unavailable
from ..subject.subject import Subject
from .anatomy import Anatomy
from .divergence import EXACT, Divergence
from .flow import CUTS, Flow
from .probe import EVEN, Probe
from .recording import Recording, Value

AT_ONE = (0.0, 1.0, 0.5413248546129181)  # log 1, 1 itself, and the head whose softplus is 1


@dataclass(frozen=True, slots=True)
class Offset:
    """A reported KL: what it is at the prior (of each row, if it has rows), and per latent unit."""

    name: str
    total: float
    per_unit: float
    at: Span | None


def offsets(
    subject: Subject,
    anatomy: Anatomy,
    divergence: Divergence,
    seed: int,
    rewind: Callable[[], None],
) -> Iterator[Offset]:
    """The value at the prior of every reported KL of one latent."""
    probe = Probe(subject, anatomy, divergence.latent, seed, rewind)
    decoded = anatomy.flow.descendants(*(v for op in probe.pins for v in op.makes))
    loss = anatomy.recording.loss
    for name, value in _reported(anatomy.flow):
        term = value
        while term.op is not None and term.op.name in CUTS:
            (term,) = anatomy.flow.parents(term)
        both = anatomy.flow.ancestors(term) >= {probe.mu.index, probe.h.index}
        if term.tensor is loss or term.index in decoded or not both:
            continue
        if term in (probe.mu, probe.h, divergence.latent.z) or not term.requires_grad:
            continue
        found = probe.measure(divergence.settings[0].head, term=term)
        if found.spread > EVEN or abs(found.ratio - 1) > EXACT or found.weight == 0:
            continue
        total = _at_prior(probe, term)
        if total is not None:
            units = found.weight * probe.mu.tensor.numel()
            at = term.op.span if term.op else None
            yield Offset(name, total / (term.shape or (1,))[0], total / units, at)


def _at_prior(probe: Probe, term: Value) -> float | None:
    for head in AT_ONE:
        zeros = torch.zeros_like(probe.mu.tensor.detach())
        leaves = probe.placed(zeros, torch.full_like(probe.h.tensor.detach(), head))
        try:
            value, location, scale = probe.read(*leaves, term)
        except Unavailable:  # a scale of 0 that `Normal` refuses
            continue
        if _all_close(location, 0.0) and _all_close(scale, 1.0):
            return float(value.detach())
    return None


def _all_close(values: Tensor, to: float) -> bool:
    return bool(((values - to).abs() < 1e-4).all())


def _reported(flow: Flow) -> Iterator[tuple[str, Value]]:
    """Tensors with a name or a place in what forward and the objective return."""
    recording: Recording = flow.recording
    seen: set[int] = set()
    for made in (recording.returned, recording.output):
        for name, thing in _items(made):
            if not isinstance(thing, Tensor) or not thing.is_floating_point():
                continue
            value = recording.value_of(thing)
            if value is not None and value.index not in seen:
                seen.add(value.index)
                yield name, value


def _items(made: Any, depth: int = 3) -> Iterator[tuple[str, Any]]:
    if isinstance(made, Mapping):
        pairs: Iterable[tuple[Any, Any]] = made.items()
    elif hasattr(made, "_asdict"):
        pairs = made._asdict().items()
    elif isinstance(made, (tuple, list)):
        pairs = (("", item) for item in made)
    elif hasattr(made, "__dict__") and not isinstance(made, (type, Tensor)):
        pairs = vars(made).items()
    else:
        return
    for name, item in pairs:
        if depth and isinstance(item, (tuple, list, Mapping)):
            yield from _items(item, depth - 1)
        else:
            yield str(name), item


def all_offsets(
    subject: Subject,
    anatomy: Anatomy,
    divergences: list[Divergence],
    seed: int,
    rewind: Callable[[], None],
) -> Iterator[Offset]:
    """Of every latent whose isolated KL is an exact one to N(0, I) and nowhere clamped."""
    for d in divergences:
        if d.judgeable and d.exact and d.clamped is None:
            try:
                yield from offsets(subject, anatomy, d, seed, rewind)
            except Unavailable:
                continue
