"""What the loss makes of the posteriors of all rows moved together, with the decoder held.

Whatever a loss says of how the rows' posteriors lie to each other, as an index-code mutual
information, a total correlation or an entropy of the aggregate does, stays the same when all
locations move by one vector. What remains is the prior's: of N(0, I) the gradients at the locations
of a unit add up to the weight times the sum of the locations, with one weight for all units, near
the prior and far from it.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from ...rule import Unavailable
from ...subject.subject import Subject
from ..anatomy.anatomy import Anatomy
from .divergence import FAR, Divergence
from .probe import Probe
from .quotients import EVEN, quotient, spread

_FEWEST = 2  # units, and rows


def moved_together(
    subject: Subject, anatomy: Anatomy, of: Divergence, seed: int, rewind: Callable[[], None]
) -> float:
    """The weight a row of a prior N(0, I); 0 where that is not what pulls the rows together."""
    probe = Probe(subject, anatomy, of.latent, seed, rewind)
    shape = probe.mu.shape
    if probe.counts or not probe.apart or len(shape) < 2 or min(of.rows, of.units) < _FEWEST:
        return 0.0
    if shape[0] != of.rows or shape != probe.latent.z.shape:
        return 0.0
    found = []
    for reach in (1.0, FAR):
        apart, h = probe.leaves(of.settings[0].head, reach)
        generator = torch.Generator().manual_seed(seed + 5)
        sizes = torch.rand(shape[1:], generator=generator) + 1
        signs = torch.randint(0, 2, shape[1:], generator=generator) * 2 - 1
        mu = (apart.detach() + (2 * reach * sizes * signs).to(apart)).requires_grad_(True)
        loss, location, _ = probe.read(mu, h)
        if not loss.requires_grad or not torch.allclose(location, mu, rtol=EVEN, atol=EVEN):
            return 0.0
        try:
            (pull,) = torch.autograd.grad(loss, [mu], allow_unused=True)
        except RuntimeError as error:
            raise Unavailable("the backward pass raises (VAE606)") from error
        if pull is None:
            return 0.0
        weights = quotient(pull.sum(0), mu.detach().sum(0))
        if weights.numel() != mu[0].numel() or spread(weights) > EVEN:
            return 0.0
        found.append(float(weights.mean()))
    near, far = found
    return far * of.rows if abs(near - far) <= EVEN * abs(far) else 0.0
