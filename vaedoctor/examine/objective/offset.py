"""The value of a KL at the prior, where every KL is 0.

A tensor that forward or the loss returns is a reported KL when its gradients at location and
scale are those of the exact one; location 0 and scale 1 are then forced, the noise to ±1, so that
an estimate by one sample is judged as well. Where none is returned the loss's own term is, if it
differs from the exact KL by nothing but one of the constants that a formula may lack.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ...finding import Span
from ...rule import Unavailable
from ...subject.subject import Subject
from ..anatomy.anatomy import Anatomy
from ..runs.flow import CUTS, Flow
from ..runs.recording import Recording, Value
from ..runs.repeat import Repeated
from .categories import kind_of
from .discrete import DiscreteKL, Logits
from .divergence import EXACT, Divergence
from .probe import Probe
from .quotients import EVEN, pulled_back
from .summands import joined

CONSTANT = 1e-4  # nats a unit, of a constant in float32
AT_ONE = (0.0, 1.0, 0.5413248546129181)  # log 1, 1 itself, and the head whose softplus is 1


@dataclass(frozen=True, slots=True)
class Offset:
    """A KL: what it is at the prior (of each row, if it has rows), and per latent unit.

    `categories` is how many a unit chooses from, 0 of another one; `laplace` says which that is.
    """

    name: str
    total: float
    per_unit: float
    at: Span | None
    categories: int = 0
    laplace: bool = False


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
    loss, told = anatomy.recording.loss, False
    for name, value in reported(anatomy.flow):
        term = value
        while term.op is not None and term.op.name in CUTS:
            (term,) = anatomy.flow.parents(term)
        both = anatomy.flow.ancestors(term) >= {probe.mu.index, probe.h.index}
        if term.tensor is loss or term.index in decoded or not both:
            continue
        if term in (probe.mu, probe.h, divergence.latent.z) or not term.requires_grad:
            continue
        if _of_others(probe, term):
            continue
        found = probe.measure(divergence.settings[0].head, term=term)
        if found.spread > EVEN or abs(found.ratio - 1) > EXACT or found.weight == 0:
            continue
        here = _at_prior(probe, term)
        if here is not None:
            total, told = sum(run.term for run in here) / 2, True
            units = found.weight * probe.mu.tensor.numel()
            at = term.op.span if term.op else None
            yield Offset(name, total / (term.shape or (1,))[0], total / units, at)
    if not told and (inside := _inside(probe, divergence)) is not None:
        yield inside


def _of_others(probe: Probe, term: Value) -> bool:
    """Whether the posterior of a further latent is part of a term, which is 0 at no one's prior."""
    latents = probe.anatomy.latents
    read = probe.anatomy.flow.ancestors(term, stop=[x.z for x in latents])
    further = (x for x in latents if x not in probe.alike)
    return any(v.index in read for x in further for v in (x.loc, x.scale) if v is not None)


def _inside(probe: Probe, divergence: Divergence) -> Offset | None:
    """The loss's own term, beside a constant the exact KL; None where it is something else.

    What joins the rest of the loss by sums and factors alone has the loss's own gradients, which
    are those of the exact KL.
    """
    summand = joined(probe.anatomy, divergence.latent, probe.mu, probe.h)
    if summand is None or summand.term in (probe.mu, probe.h, divergence.latent.z):
        return None
    term, setting = summand.term, divergence.settings[0]
    if not term.requires_grad or term.tensor is probe.anatomy.recording.loss:
        return None
    here = _at_prior(probe, term)
    if here is None:
        return None
    m, s = setting.location.double(), setting.scales.double().abs()
    risen = setting.weight * float((0.5 * (m**2 + s**2 - 1) - s.log()).sum())
    at_prior = probe.samples * sum(run.loss for run in here) / 2
    if abs(setting.loss - at_prior - risen) > EXACT * abs(risen):
        return None  # a capacity, `|KL - C|`
    rows, of_row = divergence.rows, divergence.units
    above, below = (run.share for run in here)
    if above is None or below is None:
        return None  # held fixed, as a term beside the KL is
    total = (above + below) / 2 / setting.weight
    each = total / (rows * of_row)
    if not _left_out(each, rows * of_row, of_row):
        return None
    return Offset("", total / rows, each, divergence.at)


