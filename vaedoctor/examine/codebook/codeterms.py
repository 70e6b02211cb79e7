"""The terms of a loss that compare codes with the encoder's vectors, and whom they move."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ...finding import Span
from ..anatomy.anatomy import Anatomy
from ..anatomy.latents import MULS
from ..runs.flow import Flow
from ..runs.recording import Op, Recording, Value
from .codebook import Codebook

_STRAIGHT = 0.999  # of a cosine


def term_at(anatomy: Anatomy, book: Codebook) -> Span | None:
    """Where the loss compares the codes with the encoder's vectors: the codebook's own term first.

    The look-up itself where no gradient passes it, or where nothing is compared.
    """
    if not book.read.out.requires_grad:
        return book.read.span
    compared = list(_compared(anatomy, book))
    own = next((op for op, _ in compared if _moves_codes(op, book, anatomy.flow)), None)
    if own is not None:
        return own.span
    terms = [op for op, judged in compared if judged]
    idle = [op for op in terms if not op.out.requires_grad]
    return (idle or _heaviest(anatomy, terms) or [book.read])[0].span


def _heaviest(anatomy: Anatomy, terms: list[Op]) -> list[Op]:
    """Of terms that say the same the one of the greatest weight, the last: a commitment is less."""
    loss = anatomy.recording.loss
    edges = [op.out.edge for op in terms if op.out.edge is not None]
    if (
        not isinstance(loss, Tensor)
        or not loss.requires_grad
        or len(edges) < len(terms)
        or not terms
    ):
        return terms
    found = torch.autograd.grad(loss, edges, allow_unused=True, retain_graph=True)
    sizes = [0.0 if g is None else float(g.norm()) for g in found]
    return [op for op, size in zip(terms, sizes, strict=True) if size >= max(sizes) * 0.999][-1:]


def _compared(anatomy: Anatomy, book: Codebook) -> Iterator[tuple[Op, bool]]:
    """Where codes meet the encoder's vectors beside the way to x_hat, and whether in the loss."""
    flow, loss, x_hat = anatomy.flow, anatomy.recording.loss, anatomy.x_hat
    last = anatomy.recording.value_of(loss) if isinstance(loss, Tensor) else None
    if last is None or book.encoded is None or x_hat is None:
        return
    judged, decoded = flow.ancestors(last), flow.ancestors(x_hat)
    codes, vectors = flow.descendants(book.read.out), flow.descendants(book.encoded)
    for op in anatomy.recording.ops:
        if not op.makes or op.out.index in decoded:
            continue
        read = [v for v in op.reads if v.index in codes]
        other = [v for v in op.reads if v.index in vectors - codes]
        if read and other:
            yield op, op.out.index in judged


def _moves_codes(op: Op, book: Codebook, flow: Flow) -> bool:
    """Whether a comparison pulls the codes alone: the vectors in it are detached."""
    codes = flow.descendants(book.read.out)
    read = [v for v in op.reads if v.index in codes]
    rest = [v for v in op.reads if v.index not in codes]
    return read[0].requires_grad and not any(v.requires_grad for v in rest)


def weighed_at(anatomy: Anatomy, book: Codebook, weight: float) -> Span | None:
    """Where the codebook's own term is multiplied by a weight; the term where it is not."""
    for op, judged in _compared(anatomy, book):
        if not judged or not _moves_codes(op, book, anatomy.flow):
            continue
        after = anatomy.flow.descendants(op.out)
        for times in anatomy.recording.ops:
            factors = [a for a in times.args if isinstance(a, float)]
            named = times.name in MULS and any(v.index in after for v in times.reads)
            if named and any(abs(f - weight) <= 1e-6 for f in factors):
                return times.span
    return term_at(anatomy, book)


def idle_commitment(anatomy: Anatomy, book: Codebook) -> Op | None:
    """A term of the loss on codes and vectors, none of which gives the vectors a gradient."""
    terms = [op for op, judged in _compared(anatomy, book) if judged]
    found = _at_vectors(anatomy, book) if terms else None
    if found is None:
        return None
    rest, total = found
    return terms[0] if float(rest.norm()) <= 1e-5 * float(total.norm()) else None


