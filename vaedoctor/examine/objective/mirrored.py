"""Whether what the loss asks of a latent is symmetric about 0, whatever its form.

The posterior is forced to known values and to their mirror image, the decoder held: a KL to
N(0, I), the parts of one, and a discrepancy from its samples ask the same of both.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from ...rule import Unavailable
from ...subject.subject import Subject
from ..anatomy.anatomy import Anatomy
from ..anatomy.latents import Latent
from .probe import Probe

SAME, OTHER = 1e-5, 1e-2  # of the loss's change over a location three times as far


def mirrored(
    subject: Subject, anatomy: Anatomy, latent: Latent, seed: int, rewind: Callable[[], None]
) -> bool:
    """Whether the loss around the decoder is the same for a mirrored posterior, and pulls both.

    A term on the location alone, as a penalty of sparse codes is, is no prior of the sample.
    """
    try:
        probe = Probe(subject, anatomy, latent, seed, rewind)
        if probe.mu is probe.h:
            return False
        high, low = (1.0, -1.0) if probe.signed else (2.0, 0.5)
        mu, h = (t.detach() for t in probe.leaves(high, 1.0))
        other = torch.full_like(h, low)
        places = (mu, h, 1.0), (-mu, h, -1.0), (3 * mu, h, 1.0), (mu, other, 1.0)
        runs = [probe.run_at(*place) for place in places]
    except Unavailable:
        return False
    if not torch.allclose(runs[1][1], -runs[0][1], rtol=1e-4, atol=1e-5):
        return False
    loss, image, far, narrow = (float(run[0].detach()) for run in runs)
    change = abs(far - loss)
    same = change > 0 and abs(image - loss) <= SAME * change
    return same and abs(narrow - loss) > OTHER * change
