"""The KL of a categorical latent to the uniform distribution, isolated as in `divergence.py`.

The decoder is held and the logits are forced, so that the loss's gradient at them is the KL's:
with p = softmax(l) the gradient of Σ p log p is p (log p - Σ p log p), and that of the reverse,
KL(uniform || q), is p - 1/K. Which of them it fits, element by element, and at what weight, says
what the loss contains; another prior fits neither and is not judged. Probabilities that the loss
takes along another axis than the sample's fit them along that axis.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ...finding import Number, Span
from ...rule import Unavailable
from ...subject.subject import Subject
from ..anatomy.anatomy import Anatomy
from ..anatomy.decoders import predictions
from ..anatomy.heads import head
from ..anatomy.latents import Latent, same_posterior
from ..anatomy.moves import inputs_of
from ..anatomy.pinning import common_root, first_layers, held, loss_value, prior_layers
from ..runs.edits import Edits
from ..runs.flow import Draw, Flow
from ..runs.recording import Value
from ..runs.repeat import repeat
from .bits import are_bits, kind_of_bits
from .categories import across, axis_of, kind_of
from .summands import term_at

FAMILIES = frozenset({"gumbel", "categorical"})
_ABSOLUTE = {"abs", "abs_", "absolute", "__abs__"}
FAR = 4.0  # logits so far apart that no free-bits zone is left


@dataclass(frozen=True, slots=True)
class DiscreteKL:
    """What the loss makes of one categorical latent: `kind` is kl, reverse, across, none or other.

    One that is `across` takes the categories along `axis`, where the sample's are along `own`.
    `weight` is that of a row; `groups` such variables of `categories` each make a row; `root` is
    where the logits were forced. Of `bits` a logit says the probability of one of two.
    """

    latent: Latent
    kind: str
    weight: float
    far: float
    rows: int
    groups: int
    categories: int
    connected: bool
    at: Span | None
    sampled_at: Span | None
    clamped: Span | None = None
    root: Value | None = None
    axis: int = -1
    own: int = -1
    bits: bool = False

    @property
    def standard(self) -> bool:
        """Whether the loss holds the KL to the uniform distribution, with some weight."""
        return self.kind == "kl"

    @property
    def missing(self) -> bool:
        """Whether the loss has no gradient at the logits, near the prior and far from it."""
        return self.kind == "none"

    @property
    def trained(self) -> bool:
        """Whether the logits carry a gradient: a frozen encoder's do not."""
        return self.latent.loc is not None and self.latent.loc.requires_grad

    @property
    def reversed(self) -> bool:
        """Whether the loss holds KL(uniform || q)."""
        return self.kind == "reverse"

    @property
    def prior(self) -> str:
        """The prior that the KL is measured against."""
        return "equal bits" if self.bits else "the uniform distribution"

    @property
    def averages(self) -> tuple[int, ...]:
        """Over how many a mean may have been taken within a row."""
        return self.groups * (1 if self.bits else self.categories), self.groups

    @property
    def reverse_evidence(self) -> dict[str, Number]:
        """The measurement behind `reversed`."""
        return {"weight of the reverse KL": self.weight, "categories": self.categories}


class Logits:
    """Where to force a categorical latent's logits, with its decoder held."""

    def __init__(
        self,
        subject: Subject,
        anatomy: Anatomy,
        latent: Latent,
        root: Value,
        seed: int,
        rewind: Callable[[], None],
    ) -> None:
        self.subject, self.anatomy, self.latent, self.root = subject, anatomy, latent, root
        self.seed, self.rewind = seed, rewind
        outputs, samples = decoded_by(anatomy, latent)
        self._fixed: Edits = {v.place: held(v) for v in outputs}
        flow = anatomy.flow
        apart = flow.descendants(*outputs) | flow.descendants(*samples)
        self.around = flow.descendants(root) - apart

    def measure(
        self, reach: float, term: Value | None = None
    ) -> tuple[Tensor, Tensor | None, float]:
        """Logits up to `reach`, the loss's or a term's gradient at them, and its value."""
        assert self.latent.loc is not None
        leaf = _logits(self.root, self.latent.loc, reach, self.seed).requires_grad_(True)
        edits: Edits = {**self._fixed, self.root.place: _replaced(leaf, self.root)}
        made = repeat(
            self.subject,
            self.anatomy.recording,
            seed=self.seed,
            edits=edits,
            keep=() if term is None else (term,),
            rewind=self.rewind,
        )
        value = made.loss if term is None else made.tensors.get(term.index)
        if not made.same or not isinstance(value, Tensor):
            raise Unavailable("the step cannot be repeated with the logits forced")
        return leaf.detach(), _gradient(value.sum(), leaf), float(value.detach().double().sum())


