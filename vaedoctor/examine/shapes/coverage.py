"""Which columns, channels or steps of the reconstruction the user's loss looks at."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from ...rule import Unavailable
from ...subject.subject import Subject
from ..anatomy.anatomy import Anatomy, anatomize
from ..anatomy.moves import inputs_of
from ..latent.conditions import MASK, tensors_of
from ..runs.edits import Edits
from ..runs.flow import Flow
from ..runs.recording import Op, Recording, Value
from ..runs.repeat import repeat
from ..runs.step import run_recorded
from ..sampling.noise import perturbed
from .crops import cropped, mirrored, withheld
from .ends import shortened, unshifted
from .leftout import reader, touched


@dataclass(frozen=True, slots=True)
class Coverage:
    """Slices of x_hat along one axis whose gradient is exactly 0 on every batch tried.

    Or of another output that the decoder makes in the shape of an input. `unshifted` says that the
    last steps are cut off and the target's last ones with them, which no shift between them needs;
    `indifferent` that the loss reads x_hat and is the same whatever all of it holds; `spared` that
    some slices have none and may be left out on purpose.
    """

    axis: int
    missing: tuple[int, ...]
    size: int
    batches: int
    op: Op | None
    unshifted: bool = False
    indifferent: bool = False
    spared: bool = False


def coverage(subject: Subject, anatomy: Anatomy, seed: int, rewind: Callable[[], None]) -> Coverage:
    """Differentiate the loss at x_hat on several batches and look for slices without gradient."""
    x_hat = anatomy.x_hat
    if anatomy.recording.loss is None:
        raise Unavailable("only the user's own loss can leave something out; supply --objective")
    if x_hat is None or len(x_hat.shape) < 2:
        raise Unavailable("no reconstruction found that the loss could look at")
    if _masked(subject):
        raise Unavailable("a mask among the inputs may leave parts out on purpose")
    short = shortened(anatomy)
    if short is not None:
        missing, size, op = short
        return Coverage(1, missing, size, 1, op, unshifted=True)
    if anatomy.x is not None and not anatomy.x.tensor.is_floating_point():
        return _of_tokens(subject, anatomy, anatomy.x, x_hat, seed, rewind)
    if _gradient(anatomy.recording, x_hat) is None:
        if _is_indifferent(subject, anatomy, x_hat, seed, rewind):
            reader = next(iter(anatomy.flow.consumers.get(x_hat.index, ())), None)
            return Coverage(0, (), 0, 1, reader, indifferent=True)
        raise Unavailable("the loss gives the reconstruction no gradient")
    for place, value in ((None, x_hat), *_further(anatomy)):
        found = _covered(subject, anatomy, place, value, seed, rewind)
        if found.missing:
            break
    return found


def _of_tokens(
    subject: Subject,
    anatomy: Anatomy,
    x: Value,
    x_hat: Value,
    seed: int,
    rewind: Callable[[], None],
) -> Coverage:
    """Steps of which no token is scored, where the decoder knows x by its latent alone.

    A token that is the same in every row, as the one that begins a sentence, need not be told.
    """
    gradient = _gradient(anatomy.recording, x_hat)
    if gradient is None or subject.batch.guessed or len(x.shape) != 2 or x_hat.shape[:2] != x.shape:
        raise Unavailable("the loss picks entries by the tokens of the input")
    samples = [latent.z for latent in anatomy.sampled]
    if not samples or x.index in anatomy.flow.ancestors(x_hat, stop=samples):
        raise Unavailable("the decoder is shown tokens of the input, and may be asked for others")
    left = (~touched(gradient)[0]).nonzero().flatten()
    tokens = x.tensor[:, left]
    missing: list[int] = left[(tokens != tokens[:1]).any(0)].tolist()
    if not missing or not _unread(subject, anatomy, x_hat, (1, missing), seed, rewind):
        return Coverage(0, (), 0, 1, None)
    op = reader(anatomy, x_hat, 1, missing)
    return Coverage(1, tuple(missing), x_hat.shape[1], 1, op)


def _is_indifferent(
    subject: Subject, anatomy: Anatomy, x_hat: Value, seed: int, rewind: Callable[[], None]
) -> bool:
    """Whether the loss computes with x_hat, and comes out the same whatever that is.

    As one does that compares x_hat with itself.
    """
    recording, flow = anatomy.recording, anatomy.flow
    loss = recording.value_of(recording.loss) if isinstance(recording.loss, Tensor) else None
    if loss is None or x_hat.edge is None or x_hat.index not in flow.ancestors(loss):
        return False
    everything = list(range(x_hat.shape[1]))
    return _unread(subject, anatomy, x_hat, (1, everything), seed, rewind)


def _further(anatomy: Anatomy) -> Iterator[tuple[int, Value]]:
    """Other outputs that the decoder makes in the shape of an input: of mixed columns, say."""
    flow, end = anatomy.flow, anatomy.x_hat
    shapes = {v.shape for v in inputs_of(anatomy.recording) if v.tensor.is_floating_point()}
    made = flow.descendants(*(latent.z for latent in anatomy.latents))
    for place, output in enumerate(anatomy.outputs):
        value = output.value
        if value is not end and value.index in made and value.shape in shapes:
            yield place, value


def _covered(
    subject: Subject,
    anatomy: Anatomy,
    place: int | None,
    value: Value,
    seed: int,
    rewind: Callable[[], None],
) -> Coverage:
    """The coverage of one output: x_hat, or the one at a place among the outputs."""
    first = _gradient(anatomy.recording, value)
    seen = [touched(first)] if first is not None else []
    if first is None or all(bool(t.all()) for t in seen[0]):
        return Coverage(0, (), 0, 1, None)
    for n in range(2):
        batch = perturbed(subject.batch)
        for _ in range(n):
            batch = perturbed(batch)
        recording = run_recorded(subject, seed=seed + 1 + n, batch=batch)
        other = None
        if recording.error is None:
            twin = anatomize(recording, Flow(recording))
            same = twin.x_hat if place is None else _at(twin, place)
            other = _gradient(recording, same)
        rewind()
        if other is not None and other.shape == first.shape:
            seen.append(touched(other))
    spared = False
    for axis in _axes(first):
        alive = torch.stack([t[axis - 1] for t in seen]).any(0)
        missing = (~alive).nonzero().flatten().tolist()
        spared |= bool(missing)
        if (
            missing
            and len(missing) < len(alive)
            and not (
                _edge(missing, len(alive), axis, first)
                and not cropped(subject, anatomy, value, axis, missing, seed, rewind)
                and not unshifted(anatomy, value, axis, missing)
            )
            and not mirrored(anatomy, value, first)
            and not withheld(subject, anatomy, value, axis, missing, seed, rewind)
            and _unread(subject, anatomy, value, (axis, missing), seed, rewind)
        ):
            op = reader(anatomy, value, axis, missing)
            ended = unshifted(anatomy, value, axis, missing)
            return Coverage(axis, tuple(missing), len(alive), len(seen), op, unshifted=ended)
    return Coverage(0, (), 0, len(seen), None, spared=spared)


def _unread(
    subject: Subject,
    anatomy: Anatomy,
    value: Value,
    where: tuple[int, list[int]],
    seed: int,
    rewind: Callable[[], None],
) -> bool:
    """Whether the loss is the same whatever the slices hold.

    A loss that picks entries by their values, as one that matches two sets does, gives no gradient
    to those it does not pick, and picks them as soon as they fit.
    """
    if value.op is None:
        return True
    axis, slices = where
    recording, given = anatomy.recording, anatomy.x
    own = float(recording.loss.detach().sum())
    made = value.tensor.detach()
    alike = given is not None and given.shape == value.shape
    fits = given.tensor.detach().to(made) if given is not None and alike else made
    noise = torch.randn(made.shape, generator=torch.Generator().manual_seed(seed)).to(made)
    for other in (fits, fits.flip(axis), fits.roll(1, axis), made + noise * (1 + made.std())):
        changed = made.clone()
        index = torch.tensor(slices, device=made.device)
        changed.index_copy_(axis, index, other.index_select(axis, index))
        edits: Edits = {value.place: partial(_instead, changed)}
        ran = repeat(subject, recording, seed=seed, edits=edits, keep=(), rewind=rewind)
        if not ran.same or float(ran.loss.detach().sum()) != own:
            return False
    return True


def _instead(changed: Tensor, _: Tensor) -> Tensor:
    return changed.clone()  # an in-place operation may write to it


def _masked(subject: Subject) -> bool:
    names = [str(k) for k in subject.batch.kwargs]
    names += [str(k) for item in subject.batch.args if isinstance(item, dict) for k in item]
    names += [str(c) for c in subject.conditions]
    several = [t for t in tensors_of(subject.batch) if t.dtype is torch.bool]
    return bool(several) or any(MASK.fullmatch(n) for n in names)


def _at(anatomy: Anatomy, place: int) -> Value | None:
    return anatomy.outputs[place].value if place < len(anatomy.outputs) else None


def _gradient(recording: Recording, x_hat: Value | None) -> Tensor | None:
    loss = recording.loss
    if not isinstance(loss, Tensor) or not loss.requires_grad:
        return None
    if x_hat is None or x_hat.edge is None:
        return None
    (found,) = torch.autograd.grad(loss, [x_hat.edge], allow_unused=True, retain_graph=True)
    if found is None or not bool((found != 0).any()):
        return None
    return found


def _axes(gradient: Tensor) -> list[int]:
    """Columns of a table, channels of an image, both of a sequence."""
    return list(range(1, gradient.dim()))


def _edge(missing: list[int], size: int, axis: int, gradient: Tensor) -> bool:
    """Slices at an end of a step or pixel axis: an offset or a crop, as in teacher forcing."""
    channels = axis == 1 and gradient.dim() >= 4
    columns = axis == gradient.dim() - 1 and gradient.dim() <= 3
    if channels or columns:
        return False
    inner = [i for i in range(size) if i not in missing]
    return inner == list(range(inner[0], inner[-1] + 1))
