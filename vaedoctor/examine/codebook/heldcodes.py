"""What a decoder is given of codes alone, found by moving the input while the codes are held."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ...rule import Unavailable
from ...subject.subject import Subject
from ..anatomy.anatomy import Anatomy
from ..runs.edits import Edits
from ..runs.recording import Value
from ..runs.step import run_recorded
from ..sampling.noise import perturbed
from .codebook import find_codebooks

_ROUNDINGS = ("round", "round_", "sign", "floor")
_CHOICES = {*_ROUNDINGS, "argmin", "argmax", "topk", "sort", "argsort"}
_ROUNDED = 1e-4  # what is left of `x + (q - x)` when x moves, of the size of its operands


def held_codes(
    subject: Subject, anatomy: Anatomy, seed: int, rewind: Callable[[], None]
) -> list[Value]:
    """The codes that are read, and what is made of them and x but does not move with x.

    So is `x + (q - x).detach()`, the straight-through step, however it is written.
    """
    flow, x_hat = anatomy.flow, anatomy.x_hat
    codes = [book.read.out for book in find_codebooks(anatomy)]
    op = anatomy.quantizer
    if not codes and op is not None and op.name in _ROUNDINGS:
        codes = [o.out for o in flow.recording.ops if o.name == op.name and o.makes]
    codes = [v for v in codes if v.tensor.is_floating_point()]
    if x_hat is None or not codes or anatomy.latents:
        raise Unavailable("no sample reaches a reconstruction, so nothing can be pinned")
    if len({o.index for o in (v.op for v in codes) if o is not None}) > 1:
        raise Unavailable("several books of codes stand for one latent")
    chosen = flow.ancestors(x_hat, stop=codes) - {v.index for v in codes}
    if any(
        o.name in _CHOICES and any(v.index in chosen for v in o.makes) for o in flow.recording.ops
    ):
        raise Unavailable("further codes are chosen beside those that are held")
    if flow.noise[x_hat.index]:
        raise Unavailable("the codes are replaced by noise, which stands for them")
    edits: Edits = {v.place: _replaced(v.tensor.detach().clone()) for v in codes}
    moved = run_recorded(subject, seed=seed, edits=edits, batch=perturbed(subject.batch))
    rewind()
    ops = flow.recording.ops
    if moved.error is not None or [o.name for o in moved.ops] != [o.name for o in ops]:
        raise Unavailable("the step cannot be repeated with the codes held")
    way = flow.descendants(*codes) & flow.ancestors(x_hat)
    values = [v for v in flow.recording.values if v.index in way and v.op is not None]
    return codes + [v for v in values if _same(v, moved.values[v.index])]


def _replaced(code: Tensor) -> Callable[[Tensor], Tensor]:
    return lambda _: code


def _same(value: Value, other: Value) -> bool:
    a, b = value.tensor.detach(), other.tensor.detach()
    if a.shape != b.shape or not a.is_floating_point() or not a.numel():
        return False
    read = [v.tensor.detach() for v in value.op.reads]  # type: ignore[union-attr]
    sizes = [t.abs().max() for t in read if t.numel() and t.is_floating_point()]
    largest = max([1.0, *(float(s) for s in sizes)])
    return bool(torch.allclose(a, b, rtol=_ROUNDED, atol=_ROUNDED * largest))