def decoded_by(anatomy: Anatomy, latent: Latent) -> tuple[list[Value], list[Value]]:
    """What the first layers behind the samples of one posterior make of them, and the samples."""
    flow, loss = anatomy.flow, loss_value(anatomy)
    samples = [x.z for x in anatomy.latents if same_posterior(x, latent)] or [latent.z]
    compared = predictions(anatomy) or [loss]
    pins = [op for z in samples for op in first_layers(flow, z, *compared)]
    pins += prior_layers(anatomy, latent, loss)
    return [v for op in pins for v in op.makes], samples


def discrete_kl(
    subject: Subject,
    anatomy: Anatomy,
    latent: Latent,
    seed: int,
    rewind: Callable[[], None],
) -> DiscreteKL:
    """Measure the KL of one categorical latent. Raises Unavailable with the reason."""
    flow, loss = anatomy.flow, loss_value(anatomy)
    if latent.loc is None or len(latent.loc.shape) < 2 or _categories(anatomy, latent)[1] < 2:
        raise Unavailable("the categorical latent has no logits to force")
    outputs, samples = decoded_by(anatomy, latent)
    around = flow.ancestors(loss, stop=[*outputs, *samples]) - {z.index for z in samples}
    common = common_root(flow, latent.loc, around)
    raw = latent.loc_head.value if latent.loc_head is not None else None
    found = DiscreteKL(latent, "other", 0.0, 0.0, 0, 0, 0, False, None, latent.meeting.span)
    for root in {v.index: v for v in (common, raw) if v is not None and v.op is not None}.values():
        if root.shape != latent.loc.shape and root.tensor.numel() != latent.loc.tensor.numel():
            continue
        logits = Logits(subject, anatomy, latent, root, seed, rewind)
        measured = [logits.measure(reach)[:2] for reach in (1.0, FAR)]
        found = _read(anatomy, latent, root, measured, found)
        if found.kind != "other":
            break
    return found


