"""Importance weights: over which axis, and with which sign, the loss joins the K samples.

Judged by the gradient alone, so that `logsumexp`, `log(mean(exp(w)))`, a loop of `logaddexp` and
normalised weights that multiply detached are one thing: at log-weights `w` of K samples and B rows
the log-mean-exp has minus its softmax over the samples as gradient, times the row's weight.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ...subject.subject import Subject
from ..anatomy.anatomy import Anatomy
from ..anatomy.latents import ADDS, MULS
from ..anatomy.pinning import held_to
from ..runs.edits import Edits
from ..runs.flow import RESHAPES
from ..runs.recording import Op, Value
from ..runs.repeat import repeat
from .families import fits
from .likelihood import Pulled, beside

CLOSE = 1e-3
UNEVEN = 1e-2  # of the weights over the samples: equal ones have the same softmax everywhere
MOST = 40  # values that are looked at, those next to the loss first


@dataclass(frozen=True, slots=True)
class Aggregation:
    """How log-weights of K samples are joined.

    `axis` is "samples", "rows", "both", "units" (every unit by itself), "none" (a mean of logs
    behind an exponential that is undone) or "strangers" (log-weights of several rows, regrouped as
    if they were one's); `detached` says that no gradient passes normalised
    weights, `rewards` that a better reconstruction raises the weights.
    """

    op: Op
    samples: int
    rows: int
    axis: str
    rewards: bool
    detached: bool = True
    weights: Value | None = None


def aggregations(anatomy: Anatomy, rows: int | None) -> Iterator[Aggregation]:
    """Every tensor of [K, B] or [B, K] log-weights that the loss joins."""
    loss, x_hat = anatomy.recording.loss, anatomy.x_hat
    if rows is None or not isinstance(loss, Tensor) or not loss.requires_grad or x_hat is None:
        return
    known = _candidates(anatomy, loss, x_hat, rows)
    edges = [value.edge for value, _ in known if value.edge is not None]
    if not edges:
        return
    found = torch.autograd.grad(loss.sum(), edges, retain_graph=True, allow_unused=True)
    seen: set[str] = set()
    for (weights, axis), gradient in zip(known, found, strict=True):
        joined = _joined(weights.tensor.detach(), gradient, axis) if gradient is not None else None
        undone = _undone(anatomy, weights) if gradient is not None and joined is None else None
        rewards = _rewards(anatomy, weights) if joined or undone else None
        op = undone or _reader(anatomy, loss, weights)
        if rewards is None or op is None:
            continue
        name, detached = joined or ("none", True)
        if name == "samples" and weights.tensor.dim() == 2 and _strangers(anatomy, weights, axis):
            name, op = "strangers", _grouping(weights) or op
        if name not in seen:
            seen.add(name)
            yield Aggregation(op, weights.shape[axis], rows, name, rewards, detached, weights)


def excess(
    subject: Subject,
    anatomy: Anatomy,
    joined: Aggregation,
    seed: int,
    rewind: Callable[[], None],
) -> float | None:
    """What the bound is where every log-weight is 0, as is the log of their mean.

    In units of what it rises by where each is 1; None where a run takes another way.
    """
    weights, found = joined.weights, []
    if weights is None or weights.op is None:
        return None
    for size in (0.0, 1.0):
        forced = held_to(torch.full_like(weights.tensor.detach(), size))
        edits: Edits = {weights.place: forced}
        made = repeat(
            subject, anatomy.recording, seed=seed, edits=edits, keep=(), rewind=rewind, grad=False
        )
        if not made.same or not isinstance(made.loss, Tensor):
            return None
        found.append(float(made.loss.detach().double().sum()))
    rise = found[1] - found[0]
    return found[0] / rise if rise else None


def _strangers(anatomy: Anatomy, weights: Value, axis: int) -> bool:
    """Whether log-weights that stand in one row are those of another.

    A log-weight moves with what the encoder makes of its own row, and batch statistics apart with
    no other. Judged at two of them: the first and the last one that lie in another row's place
    where rows are repeated one way and regrouped the other.
    """
    flow, rows = anatomy.flow, weights.shape[1 - axis]
    behind = flow.ancestors(weights)
    known = (
        v.edge
        for v in flow.recording.values
        if v.index in behind and v.edge is not None and len(v.shape) > 1 and v.shape[0] == rows
        if flow.posterior(v) and not flow.noise[v.index]
    )
    made = next(known, None)
    if made is None or anatomy.x is None or anatomy.x.shape[:1] != (rows,):
        return False
    by_row = weights.tensor if axis == 1 else weights.tensor.t()
    for row, sample in ((rows - 1, 0), (0, by_row.shape[1] - 1)):
        (gradient,) = torch.autograd.grad(
            by_row[row, sample], [made], retain_graph=True, allow_unused=True
        )
        if gradient is None:
            return False
        moves = gradient.flatten(1).abs().amax(1) > 0
        if int(moves.sum()) == 1 and not bool(moves[row]):
            return True
    return False


def _candidates(anatomy: Anatomy, loss: Tensor, x_hat: Value, rows: int) -> list[tuple[Value, int]]:
    """Values with an axis of samples and one of rows between x_hat and the loss."""
    flow = anatomy.flow
    end = anatomy.recording.value_of(loss)
    behind = flow.ancestors(end) if end is not None else frozenset()
    known = set(counts(anatomy, rows))
    found = []
    for value in flow.recording.values:
        if value.index not in behind or value is x_hat or value.edge is None:
            continue
        shape, units = value.shape[:2], value.shape[2:]
        if len(shape) < 2 or len(units) > 1 or (units and units[0] < 2):
            continue
        axis = next((i for i, n in enumerate(shape) if n in known and shape[1 - i] == rows), None)
        if axis is not None and x_hat.index in flow.ancestors(value):
            found.append((value, axis))
    return found[-MOST:]


def counts(anatomy: Anatomy, rows: int) -> Iterator[int]:
    """How many samples a row has: an axis of z, a multiple of the batch, or draws in a loop."""
    alike: dict[int, int] = {}
    for latent in anatomy.latents:
        shape = latent.z.shape
        if len(shape) == 3 and rows in shape[:2] and shape[0] != shape[1]:
            yield shape[0] if shape[1] == rows else shape[1]
        elif len(shape) == 2 and shape[0] > rows and shape[0] % rows == 0:
            yield shape[0] // rows
        elif latent.loc is not None:
            alike[latent.loc.index] = alike.get(latent.loc.index, 0) + 1
    yield from (n for n in alike.values() if n > 1 and n != rows)


def _joined(weights: Tensor, gradient: Tensor, axis: int) -> tuple[str, bool] | None:
    """The axis whose softmax the gradient is, and whether normalised weights are detached."""
    w, g = weights.double(), gradient.double()
    if float((w - w.mean(axis, keepdim=True)).abs().max()) < UNEVEN:
        return None
    shares = {"rows": torch.softmax(w, 1 - axis), "samples": torch.softmax(w, axis)}
    if w.dim() == 2:
        shares["both"] = torch.softmax(w.flatten(), 0).reshape(w.shape)
    axes: dict[str, tuple[int, ...]] = {"rows": (1 - axis,), "samples": (axis,), "both": (0, 1)}
    for name, share in shares.items():
        mean = (share * w).sum(axes[name], keepdim=True)
        for reference, detached in ((share, True), (share * (1 + w - mean), False)):
            scale = float((g * reference).sum() / reference.pow(2).sum())
            error = float((g - scale * reference).abs().max())
            if scale < 0 and error < CLOSE * abs(scale):
                return ("units" if w.dim() == 3 and name == "samples" else name), detached
    return None


def _undone(anatomy: Anatomy, weights: Value) -> Op | None:
    """A logarithm of these weights' exponential with nothing added up in between."""
    flow = anatomy.flow
    waiting = [op.out for op in flow.consumers.get(weights.index, ()) if op.name == "exp"]
    while waiting:
        value = waiting.pop()
        for op in flow.consumers.get(value.index, ()):
            if not op.makes or op.out.tensor.numel() != weights.tensor.numel():
                continue
            if op.name == "log":
                return op
            if op.name in RESHAPES | ADDS | MULS and len(op.reads) == 1:
                waiting.append(op.out)
    return None


def _grouping(weights: Value) -> Op | None:
    """The operation that gave the log-weights their axis of samples."""
    op = weights.op
    while op is not None and op.name in RESHAPES and op.reads and len(op.reads[0].shape) > 1:
        op = op.reads[0].op
    return op


def _reader(anatomy: Anatomy, loss: Tensor, weights: Value) -> Op | None:
    """The operation that joins the weights: the first that reads them on the way to the loss."""
    flow = anatomy.flow
    end = anatomy.recording.value_of(loss)
    behind = flow.ancestors(end) if end is not None else frozenset()
    waiting = [weights]
    while waiting:
        value = waiting.pop(0)
        for op in flow.consumers.get(value.index, ()):
            if not any(m.index in behind for m in op.makes):
                continue
            if op.name not in RESHAPES:
                return op
            waiting.extend(op.makes)
    return None


def _rewards(anatomy: Anatomy, weights: Value) -> bool | None:
    """Whether the weights rise as the reconstruction gets better; None if not known."""
    x_hat, x = anatomy.x_hat, anatomy.x
    if x_hat is None or x is None or x_hat.edge is None:
        return None
    (gradient,) = torch.autograd.grad(
        weights.tensor.sum(), [x_hat.edge], retain_graph=True, allow_unused=True
    )
    if gradient is None:
        return None
    made, given = x_hat.tensor.detach(), x.tensor.detach()
    for target in _targets(given, made):
        found = [weight for _, weight, _ in fits(gradient, made, target)]
        if found:
            return found[0] < 0
    compared = [t for t in beside(anatomy) if t.numel() == made.numel()]
    pull = Pulled(gradient, made, compared)
    return True if pull.away else False if Pulled(-gradient, made, compared).away else None


def _targets(given: Tensor, made: Tensor) -> Iterator[Tensor]:
    """The input in the shape of the reconstruction of K samples."""
    for target in (given, given.unsqueeze(0), given.unsqueeze(1)):
        try:
            yield target.expand_as(made)
        except RuntimeError:
            continue
    times = len(made) // max(1, len(given))
    if times > 1 and made[0].numel() == given[0].numel():
        yield given.repeat_interleave(times, 0).reshape(made.shape)
        yield given.repeat(times, *[1] * (given.dim() - 1)).reshape(made.shape)
