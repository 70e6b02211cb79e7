"""How large the gradients of encoder and decoder are, relative to their weights."""

from __future__ import annotations

import math
from collections.abc import Set
from dataclasses import dataclass
from statistics import median

import torch
from torch import Tensor

from ...finding import Span
from ...rule import Unavailable
from ..anatomy.anatomy import Anatomy
from ..anatomy.heads import path_of
from ..anatomy.latents import MULS
from ..codebook.codebook import looked_up
from ..runs.gradients import Gradients
from ..runs.recording import Value


@dataclass(frozen=True, slots=True)
class GradientScale:
    """Median ratio of gradient norm to weight norm in the layers before and after the sample.

    `least` is the encoder's smallest, that of `smallest`; `growth` the norm of the reconstruction's
    gradient at the sample over that at the decoder's end, the smallest of what may be meant by it,
    and `remains` the largest (0 where there is none); `by_layer` holds the ratio of each weight
    matrix, in the order in which the step met them; `strongest` is the decoder's largest.
    """

    encoder: float
    decoder: float
    strongest: float
    smallest: str
    largest: str
    least: float
    growth: float
    remains: float
    by_layer: tuple[tuple[str, float], ...] = ()

    @property
    def ratio(self) -> float:
        """Encoder over decoder."""
        return self.encoder / self.decoder

    @property
    def grown(self) -> float:
        """Encoder over the decoder's largest: branches of it that begin near 0 say nothing."""
        return self.encoder / self.strongest

    @property
    def faintest(self) -> float:
        """The encoder's smallest over decoder."""
        return self.least / self.decoder


def gradient_scale(anatomy: Anatomy, gradients: Gradients) -> GradientScale:
    """Measure every weight matrix; raises Unavailable where one side has no nonzero gradient."""
    before, first = _encoder(anatomy), _encoder(anatomy, first=True)
    sides: dict[bool, dict[str, float]] = {True: {}, False: {}}
    for name, value in gradients.values.items():
        gradient = gradients.by_name.get(name)
        between = value.index in before and value.index not in first
        if gradient is None or value.tensor.dim() < 2 or between:
            continue
        size, weight = float(gradient.norm()), float(value.tensor.detach().norm())
        if size > 0 and weight > 0 and size != float("inf") and size == size:
            sides[value.index in before][name] = size / weight
    if not sides[True] or not sides[False]:
        raise Unavailable("encoder or decoder has no weight matrix with a nonzero gradient")
    encoder = sides[True]
    smallest, largest = min(encoder, key=encoder.__getitem__), max(encoder, key=encoder.__getitem__)
    return GradientScale(
        median(encoder.values()),
        median(sides[False].values()),
        max(sides[False].values()),
        smallest,
        largest,
        encoder[smallest],
        *_through_decoder(anatomy, gradients),
        tuple(
            (name, sides[side][name])
            for name in gradients.values
            for side in (True, False)
            if name in sides[side]
        ),
    )


def _encoder(anatomy: Anatomy, *, first: bool = False) -> Set[int]:
    """What the posteriors of all latents are made of, or of those that no sample leads to."""
    flow, drawn = anatomy.flow, {found.z.index for found in anatomy.affine}
    operands = [[v for v in (f.loc, f.scale) if v is not None] for f in anatomy.affine]
    if first:
        topmost = [pair for pair in operands if not drawn & flow.ancestors(*pair)]
        operands = topmost or operands
    heads = [v for pair in operands for v in pair] or looked_up(anatomy)
    if not heads:
        raise Unavailable("no sampled latent separates encoder from decoder")
    return flow.ancestors(*heads)


