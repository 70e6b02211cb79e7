"""Where the way of the gradient is cut, and by which operation of the user's code."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Set
from dataclasses import dataclass

from torch import Tensor, nn

from ...finding import Span
from ..anatomy.anatomy import Anatomy
from ..anatomy.latents import ADDS, Latent
from ..code.listing import header_of, text_of
from ..runs.flow import CUTS, RESHAPES, Flow
from ..runs.gradients import Arrives, Gradients, gradient_between, kind_of
from ..runs.recording import ESCAPES, GradSwitch, Op, Recording, Value, tensors_in
from ..structure.census import Branch, branches

CHOICES = frozenset({"gumbel", "categorical", "bernoulli"})
IMPLICIT = frozenset({"dirichlet", "gamma"})
"""Drawn by rejection, with the gradient of Figurnov et al. (2018) in `rsample`."""

REPARAMETERIZABLE = frozenset({"gaussian", "laplace", "logistic", "uniform"})

FLAT = frozenset("normal bernoulli round round_ sign floor ceil multinomial trunc sgn".split())
"""Operations with a gradient that exists and is exactly zero."""


@dataclass(frozen=True, slots=True)
class Cut:
    """An operation that hands on a value without its gradient."""

    op: Op
    label: str
    at: Span | None

    @property
    def cause(self) -> str:
        """The token by which findings about this cut are folded together."""
        return f"cut:{self.at.file}:{self.at.line}" if self.at else f"cut:{self.op.index}"


def cut_between(flow: Flow, start: Value, end: Value) -> Cut | None:
    """The first operation on the way from `start` to `end` that drops the gradient."""
    way = flow.descendants(start) & flow.ancestors(end)
    if end.index not in way:
        return None
    for value in flow.recording.values:
        if value.index not in way or value is start:
            continue
        cut = _cut(flow, value, way)
        if cut is not None:
            return cut
    return None


def barrier(flow: Flow, start: Value, end: Value) -> Cut | None:
    """The first operation that drops the gradient on every way from `start` to `end` at once."""
    way = flow.descendants(start) & flow.ancestors(end)
    for value in flow.recording.values:
        if value.index not in way or value is start:
            continue
        cut = _cut(flow, value, way)
        if cut is not None and start.index not in flow.ancestors(end, stop=[value]):
            return cut
    return None


def _cut(flow: Flow, value: Value, way: Set[int]) -> Cut | None:
    parents = [p for p in flow.parents(value) if p.index in way]
    carried = flow.carried.get(value.index)
    if carried:
        return _round_trip(flow, value, carried)
    op = value.op
    if op is None:
        return None
    if op.name in FLAT and value.requires_grad:
        return Cut(op, f"`{_short(op.span) or op.name}`", op.span)
    if value.requires_grad or not any(p.requires_grad for p in parents):
        return None
    if op.name in CUTS:
        return Cut(op, "`.data`" if op.name == "data" else "`.detach()`", op.span)
    if not op.grad_mode:
        return _no_grad(flow.recording, op)
    return Cut(op, f"`{op.name}()`", op.span)


def _round_trip(flow: Flow, value: Value, carried: tuple[Value, ...]) -> Cut | None:
    readers = [
        op for op in flow.recording.ops if op.name in ESCAPES and set(op.reads) & set(carried)
    ]
    entry = value.op or next(iter(flow.consumers.get(value.index, ())), None)
    if not readers or entry is None:
        return None
    names = sorted({f"`.{op.name}()`" for op in readers if not op.name.startswith("__")})
    label = f"the round trip through Python ({', '.join(names) or '`float()`'})"
    at = entry.span if value.op is not None else readers[-1].span
    return Cut(entry, label, at)


def _no_grad(recording: Recording, op: Op) -> Cut | None:
    """The region with gradients off around an operation: its `with` line, call or decorator.

    None inside a custom `Function`, where no graph is kept because its `backward` stands for it.
    """
    if op.makes and op.out.tensor.is_inference():
        return Cut(op, "`torch.inference_mode()`", op.span)
    switch = _switched_off(recording, op)
    if switch is None or switch.span is None:
        return None
    span = header_of(switch.span)
    if ".sample(" in text_of(span):
        return Cut(op, "`.sample()`", span)
    for inner, outer in itertools.pairwise(op.frames):
        if outer.span == switch.span:  # the call of a function that a decorator switches
            first = inner.code.co_firstlineno
            return Cut(op, "`torch.no_grad()`", Span(inner.file, first, 1, first, 0))
    return Cut(op, "`torch.no_grad()`", span)


def _switched_off(recording: Recording, op: Op) -> GradSwitch | None:
    """The outermost change of grad mode that is in force at an operation."""
    found = None
    for switch in recording.switches:
        if switch.at_op > op.index:
            break
        if switch.enabled:
            found = None
        elif found is None:
            found = switch
    return found


def _short(span: Span | None, most: int = 50) -> str:
    text = text_of(span)
    return text if len(text) <= most else f"{text[: most - 1]}…"


@dataclass(frozen=True, slots=True)
class Reparameterization:
    """How the gradient passes one latent: from what enters the next layer back to each head."""

    latent: Latent
    entry: Value
    loc: Arrives | None
    scale: Arrives | None
    cut: Cut | None
    scored: bool = False

    @property
    def relaxed(self) -> bool:
        """Whether this is a category, which a relaxation would make differentiable."""
        return self.latent.family in CHOICES and self.latent.scale is None

    @property
    def implicit(self) -> bool:
        """Whether `rsample` differentiates the draw though it is by rejection."""
        return self.latent.family in IMPLICIT

    @property
    def judged(self) -> bool:
        """Whether a reparameterised draw exists for the family, and the sample is used.

        Of a category or a draw by rejection only where an operation cuts the gradient and no term
        of the loss scores it.
        """
        known = self.latent.family in REPARAMETERIZABLE
        cut = (self.relaxed or self.implicit) and (
            (self.cut is not None and not self.scored) or self.passes
        )
        return self.latent.reaches and (known or cut)

    @property
    def passes(self) -> bool:
        """Whether a nonzero gradient arrives wherever the sampler has a posterior operand."""
        return all(a in (None, Arrives.YES) for a in (self.loc, self.scale))

    @property
    def layers(self) -> list[str]:
        """Tokens of the layers that make the heads."""
        heads = (self.latent.loc_head, self.latent.scale_head)
        return [f"layer:{h.path}" for h in heads if h is not None]


def entry_of(flow: Flow, latent: Latent, x_hat: Value | None) -> Value:
    """The value in which a sample enters the first layer after it (the sample itself if none)."""
    goal = flow.ancestors(x_hat) if x_hat is not None else None
    value = latent.z
    seen: set[int] = set()
    ahead = [latent.z]
    while ahead:
        value = ahead.pop(0)
        if value.index in seen:
            continue
        seen.add(value.index)
        for op in flow.consumers.get(value.index, ()):
            if goal is not None and not any(m.index in goal for m in op.makes):
                continue
            if flow.layer(op):
                return value
            ahead.extend(op.makes)
        ahead.extend(
            flow.recording.values[entry]
            for entry, origins in flow.carried.items()
            if value in origins
        )
    return latent.z if x_hat is None or latent.z.index == x_hat.index else value


def _root(flow: Flow, operand: Value | None) -> Value | None:
    """The nearest ancestor of a sampler's operand that carries a gradient."""
    value = operand
    while value is not None and not value.requires_grad:
        parents = [p for p in flow.parents(value) if flow.posterior(p)]
        value = parents[0] if parents else None
    return value