def _logits(root: Value, like: Value, reach: float, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    made = (torch.rand(like.shape, generator=generator) * 2 - 1) * reach
    return made.to(root.tensor.detach())


def _replaced(leaf: Tensor, root: Value) -> Callable[[Tensor], Tensor]:
    return lambda t: leaf.reshape(root.shape).clone()


def _gradient(loss: Tensor, leaf: Tensor) -> Tensor | None:
    if not loss.requires_grad:
        return None
    try:
        (found,) = torch.autograd.grad(loss, leaf, allow_unused=True)
    except RuntimeError as error:
        raise Unavailable("the backward pass raises (VAE606)") from error
    return found


def _read(
    anatomy: Anatomy,
    latent: Latent,
    root: Value,
    measured: list[tuple[Tensor, Tensor | None]],
    found: DiscreteKL,
) -> DiscreteKL:
    inputs = [v.shape for v in inputs_of(anatomy.recording) if v.shape]
    rows, (own, categories) = inputs[0][0] if inputs else 1, _categories(anatomy, latent)
    bits = are_bits(anatomy, latent)
    groups = max(1, root.tensor.numel() // max(1, rows * (1 if bits else categories)))
    connected = any(g is not None for _, g in measured)
    kind, weights, axis = "none", [0.0, 0.0], own
    if any(g is not None and bool((g != 0).any()) for _, g in measured):
        kinds = [kind_of_bits(leaf, g) if bits else kind_of(leaf, g, own) for leaf, g in measured]
        same = kinds[0][0] if kinds[0][0] == kinds[1][0] else "other"
        kind, weights = same, [w for _, w in kinds]
        if kind == "other" and not bits and axis_of(anatomy.flow, latent.z) is not None:
            kind, weights, axis = across(measured, own)
    near, far = (w * rows for w in weights)
    if far < 0 and _meets_a_capacity(anatomy, root):
        far = 0.0
    if kind != "none" and abs(near - far) > 0.01 * abs(near):
        kind = "other"  # a clamp, or a prior that only looks uniform here
    at = term_at(anatomy, latent, root) or found.sampled_at
    return DiscreteKL(
        latent,
        kind,
        near,
        far,
        rows,
        groups,
        categories,
        connected,
        at,
        found.sampled_at,
        root=root,
        axis=axis,
        own=own,
        bits=bits,
    )


def _meets_a_capacity(anatomy: Anatomy, root: Value) -> bool:
    """Whether the term goes through `|C - KL|`, which pulls up to C, perhaps the most there is."""
    flow, loss = anatomy.flow, loss_value(anatomy)
    compared = [v for v in (anatomy.x_hat,) if v is not None]
    way = flow.descendants(root) & flow.ancestors(loss) - flow.descendants(*compared)
    return any(
        op.name in _ABSOLUTE and v.index in way and v.tensor.numel() <= root.tensor.shape[0]
        for op in anatomy.recording.ops
        for v in op.reads
    )


def _categories(anatomy: Anatomy, latent: Latent) -> tuple[int, int]:
    """Along which axis of its logits a latent's categories lie, and how many there are.

    It is the axis of the sample where that has the shape of the logits, else the last.
    """
    if latent.loc is None:
        return -1, 0
    if are_bits(anatomy, latent):
        return -1, 2
    shape, axis = latent.loc.shape, axis_of(anatomy.flow, latent.z)
    own = axis if axis is not None and latent.z.shape == shape else len(shape) - 1
    return own, shape[own]


def softmaxes_decoded(anatomy: Anatomy) -> Iterator[Latent]:
    """Probabilities that the decoder is fed and no draw is made of: stand-ins for a sample."""
    flow, x_hat, loss = anatomy.flow, anatomy.x_hat, anatomy.recording.loss
    end = anatomy.recording.value_of(loss) if isinstance(loss, Tensor) else None
    if x_hat is None or end is None:
        return
    behind, around = flow.ancestors(x_hat), flow.ancestors(end, stop=[x_hat])
    for op in anatomy.recording.ops:
        if op.name != "softmax" or not op.makes or op.out.index not in behind:
            continue
        probability, logits = op.out, op.reads[0]
        raw = head(flow, logits)
        if flow.noise[probability.index] or not flow.posterior(logits) or raw is None:
            continue
        if _drawn_from(flow, logits, behind) or _relaxed(flow, probability, x_hat):
            continue
        if raw.value.index in around and raw.value.tensor.numel() == logits.tensor.numel():
            draw = Draw(-1, op.name, probability, op)
            yield Latent(draw, op, probability, "categorical", logits, None, raw, None, True)


def _drawn_from(flow: Flow, logits: Value, behind: frozenset[int]) -> bool:
    """Whether a draw that reaches x_hat is made of these logits, as a straight-through one is."""
    return any(
        draw.op is not None
        and draw.value.index in behind
        and any(v.tensor.numel() == logits.tensor.numel() for v in draw.op.reads)
        and logits.index in flow.ancestors(*draw.op.reads)
        for draw in flow.draws
    )


def _relaxed(flow: Flow, probability: Value, x_hat: Value) -> bool:
    """Whether another softmax, which reads noise too, stands on every way to x_hat.

    As where Gumbel noise is added to the logarithm of the probabilities by hand.
    """
    after = flow.descendants(probability)
    again = [
        op.out
        for op in flow.recording.ops
        if op.name == "softmax" and op.makes and op.out.index in after and op.out is not probability
    ]
    drawn = [v for v in again if flow.noise[v.index] and v.shape == probability.shape]
    return bool(drawn) and probability.index not in flow.ancestors(x_hat, stop=drawn)


def is_discrete(anatomy: Anatomy, latent: Latent) -> bool:
    """Whether a latent is a category, or bits, that are drawn, relaxed or not."""
    known = latent.family in FAMILIES and latent.scale is None and latent.loc is not None
    return known or are_bits(anatomy, latent)