def _through_decoder(anatomy: Anatomy, gradients: Gradients) -> tuple[float, float]:
    """How much longer the gradient of the reconstruction is at the samples than behind them.

    At least: than at the decoder's last layer and at x_hat, as what only a change of units does,
    as that to counts, is done between the two. At most: than before the last layer, whose weights
    may begin near 0, and at x_hat, where all steps of a loop end.
    """
    last, x_hat = _last_layer(anatomy), anatomy.x_hat
    latents = [x.z for x in anatomy.sampled] or looked_up(anatomy)
    if last is None or last.op is None or x_hat is None:
        return 0.0, 0.0
    passed = [_passed(gradients.loss, end, latents) for end in (last, x_hat)]
    given = [v for v in last.op.reads if anatomy.flow.data[v.index] and v not in latents]
    fed = [_passed(gradients.loss, end, latents) for end in given]
    most = max([passed[1], *fed]) if fed and passed[1] else 0.0
    return (min(passed), most)


def _passed(loss: Tensor | None, end: Value, latents: list[Value]) -> float:
    """The norm of the gradient that comes from `end` to a latent, over that at `end`; 0 if none."""
    edges = [v.edge for v in latents if v.edge is not None]
    if loss is None or end.edge is None or not edges:
        return 0.0
    (behind,) = torch.autograd.grad(loss, [end.edge], allow_unused=True, retain_graph=True)
    if behind is None or not bool((behind != 0).any()):
        return 0.0
    found = torch.autograd.grad(
        [end.edge], edges, grad_outputs=[behind], allow_unused=True, retain_graph=True
    )
    return max((float(g.norm() / behind.norm()) for g in found if g is not None), default=0.0)


def _last_layer(anatomy: Anatomy) -> Value | None:
    flow, x_hat = anatomy.flow, anatomy.x_hat
    behind = flow.ancestors(x_hat) if x_hat is not None else frozenset()
    made = [o.out for o in anatomy.recording.ops if o.makes and o.out.index in behind]
    return next((v for v in reversed(made) if v.op is not None and flow.layer(v.op)), None)


@dataclass(frozen=True, slots=True)
class Steepest:
    """The lines at which the gradient loses, and gains, the most on its way back.

    In the encoder, or in the decoder where it grows there; a layer that runs in each; and whether
    a factor, and no layer or activation, takes the most away.
    """

    shrinks_at: Span | None = None
    grows_at: Span | None = None
    shrinks_in: str = ""
    grows_in: str = ""
    by_factor: bool = False


def steepest(anatomy: Anatomy, gradients: Gradients, *, decoder: bool = False) -> Steepest:
    """Ask the gradient at every value of the encoder, or between the samples and x_hat."""
    flow, within = anatomy.flow, _encoder(anatomy)
    if decoder and anatomy.x_hat is not None:
        within = flow.ancestors(anatomy.x_hat) - within
    values = [v for v in flow.recording.values if v.index in within and v.edge is not None]
    if gradients.loss is None or not values:
        return Steepest()
    edges = [v.edge for v in values if v.edge is not None]
    found = torch.autograd.grad(gradients.loss, edges, allow_unused=True, retain_graph=True)
    size = {
        v.index: float(g.norm() / g.numel() ** 0.5)
        for v, g in zip(values, found, strict=True)
        if g is not None and g.numel()
    }
    gain: dict[Span, float] = {}
    layer: dict[Span, str] = {}
    factors = set[Span]()
    for op in flow.recording.ops:
        made = max((size.get(m.index, 0.0) for m in op.makes), default=0.0)
        read = [size[v.index] for v in op.reads if v.index in size and flow.data[v.index]]
        if op.span is not None and made > 0 and read and max(read) > 0:
            gain[op.span] = gain.get(op.span, 0.0) + math.log(max(read) / made)
            factors |= {op.span} if op.name in MULS else set()
            if not layer.get(op.span):
                layer[op.span] = path_of(op)
    if not gain:
        return Steepest()
    least, most = min(gain, key=gain.__getitem__), max(gain, key=gain.__getitem__)
    return Steepest(least, most, layer[least], layer[most], least in factors)