def _arrivals(entry: Value, roots: list[Value]) -> dict[int, Arrives]:
    found = gradient_between([entry], roots)
    return {v.index: kind_of(gradient) for v, gradient in zip(roots, found, strict=True)}


def reparameterization(anatomy: Anatomy, latent: Latent) -> Reparameterization | None:
    """Differentiate what enters the decoder at the sampler's location and scale.

    None where the encoder carries no gradient at all (frozen, or cut before the heads).
    """
    flow = anatomy.flow
    entry = entry_of(flow, latent, anatomy.x_hat if latent.reaches else None)
    loc, scale = _root(flow, latent.loc), _root(flow, latent.scale)
    if loc is None and scale is None:
        return None
    roots = [v for v in (loc, scale) if v is not None]
    arrives = _arrivals(entry, roots)
    lost = [v for v in roots if arrives[v.index] is not Arrives.YES]
    cut = cut_between(flow, lost[0], entry) if lost else None
    if cut is None and any(arrives[v.index] is Arrives.ZERO for v in lost):
        entry = latent.z  # what follows the sample saturates: no cut
        arrives = _arrivals(entry, roots)
    return Reparameterization(
        latent,
        entry,
        arrives[loc.index] if loc is not None else None,
        arrives[scale.index] if scale is not None else None,
        cut,
        _scored(anatomy, latent, loc) or _taught(anatomy, latent, loc),
    )