def _left_out(each: float, units: int, of_row: int) -> bool:
    """Whether a unit's constant is 0 or one that a formula may lack, have twice, or misplace.

    Those are the halves of `1 +`, once for a row or for all in place of for every unit, and the
    ½ log 2π of one of two densities.
    """
    halves = (0.5, 1.0, 0.5 - 0.5 / of_row, 0.5 - 0.5 / units, 0.5 * math.log(2 * math.pi))
    return any(abs(abs(each) - known) < CONSTANT for known in (0.0, *halves))


@dataclass(frozen=True, slots=True)
class _Read:
    """The loss and a term of one run, as sums, and what the term adds to the loss.

    `share` is None where the loss is no function of the term. No graph is kept.
    """

    loss: float
    term: float
    share: float | None

    @classmethod
    def of(cls, run: Repeated, term: Value) -> _Read:
        """Read it off a run that kept the term; the loss is linear in it."""
        made, loss = run.tensors[term.index], run.loss.sum()
        (slope,) = pulled_back(loss, made) if made.requires_grad else (None,)
        share = None if slope is None else float((slope * made).detach().sum())
        return cls(float(loss.detach()), float(made.detach().sum()), share)


def _at_prior(probe: Probe, term: Value) -> list[_Read] | None:
    """Two runs at location 0 and scale 1, the noise of either sign; None where no head gives it."""
    for head in AT_ONE:
        zeros = torch.zeros_like(probe.mu.tensor.detach())
        leaves = probe.placed(zeros, torch.full_like(probe.h.tensor.detach(), head))
        read = []
        with suppress(Unavailable):  # a scale of 0 that `Normal` refuses
            for sign in (1.0, -1.0):
                run = probe.forced(*leaves, sign, term)
                if not _all_close(run.tensors[probe.latent.z.index], sign):
                    break
                read.append(_Read.of(run, term))
        if len(read) == 2:
            return read
    return None


def _all_close(values: Tensor, to: float) -> bool:
    return bool(((values - to).abs() < 1e-4).all())


def reported(flow: Flow) -> Iterator[tuple[str, Value]]:
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


def discrete_offsets(
    subject: Subject,
    anatomy: Anatomy,
    divergences: list[DiscreteKL],
    seed: int,
    rewind: Callable[[], None],
) -> Iterator[Offset]:
    """The value at the uniform distribution of every KL of a categorical latent."""
    for d in divergences:
        if not d.standard or d.root is None or d.bits:
            continue
        logits = Logits(subject, anatomy, d.latent, d.root, seed, rewind)
        returned = [(n, v) for n, v in reported(anatomy.flow) if v.index in logits.around]
        summand = joined(anatomy, d.latent, d.root)
        inside = [("", summand.term)] if summand is not None else []
        told = False
        for name, term in (*returned, *inside):
            here = term.tensor is not anatomy.recording.loss and term is not d.root
            if not here or not term.requires_grad or (told and not name):
                continue
            with suppress(Unavailable):
                if (found := _of_categories(logits, d, term)) is not None:
                    at, told = (term.op.span if name and term.op else d.at), True
                    yield Offset(name, *found, at, d.categories)


def _of_categories(logits: Logits, d: DiscreteKL, term: Value) -> tuple[float, float] | None:
    """Of a term that is beside a constant the KL: what it is at the prior, a row and a unit."""
    leaf, gradient, value = logits.measure(1.0, term)
    kind, weight = kind_of(leaf, gradient, d.own)
    if kind != "kl":
        return None
    _, _, total = logits.measure(0.0, term)
    p = leaf.double().softmax(d.own)
    most, variables = math.log(d.categories), p.numel() // d.categories
    risen = weight * float((p * p.log()).sum() + most * variables)
    each = total / weight / variables
    if abs(value - total - risen) > EXACT * abs(risen):
        return None
    if all(abs(abs(each) - known) > CONSTANT for known in (0.0, most, 2 * most)):
        return None  # log K is not what is left out, nor of the wrong sign
    return total / weight / d.rows, each
