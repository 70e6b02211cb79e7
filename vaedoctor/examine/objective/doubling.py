"""How KL and reconstruction scale with the batch, judged by a batch that holds every row twice.

A batch of repeated rows has as many tokens, the same statistics and, in a mixture over the batch,
the same densities as the batch itself. With posterior, sample and reconstruction put back to what
they were, the gradient at a row is the same where a term is summed, and half of it where it is a
mean: whatever the prior, the likelihood and the padding.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ...subject.subject import Subject
from ..anatomy.anatomy import Anatomy
from ..anatomy.pinning import held_to
from ..runs.edits import Edit
from ..runs.recording import Value
from ..runs.repeat import repeat
from .backwards import gradient_at
from .probe import Probe
from .quotients import EVEN, spread

_LEAST = 1e-3  # of the largest gradient: below it the quotient is rounding

_Edits = dict[int | tuple[int, int], Edit]


@dataclass(frozen=True, slots=True)
class Twice:
    """One recorded step, and the same one on a batch that holds every row twice."""

    subject: Subject
    whole: Anatomy
    doubled: Subject
    twice: Anatomy
    seed: int
    rewind: Callable[[], None]

    def kl(self, which: int) -> float:
        """How many times the loss pulls a row of one latent's heads; 0 where not all alike.

        Raises Unavailable where the heads cannot be forced.
        """
        one, two = (
            Probe(subject, anatomy, anatomy.sampled[which], self.seed, self.rewind)
            for subject, anatomy in ((self.subject, self.whole), (self.doubled, self.twice))
        )
        heads = [(one.mu, two.mu), *([(one.h, two.h)] if one.h is not one.mu else [])]
        once = self._pulls(self.subject, self.whole, [(v, v) for v, _ in heads])
        both = self._pulls(self.doubled, self.twice, heads)
        if not once or len(once) != len(both):
            return 0.0
        parts = [(_first(b, a).flatten(), a.flatten()) for a, b in zip(once, both, strict=True)]
        now, then = (torch.cat(column) for column in zip(*parts, strict=True))
        return times(now, then)

    def reconstruction(self) -> float:
        """How many times the loss pulls a row of x_hat; 0 where not all elements alike."""
        before, x_hat, here = gradient_at(self.whole), self.whole.x_hat, self.twice.x_hat
        if before is None or x_hat is None or here is None:
            return 0.0
        both = self._pulls(self.doubled, self.twice, [(x_hat, here)])
        return times(_first(both[0], before), before) if both else 0.0

    def _pulls(
        self, subject: Subject, anatomy: Anatomy, heads: list[tuple[Value, Value]]
    ) -> list[Tensor]:
        """The loss's gradient at values of one run that are put to what they were in the whole one.

        So are the samples and x_hat; empty where the rows do not lie as in the batch.
        """
        pairs = [(x.z, y.z) for x, y in zip(self.whole.latents, anatomy.latents, strict=False)]
        if self.whole.x_hat is not None and anatomy.x_hat is not None:
            pairs.append((self.whole.x_hat, anatomy.x_hat))
        edits: _Edits = {}
        for known, here in pairs:
            made = _laid(known, here)
            if made is None or here.op is None:
                return []
            edits[here.place] = held_to(made)
        leaves = []
        for known, here in heads:
            made = _laid(known, here)
            if made is None or here.op is None:
                return []
            leaves.append(made.requires_grad_(True))
            edits[here.place] = _leaf(leaves[-1])
        run = (subject, anatomy.recording)
        again = repeat(*run, seed=self.seed, edits=edits, keep=(), rewind=self.rewind)
        if not again.same or not isinstance(again.loss, Tensor) or not again.loss.requires_grad:
            return []
        found = torch.autograd.grad(again.loss.sum(), leaves, allow_unused=True)
        return [torch.zeros_like(v) if g is None else g for v, g in zip(leaves, found, strict=True)]


def _leaf(leaf: Tensor) -> Edit:
    return lambda t: leaf.clone()


def _laid(known: Value, here: Value) -> Tensor | None:
    """A value of the batch as it is in another run: itself, or every row twice; None if neither.

    The rows may lie behind an axis of several samples.
    """
    values = known.tensor.detach()
    if here.shape == known.shape:
        return values.clone()
    axis = _doubled(known.shape, here.shape)
    return torch.cat([values, values], axis) if axis is not None else None


def _doubled(known: tuple[int, ...], here: tuple[int, ...]) -> int | None:
    """The one axis on which there are twice as many."""
    if len(known) != len(here):
        return None
    axes = [n for n, (a, b) in enumerate(zip(known, here, strict=True)) if a != b]
    return axes[0] if len(axes) == 1 and here[axes[0]] == 2 * known[axes[0]] else None


def _first(both: Tensor, like: Tensor) -> Tensor:
    """The part of a value of the doubled batch that is of its first rows."""
    axis = _doubled(like.shape, both.shape)
    return both if axis is None else both.narrow(axis, 0, like.shape[axis])


def times(now: Tensor, then: Tensor) -> float:
    """By how much one gradient is larger than another, for all elements; 0 where for none."""
    known = then.abs() > _LEAST * then.abs().max()
    if bool(((now == 0) != (then == 0)).any()) or not bool(known.any()):
        return 0.0
    found = now.double()[known] / then.double()[known]
    return float(found.mean()) if spread(found) < EVEN else 0.0
