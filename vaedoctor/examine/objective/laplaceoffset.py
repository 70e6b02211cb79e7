"""The value at the prior of a reported KL of a Laplace latent: that of Laplace(0, 1) to itself."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import suppress

import torch

from ...rule import Unavailable
from ...subject.subject import Subject
from ..anatomy.anatomy import Anatomy
from ..runs.recording import Value
from .divergence import EXACT
from .laplace import NEAR, LaplaceKL, laplace_probe, levels, measure
from .offset import AT_ONE, CONSTANT, Offset, reported
from .probe import Probe

_CONSTANTS = (0.0, 1.0, math.log(2), 1 + math.log(2), 1 - math.log(2))
"""What a formula may lack: the 1, and the log 2b of one of two densities."""


def laplace_offsets(
    subject: Subject,
    anatomy: Anatomy,
    found: list[LaplaceKL],
    seed: int,
    rewind: Callable[[], None],
) -> Iterator[Offset]:
    """Of every latent whose isolated KL is an exact one to Laplace(0, 1) and nowhere clamped."""
    for d in found:
        if not d.standard or d.clamped is not None:
            continue
        with suppress(Unavailable):
            probe = laplace_probe(subject, anatomy, d.latent, seed, rewind)
            yield from _of_terms(probe, anatomy)


def _of_terms(probe: Probe, anatomy: Anatomy) -> Iterator[Offset]:
    decoded = anatomy.flow.descendants(*(v for op in probe.pins for v in op.makes))
    for name, term in reported(anatomy.flow):
        both = anatomy.flow.ancestors(term) >= {probe.mu.index, probe.h.index}
        here = term.tensor is not anatomy.recording.loss and term.index not in decoded
        if not both or not here or not term.requires_grad or term is probe.latent.z:
            continue
        with suppress(Unavailable):
            made = measure(probe, 1.0 if probe.signed else 2.0, NEAR, term)
            exact = made.pull > 0 and abs(made.log / made.pull - 1) < EXACT
            total = _at_prior(probe, term) if exact else None
            if total is None:
                continue
            each = total / made.pull / probe.latent.z.tensor.numel()
            if any(abs(abs(each) - known) < CONSTANT for known in _CONSTANTS):
                at = term.op.span if term.op else None
                yield Offset(name, total / (term.shape or (1,))[0], each, at, laplace=True)


def _at_prior(probe: Probe, term: Value) -> float | None:
    """The term at location 0 and scale 1, noise of both signs; None where no head gives it."""
    loc, scale = probe.latent.loc, probe.latent.scale
    assert loc is not None
    assert scale is not None
    for head in AT_ONE:
        zeros = torch.zeros_like(probe.mu.tensor.detach())
        leaves = probe.placed(zeros, torch.full_like(probe.h.tensor.detach(), head))
        with suppress(Unavailable):
            runs = [probe.forced(*leaves, level, loc, scale, term) for level in levels(probe)]
            ones = all(bool(((r.tensors[scale.index] - 1).abs() < CONSTANT).all()) for r in runs)
            if ones and all(bool((r.tensors[loc.index] == 0).all()) for r in runs):
                return sum(float(r.tensors[term.index].detach().sum()) for r in runs) / 2
    return None