def turned_commitment(anatomy: Anatomy, book: Codebook) -> tuple[Op, float] | None:
    """The term of the loss that pushes the vectors straight away from their codes, and the cosine.

    The cosine is that of the loss's gradient at the vectors, without the reconstruction's share,
    with the way from the codes to the vectors: 1 of a squared distance, -1 of one that is taken
    off.
    """
    terms = [op for op, judged in _compared(anatomy, book) if judged]
    found = _at_vectors(anatomy, book) if terms and book.encoded is not None else None
    if found is None or book.encoded is None or book.encoded.shape != book.read.out.shape:
        return None
    away = (book.encoded.tensor - book.read.out.tensor).detach().double().flatten()
    rest = found[0].double().flatten()
    sizes = float(rest.norm() * away.norm())
    cosine = float(rest @ away) / sizes if sizes > 0 else 0.0
    return (terms[0], cosine) if cosine < -_STRAIGHT else None


def _at_vectors(anatomy: Anatomy, book: Codebook) -> tuple[Tensor, Tensor] | None:
    """The loss's gradient at the encoder's vectors: without the reconstruction's share, and all."""
    loss, x_hat, encoded = anatomy.recording.loss, anatomy.x_hat, book.encoded
    if not isinstance(loss, Tensor) or not loss.requires_grad or encoded is None:
        return None
    if x_hat is None or x_hat.edge is None or encoded.edge is None:
        return None
    edges = [encoded.edge, x_hat.edge]
    total, at_x_hat = torch.autograd.grad(loss, edges, allow_unused=True, retain_graph=True)
    if total is None or at_x_hat is None:
        return None
    (through,) = torch.autograd.grad(
        [x_hat.edge], [encoded.edge], grad_outputs=[at_x_hat], allow_unused=True, retain_graph=True
    )
    return (total if through is None else total - through), total


@dataclass(frozen=True, slots=True)
class Weights:
    """Gradient norms of commitment (at the encoder's vectors) and codebook term (at the codes)."""

    commitment: float
    codebook: float

    @property
    def ratio(self) -> float:
        """Commitment over codebook term: beta in the paper, 1/beta on the wrong side."""
        return self.commitment / self.codebook


def weights(anatomy: Anatomy, book: Codebook) -> Weights | None:
    """Split the loss's gradient at the look-up; None where a term has none (averages, no loss)."""
    loss, x_hat, encoded = anatomy.recording.loss, anatomy.x_hat, book.encoded
    codes = [v.edge for v in _codes_read(anatomy.flow, book) if v.edge is not None]
    if not isinstance(loss, Tensor) or not loss.requires_grad or x_hat is None:
        return None
    if x_hat.edge is None or encoded is None or encoded.edge is None or not codes:
        return None
    edges = [encoded.edge, *codes]
    total = torch.autograd.grad(loss, [*edges, x_hat.edge], allow_unused=True, retain_graph=True)
    if any(g is None for g in total):
        return None
    through = torch.autograd.grad(
        [x_hat.edge], edges, grad_outputs=[total[-1]], allow_unused=True, retain_graph=True
    )
    norms = [
        float((t - (r if r is not None else 0)).norm())
        for t, r in zip(total[:-1], through, strict=True)
    ]
    commitment, own = norms[0], math.hypot(*norms[1:])
    largest = float(total[0].norm()) or 1.0
    if min(commitment, own) <= 1e-5 * largest:
        return None
    return Weights(commitment, own)


def _codes_read(flow: Flow, book: Codebook) -> list[Value]:
    """What is read of the table at this index: once, or group by group."""
    by_index, by_table = flow.descendants(*book.index.makes), flow.descendants(book.table)
    after = flow.descendants(book.read.out)
    twins = [
        op.out
        for op in flow.recording.ops
        if op.name == book.read.name
        and op is not book.read
        and op.makes
        and op.out.shape == book.read.out.shape
        and op.out.index not in after
        and any(v.index in by_index for v in op.reads)
        and any(v.index in by_table - by_index for v in op.reads)
    ]
    return [book.read.out, *twins]


def declared_betas(model: nn.Module, recording: Recording) -> Iterator[float]:
    """Weights below 1 the code names for the commitment, or multiplies a term of the loss with."""
    for module in model.modules():
        for name, value in vars(module).items():
            word = name.lower()
            named = "commit" in word or word in ("beta", "_beta", "vq_beta")
            if named and isinstance(value, (int, float)) and not isinstance(value, bool):
                yield float(value)
    for op in recording.ops:
        if op.name in ("mul", "mul_", "multiply") and op.makes and op.out.tensor.dim() == 0:
            yield from (float(a) for a in op.args if isinstance(a, float))
