"""Discrete latents: one-hot samples and bits, and the kinds of quantisers."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import torch
from torch import Tensor

from ..anatomy.anatomy import Anatomy
from ..anatomy.latents import Latent
from ..codebook.codebook import Codebook, find_codebooks
from ..codebook.rounding import INTEGERS
from ..runs.recording import Value

Found = tuple[str, str, str]
CLOSE = 1e-4
_MOST = 200  # values on the way to the decoder that are looked at
_ROUNDS = frozenset("round round_ floor floor_ ceil ceil_ trunc trunc_".split())


def discrete(anatomy: Anatomy, latent: Latent) -> Found | None:
    """The family of a sample that lies on the corners or inside of a simplex or cube."""
    gumbel = latent.family in ("gumbel", "logistic", "categorical", "bernoulli", "uniform")
    for value in _before_layers(anatomy, latent.z):
        points = value.tensor.detach().double()
        if not points.numel() or bool((points < -CLOSE).any()) or bool((points > 1 + CLOSE).any()):
            continue
        corners = bool(((points.abs() < CLOSE) | ((points - 1).abs() < CLOSE)).all())
        sums = _simplex(points)
        if corners and sums:
            return "categorical", "high", "every sample is one-hot"
        if corners:
            return "bernoulli", "high", "every number of the sample is 0 or 1"
        if sums and gumbel:
            return (
                "gumbel-softmax (concrete)",
                "high",
                "every sample lies inside a simplex: positive numbers that sum to 1",
            )
        if sums and latent.family == "dirichlet":
            readers = anatomy.flow.consumers.get(latent.z.index, [])
            if latent.z.shape[-1] == 2 and {op.name for op in readers} == {"select"}:
                return "beta", "high", "every number of the sample is one of two that sum to 1"
            return "dirichlet", "high", "every sample lies in a simplex, drawn directly"
        if gumbel and not sums and bool((points > 0).all()) and latent.family != "uniform":
            return "binary concrete", "high", "every number of the sample lies between 0 and 1"
    return None


def _simplex(points: Tensor) -> bool:
    """Whether the numbers along the last axis (or the one before) sum to 1."""
    return any(
        points.dim() > axis and points.shape[-axis] > 1 and _ones(points.sum(-axis))
        for axis in (1, 2, 3)
    )


def _ones(sums: Tensor) -> bool:
    return bool(((sums - 1).abs() < 1e-3).all())


def _before_layers(anatomy: Anatomy, z: Value) -> Iterator[Value]:
    """The sample and what becomes of it before a layer reads it."""
    flow = anatomy.flow
    x_hat, within = anatomy.x_hat, frozenset([z.index])
    if x_hat is not None:
        within = flow.ancestors(x_hat) - {x_hat.index}
    way = flow.onward(z, past=lambda op: not flow.layer(op), within=within)
    for value in itertools.islice(way, _MOST):
        if value.tensor.is_floating_point() and len(value.shape) > 1:
            yield value


# -- quantisers ------------------------------------------------------------------------------


def quantized(anatomy: Anatomy) -> Found:
    """The kind of quantiser between encoder and reconstruction."""
    books = find_codebooks(anatomy)
    if books:
        return _looked_up(anatomy, books)
    op = anatomy.quantizer
    assert op is not None
    made = next((m for m in op.makes if m.tensor.is_floating_point()), None)
    if made is None:
        return "vq", "low", f"`{op.name}` chooses a code, but no table of codes was found"
    readers = anatomy.flow.consumers.get(made.index, [])
    if any(reader.name in INTEGERS for reader in readers):
        return "autoencoder", "medium", "the code is rounded to be stored as integers"
    levels = torch.unique(made.tensor.detach())
    # Of many levels the first codes may use two: bits are rounded from numbers in [0, 1].
    scaled = op.name not in _ROUNDS or all(
        bool(((r.tensor >= 0) & (r.tensor <= 1)).all()) for r in op.reads
    )
    if op.name in ("sign", "where") or (len(levels) == 2 and scaled):
        said = " and ".join(f"{float(v):g}" for v in levels[:2])
        return "lfq (bits)", "high", f"every number of the code is {said}"
    return (
        "fsq",
        "high",
        f"every number of the code is rounded: {len(levels)} levels are used, without a table",
    )


def _looked_up(anatomy: Anatomy, books: list[Codebook]) -> Found:
    exact = all(_is_row(b) for b in books)
    shown = f"{len(books)} look-ups" if len(books) > 1 else "a look-up"
    tables = ", ".join(dict.fromkeys(f"`{b.name}`" for b in books))
    shown += f" of the nearest code in {tables}"
    if exact:
        shown += ", each a row of its table exactly"
    sure = "high" if exact else "medium"
    if len(books) == 1:
        return "vq", sure, shown
    if any(_residual(anatomy, a, b) for a, b in itertools.pairwise(books)):
        shown += "; each takes what the one before has left over"
        return "residual vq", sure, shown
    chained = any(not b.first for b in books)
    return ("hierarchical vq" if chained else "vq (several codebooks)"), sure, shown


def _is_row(book: Codebook) -> bool:
    """Whether the codes that are read are rows of the table."""
    table, made = book.table.tensor.detach(), book.read.out.tensor.detach()
    if table.dim() != 2 or made.shape[-1] != table.shape[-1]:
        return False
    codes = made.reshape(-1, made.shape[-1])[:64].float()
    return bool((torch.cdist(codes, table.float()).min(1).values < 1e-3).all())


def _residual(anatomy: Anatomy, first: Codebook, second: Codebook) -> bool:
    """Whether the second encodes the difference of the first's vector and its code."""
    before, after = first.encoded, second.encoded
    code = first.read.out.tensor.detach()
    if before is None:
        return False
    left = before.tensor.detach()
    if left.numel() != code.numel():
        return False
    wanted = (left.reshape(code.shape) if left.shape != code.shape else left) - code
    flow = anatomy.flow
    candidates = [after] if after is not None and after is not before else []
    scored = flow.ancestors(*second.index.reads)
    candidates += [v for v in anatomy.recording.values if v.index in scored and v.op is not None]
    return any(
        v.tensor.numel() == wanted.numel()
        and v.tensor.is_floating_point()
        and bool((v.tensor.detach().reshape(wanted.shape) - wanted).abs().max() < 1e-4)
        for v in candidates
    )
