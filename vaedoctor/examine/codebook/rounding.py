"""Codes that are rounded, without a table: whether the gradient passes the rounding."""

from __future__ import annotations

from dataclasses import dataclass

from ..anatomy.anatomy import Anatomy
from ..runs.flow import CUTS, RESHAPES
from ..runs.gradients import Arrives
from ..runs.recording import Op
from .codebook import _arrival, _decoder_listens

INTEGERS = frozenset("byte int long short char bool".split())


@dataclass(frozen=True, slots=True)
class Rounding:
    """A rounding of the encoder's output on the way to x_hat, and the gradient across it."""

    op: Op
    arrives: Arrives


def rounding(anatomy: Anatomy) -> Rounding | None:
    """The first `round` or `sign` between a trained encoder and the reconstruction."""
    op = anatomy.quantizer if not anatomy.latents else None
    if op is None or op.name not in ("round", "round_", "sign", "floor") or not op.reads:
        return None
    after = anatomy.flow.consumers.get(op.out.index, []) if op.makes else []
    if any(reader.name in INTEGERS for reader in after):
        return None  # a code to be stored: nobody trains through it
    value = op.reads[0]
    while value.edge is None and value.op is not None and value.op.name in RESHAPES | CUTS:
        value = value.op.reads[0]
    arrives = _arrival(anatomy, value, op)
    if arrives is Arrives.ZERO and not _decoder_listens(anatomy, op):
        arrives = None
    return None if arrives is None else Rounding(op, arrives)