def _taught(anatomy: Anatomy, latent: Latent, logits: Value | None) -> bool:
    """Whether x_hat teaches the logits of a drawn category on another way than the draw.

    What a decoder draws from its own logits, to go on with it, needs no teaching.
    """
    drawn = latent.family in CHOICES - {"gumbel"} and latent.scale is None
    if not drawn or logits is None or anatomy.x_hat is None:
        return False
    others = {x.z.index for x in anatomy.latents if x is not latent}
    if others & anatomy.flow.ancestors(logits):
        return True
    head = latent.loc_head.value if latent.loc_head is not None else logits
    made = [v for v in (logits, head) if v.requires_grad]
    return Arrives.YES in _arrivals(anatomy.x_hat, made).values()


def _scored(anatomy: Anatomy, latent: Latent, logits: Value | None) -> bool:
    """Whether the loss joins the sample with its logits beside x_hat, as a score function does."""
    flow, x_hat, loss = anatomy.flow, anatomy.x_hat, anatomy.recording.loss
    end = anatomy.recording.value_of(loss) if isinstance(loss, Tensor) else None
    if logits is None or x_hat is None or end is None:
        return True
    terms = flow.ancestors(end) - flow.ancestors(x_hat)
    head = latent.loc_head.value if latent.loc_head is not None else logits
    drawn, given = flow.descendants(latent.z), flow.descendants(logits, head)
    return any(
        any(v.index in drawn for v in op.reads)
        and any(v.index in given and v.index not in drawn for v in op.reads)
        for op in anatomy.recording.ops
        if op.makes and op.out.index in terms and op.name not in ADDS
    )


@dataclass(frozen=True, slots=True)
class Lost:
    """Parameters that get no gradient for one reason: the cut, or an output the loss leaves out.

    `decoded` says that the cut is on the way to the reconstruction or between it and the loss,
    `returned` that the output is for the caller, who makes no term of it that is then left out.
    """

    branches: tuple[Branch, ...]
    count: int
    cut: Cut | None
    returned: bool
    at: Span | None
    decoded: bool = True


def lost_gradients(anatomy: Anatomy, gradients: Gradients, model: nn.Module) -> Iterator[Lost]:
    """Group the parameters without gradient by what keeps it from them.

    A cut counts where it lies on the way to the reconstruction, from there to the loss, or behind
    a sample, as in a prior's network: a target computed without gradient (a teacher, a perceptual
    network) is on none of these.
    """
    flow, x_hat = anatomy.flow, anatomy.x_hat
    missing = {n: gradients.values[n] for n, g in gradients.by_name.items() if g is None}
    by_cut: dict[tuple[str, bool], tuple[Cut, dict[str, Tensor]]] = {}
    unused: dict[str, Tensor] = {}
    for name, value in missing.items():
        cut = cut_between(flow, value, x_hat) if x_hat is not None else None
        decoded = cut is not None
        if cut is None and not gradients.composed and _reaches_loss(anatomy, value):
            cut, decoded = _cut_from_loss(anatomy, gradients, value)
        if cut is not None:
            if gradients.composed and _draws_categories(anatomy, cut):
                continue  # the user's own loss may well score them
            if not straight_through(flow, cut) and anatomy.quantizer is None:
                by_cut.setdefault((cut.cause, decoded), (cut, {}))[1][name] = value.tensor
        elif not gradients.composed and not _reaches_loss(anatomy, value):
            unused[name] = value.tensor
    for (_, decoded), (cut, members) in by_cut.items():
        yield Lost(tuple(branches(model, members)), len(members), cut, False, cut.at, decoded)
    outputs = [o.value for o in anatomy.outputs]
    returned = flow.ancestors(*outputs) if outputs else set()
    for branch in branches(model, unused):
        values = [missing[n] for n in branch.parameters]
        use = next(iter(flow.consumers.get(values[0].index, ())), None)
        yield Lost(
            (branch,),
            len(values),
            None,
            any(v.index in returned for v in values) and not _left_out(anatomy, values),
            use.span if use is not None else None,
        )


