"""What a mask or lengths should leave out of the loss, and does not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from ...subject.subject import Subject
from ..anatomy.anatomy import Anatomy
from ..runs.recording import Op, Value
from .exchanged import exchanged, lost_in
from .masks import counted_padding, loose_at, steps_beyond
from .padded_kl import others_at, padded_kl
from .unshown import beyond_lengths, unshown


@dataclass(frozen=True, slots=True)
class Kept:
    """The operation of the loss that counts what is masked, how many steps, and in which way.

    `why` is "scaled" where the mask leaves out no entry of x_hat, "padded" where steps beyond a
    row's length count, "any" where the loss makes the same of any mask, "kl" where a KL of each
    step counts them, "unshown" where the encoder is not shown them.
    """

    op: Op
    why: str
    steps: int = 0


def kept(
    subject: Subject,
    anatomy: Anatomy,
    mask: Tensor,
    value: Value | None,
    seed: int,
    rewind: Callable[[], None],
    *,
    judged: bool,
    padding: bool,
) -> Kept | None:
    """The first proof that what is masked counts; None where there is none.

    `judged` says that the loss or an output depends on the mask, `padding` that padded steps are
    to be looked for.
    """
    scaled = loose_at(anatomy, mask, value) if judged else None
    if scaled is not None:
        return Kept(scaled, "scaled")
    op, steps = counted_padding(anatomy, mask) if padding else (None, 0)
    if op is not None:
        return Kept(op, "padded", steps)
    if not judged:
        return None
    same = None
    if value is not None:
        same = lost_in(subject, anatomy, value, seed, rewind, scoring=True)
    if same is not None:
        return Kept(same, "any")
    x = anatomy.x.tensor if anatomy.x is not None else None
    proofs = (("kl", padded_kl, steps_beyond), ("unshown", unshown, beyond_lengths))
    for why, proof, of in proofs:
        beyond = of(x, mask)
        if x is None or beyond is None:
            continue
        moved = exchanged(subject.batch, x, others_at(x, beyond))
        op = proof(subject, anatomy, beyond, moved, seed, rewind)
        if op is not None:
            return Kept(op, why, int(beyond.sum()))
    return None