def _draws_categories(anatomy: Anatomy, cut: Cut) -> bool:
    """Whether a cut is the draw of a latent of which no reparameterised draw exists."""
    drawn = [x.draw.op for x in anatomy.latents if x.family not in REPARAMETERIZABLE]
    return any(op is not None and op.span == cut.at for op in drawn)


def _cut_from_loss(anatomy: Anatomy, gradients: Gradients, value: Value) -> tuple[Cut | None, bool]:
    """A cut behind the reconstruction or a sample, and whether it is behind the reconstruction.

    Only in a loss that trains a posterior: that of a discriminator alone may well detach x_hat.
    """
    flow, x_hat, loss = anatomy.flow, anatomy.x_hat, anatomy.recording.loss
    end = anatomy.recording.value_of(loss) if isinstance(loss, Tensor) else None
    made = flow.ancestors(*(v for x in anatomy.latents for v in (x.loc, x.scale) if v is not None))
    taught = {gradients.values[n].index for n, g in gradients.by_name.items() if g is not None}
    if end is None or not taught & made:
        return None, False
    if x_hat is not None and value.index in flow.ancestors(x_hat):
        return cut_between(flow, x_hat, end), True
    cut = cut_between(flow, value, end)
    sampled = flow.descendants(*(latent.z for latent in anatomy.latents))
    behind = cut is not None and (
        any(v.index in sampled for v in cut.op.reads) or _cut_itself(cut, value)
    )
    return (cut if behind else None), behind and cut is not None and _likelihood(anatomy, cut)


def _cut_itself(cut: Cut, value: Value) -> bool:
    """Whether a parameter itself is detached, as pseudo inputs of a prior; a number may well be."""
    return cut.op.name in CUTS and value in cut.op.reads and value.tensor.numel() > 1


def _likelihood(anatomy: Anatomy, cut: Cut) -> bool:
    """Whether what is cut off meets x_hat entry by entry, as the decoder's own variance does."""
    flow, x_hat = anatomy.flow, anatomy.x_hat
    if x_hat is None:
        return False
    made, decoded = flow.descendants(*cut.op.makes), flow.descendants(x_hat)
    return any(
        op.makes
        and op.out.shape == x_hat.shape
        and any(v.index in made and v.index not in decoded for v in op.reads)
        and any(v.index in decoded and v.index not in made for v in op.reads)
        for op in anatomy.recording.ops
    )


def _left_out(anatomy: Anatomy, values: list[Value]) -> bool:
    """Whether the objective computes from values what it neither adds to the loss nor returns."""
    flow, recording = anatomy.flow, anatomy.recording
    given = [recording.value_of(t) for t in tensors_in(recording.returned)]
    kept = flow.ancestors(*(v for v in given if v is not None))
    made = flow.descendants(*values)
    return any(
        op.makes and op.out.index in made and op.out.index not in kept and op.out.requires_grad
        for op in recording.ops
        if op.index >= recording.forward_end > 0
    )


def _reaches_loss(anatomy: Anatomy, value: Value) -> bool:
    loss = anatomy.recording.loss
    end = anatomy.recording.value_of(loss) if isinstance(loss, Tensor) else None
    return end is not None and end.index in anatomy.flow.descendants(value)


def straight_through(flow: Flow, cut: Cut) -> bool:
    """Whether a detach is half of a straight-through estimator, `a + (b - a).detach()`.

    The forward value then equals `b` while the gradient goes to `a`: the cut is on purpose.
    """
    source = cut.op.reads[0].op if cut.op.reads else None
    if source is None or source.name not in ("sub", "rsub", "__rsub__"):
        return False
    waiting, seen = list(cut.op.makes), set()
    while waiting:
        value = waiting.pop()
        for op in flow.consumers.get(value.index, ()):
            if op.index in seen or not op.makes:
                continue
            seen.add(op.index)
            if op.name in RESHAPES:
                waiting.extend(op.makes)
            elif op.name in ("add", "add_") and any(v.requires_grad for v in op.reads):
                return True
    return False
