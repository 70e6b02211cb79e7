"""Which recorded values are x, x_hat and the latents, and of which family the model is."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from ..runs.flow import CUTS, JOINS, RESHAPES, SLICES, Flow
from ..runs.outputs import Output, outputs_of
from ..runs.recording import Op, Recording, Value
from .latents import MULS, PRODUCTS, Head, Latent, find_latents, head

POSITIVE = frozenset("exp exp_ softplus".split())
CLASS_LOSSES = frozenset({"cross_entropy", "nll_loss"})
CLASSES = frozenset({"argmax", "long", "int"})
"""Operations that make the numbers of classes of an input that holds them otherwise."""
EXTREMES = frozenset({"min", "max", "sort"})
LOOKUPS = frozenset("argmin argmax topk round round_ sign floor one_hot".split())


@dataclass(frozen=True, slots=True)
class Unsampled:
    """A location and a scale head of which no sample is made."""

    loc: Output
    scale: Output
    loc_head: Head
    scale_head: Head


@dataclass(slots=True)
class Anatomy:
    """Which recorded values are x, x_hat and the latents, and how sure that is."""

    recording: Recording
    flow: Flow
    outputs: list[Output]
    x: Value | None
    x_hat: Value | None
    x_hat_name: str
    latents: list[Latent] = field(default_factory=list)
    unsampled: Unsampled | None = None
    family: str = "none"
    confidence: str = "low"
    quantizer: Op | None = None
    penalty: str = "kl"

    @property
    def sampled(self) -> list[Latent]:
        """The latents whose sample reaches the reconstruction."""
        return [latent for latent in self.latents if latent.reaches]

    @property
    def affine(self) -> list[Latent]:
        """Latents made as location + scale * noise."""
        return [latent for latent in self.latents if latent.loc is not None]


def anatomize(recording: Recording, flow: Flow) -> Anatomy:
    """Read the anatomy off one recorded training step. Pure: runs nothing."""
    outputs = outputs_of(recording)
    shapes = {v.shape for v in inputs_of(recording)}
    latents = [x for x in find_latents(flow) if not _drawn_from_output(flow, x, shapes)]
    x_hat, name = _reconstruction(recording, flow, outputs, latents)
    x = _input(recording, flow, x_hat)
    anatomy = Anatomy(recording, flow, outputs, x, x_hat, name)
    behind = flow.alive(x_hat) if x_hat is not None else set()
    latents = [replace(found, reaches=found.z.index in behind) for found in latents]
    latents = [found for found in latents if found.reaches or found.scale is not None]
    scaled = [found for found in latents if found.scale is not None or found.family != "gaussian"]
    anatomy.latents = scaled or latents
    anatomy.quantizer = _quantizer(flow, behind)
    if not anatomy.latents and anatomy.quantizer is None:
        anatomy.unsampled = unsampled_heads(flow, outputs, x_hat)
    anatomy.family, anatomy.confidence = _family(anatomy)
    return anatomy


def _drawn_from_output(flow: Flow, latent: Latent, shapes: set[tuple[int, ...]]) -> bool:
    """Whether a draw is made from the reconstruction itself, so that no layer follows it.

    A product of the draw with itself, as of the nodes of a graph, is a decoder too.
    """
    of_samples = any(v is not None and flow.noise[v.index] for v in (latent.loc, latent.scale))
    if not of_samples and latent.z.shape not in shapes:
        return False
    after = flow.descendants(latent.z)
    later = [op for op in flow.recording.ops if op.makes and op.out.index in after]
    with_itself = (op.name in PRODUCTS and all(v.index in after for v in op.reads) for op in later)
    return not (any(with_itself) or any(flow.layer(op) for op in later))


def _family(anatomy: Anatomy) -> tuple[str, str]:
    families = sorted({latent.family for latent in anatomy.latents})
    if families:
        reaching = anatomy.sampled
        certain = reaching and all(found.loc is not None for found in reaching)
        return " + ".join(families), "high" if certain else "medium"
    if anatomy.quantizer is not None:
        return "vq", "medium"
    if anatomy.unsampled is not None:
        return "gaussian (never sampled)", "medium"
    return "none", "low"


# -- input and reconstruction ----------------------------------------------------------------


def inputs_of(recording: Recording) -> list[Value]:
    """The batch's tensors, in the order in which the run met them."""
    return [v for v in recording.values if v.source == "input" and v.op is None]


def _input(recording: Recording, flow: Flow, x_hat: Value | None) -> Value | None:
    inputs = inputs_of(recording)
    if not inputs:
        return None
    if x_hat is not None:
        if (target := _target(recording, flow, x_hat)) is not None:
            return target
        alike = [v for v in inputs if v.shape == x_hat.shape]
        same = [v for v in inputs if v.tensor.numel() == x_hat.tensor.numel()]
        alike += sorted(same, key=lambda v: not v.tensor.is_floating_point())
        if alike:
            return alike[0]
    floating = [v for v in inputs if v.tensor.is_floating_point()]
    return (floating or inputs)[0]


def _target(recording: Recording, flow: Flow, x_hat: Value) -> Value | None:
    """The input that the loss compares x_hat with, where the model is given it as well.

    Of a conditional model it is what is decoded, not the condition of the same shape.
    """
    raw = {v.index for v in inputs_of(recording)}
    behind = flow.ancestors(x_hat)
    for value, op in compared_values(recording, flow, [x_hat]):
        roots = [moved_from(flow, v, raw) for v in op.reads]
        found = [v for v in roots if v is not None and v.index in behind]
        if value is x_hat and found:
            return found[0]
    return None


def _reconstruction(
    recording: Recording, flow: Flow, outputs: list[Output], latents: list[Latent]
) -> tuple[Value | None, str]:
    """The output that stands for x: like x in shape, computed from the sample, compared with x."""
    inputs = inputs_of(recording)
    shapes = {v.shape for v in inputs}
    sizes = {v.tensor.numel() for v in inputs}
    parameters = {v.index for found in latents for v in (found.loc, found.scale, found.z) if v}
    candidates = [
        o
        for o in outputs
        if flow.learned[o.value.index]
        and o.value.tensor.is_floating_point()
        and not only_moved(flow, o.value, parameters)
        and not any(o.value.tensor is v.tensor for v in inputs)
        and o.value.tensor.dim() > 0
    ]
    partners = compared_values(recording, flow)
    samples = [found.z for found in latents]
    if not candidates and not partners:  # forward returns only the loss
        partners = compared_values(recording, flow, samples)
    # A forward pass that returns densities compares the input with the decoder's output itself.
    inside = [] if partners or not latents else compared_values(recording, flow, samples)
    if latents and not partners and not inside:  # or what it decodes in place of the sample
        locations = [found.loc for found in latents if found.loc is not None]
        inside = compared_values(recording, flow, locations)
    rank = {value.index: i for i, (value, _) in enumerate(partners)}
    made = {o.value.index for o in candidates}
    for i, (value, _) in enumerate(partners):  # step by step, of a series that lacks the first ones
        whole = moved_from(flow, value, made)
        if whole is not None and value.tensor.numel() not in sizes:
            rank.setdefault(whole.index, i)

    def order(o: Output) -> tuple[bool, bool, bool, bool, bool, bool, int]:
        v = o.value
        return (
            v.index not in rank,
            not _deep(flow, o.value, latents),
            v.shape not in shapes,
            v.tensor.numel() not in sizes,
            not flow.noise[v.index],
            not v.tensor.requires_grad,
            -v.tensor.numel() if v.tensor.numel() not in sizes else 0,
        )

    if candidates:
        best = min(candidates, key=order)
        plausible = best.value.shape in shapes or best.value.tensor.numel() in sizes
        certain = plausible or best.value.index in rank
        if certain or (not partners and not inside and _deep(flow, best.value, latents)):
            return best.value, best.name
    if partners or inside:
        return (partners or inside)[0][0], "x_hat"
    decoded = next((o for o in candidates if _from_location(flow, o.value, latents)), None)
    if latents and decoded is None and (blind := compared_values(recording, flow, of_data=False)):
        return blind[0][0], "x_hat"  # it depends on the weights alone (VAE402)
    return (decoded.value, decoded.name) if decoded is not None else (None, "")


def _from_location(flow: Flow, value: Value, latents: list[Latent]) -> bool:
    """Whether layers compute a value from a location of which a sample is drawn as well."""
    behind = flow.ancestors(value)
    for latent in latents:
        way = flow.descendants(latent.loc) & behind if latent.loc is not None else set()
        if any(flow.layer(op) for op in flow.recording.ops if op.makes and op.out.index in way):
            return True
    return False


def _deep(flow: Flow, value: Value, latents: list[Latent]) -> bool:
    """Whether a value of another shape than x is computed from a sample by learned weights."""
    behind = flow.ancestors(value)
    return any(found.z.index in behind and found.z.index != value.index for found in latents)


def compared_values(
    recording: Recording,
    flow: Flow,
    decoded_from: list[Value] | None = None,
    *,
    of_data: bool = True,
) -> list[tuple[Value, Op]]:
    """Values that the loss compares with the input, and where.

    They are computed from the data, or by weights alone where not `of_data`.

    With `decoded_from`, inside forward too: values that layers compute from those. What a later
    one is made of (x added to a decoder's output) is no comparison; nor, beside one, is a mask.
    """
    raw = {v.index for v in inputs_of(recording)}
    inside = flow.descendants(*(decoded_from or ()))
    draws = {v.shape[0] for v in decoded_from or () if len(v.shape) > 2}
    found = []
    for op in recording.ops:
        if len(op.reads) < 2 or not op.makes:
            continue
        if op.index < recording.forward_end > 0:
            if decoded_from is None or (decoded_from and op.out.index not in inside):
                continue
            if flow.layer(op):
                continue
        plain = [v for v in op.reads if only_moved(flow, v, raw)]
        learned = [v for v in op.reads if (flow.posterior(v) if of_data else flow.learned[v.index])]
        if plain and learned and _entry_by_entry(op, learned[0].tensor, plain[0].tensor, draws):
            value = learned[0]
            through = {*RESHAPES, "log"} if op.name in MULS else RESHAPES  # `x * x_hat.log()`
            while value.op is not None and value.op.name in through:
                value = flow.parents(value)[0]
            found.append((value, op))
    compared = [(value, op) for value, op in found if not _masks(op, raw, flow)]
    found = compared or found
    made = flow.ancestors(*(value for value, _ in found))
    return [(value, op) for value, op in found if op.out.index not in made] or found


def _masks(op: Op, raw: set[int], flow: Flow) -> bool:
    """Whether an operation multiplies by an input of zeros and ones."""
    given = [v.tensor for v in op.reads if only_moved(flow, v, raw)]
    return op.name in MULS and all(map(_binary, given))


def _entry_by_entry(op: Op, made: Tensor, given: Tensor, draws: Set[int]) -> bool:
    """Whether there is a number for every entry of the input, or for each class it may be.

    Of several `draws` that stand in front, the input is compared with each.
    """
    each = 1
    if made.dim() == given.dim() + 1 and made.shape[1:] == given.shape and made.shape[0] in draws:
        each = made.shape[0]
    if op.name in CLASS_LOSSES and not given.is_floating_point() and made.dim():
        each = made.shape[min(1, made.dim() - 1)]
    return made.numel() == given.numel() * each


def only_moved(flow: Flow, value: Value, raw: set[int]) -> bool:
    """Whether a value is one of the given (an input, say), or one only reshaped or sliced."""
    return moved_from(flow, value, raw) is not None


def moved_from(flow: Flow, value: Value, raw: set[int]) -> Value | None:
    """Which of the given a value only moves, masks or numbers; None where it does more."""
    while value.index not in raw and value.op is not None:
        op = value.op
        if op.name in RESHAPES | SLICES | CLASSES:
            value = flow.parents(value)[0]
        elif op.name in MULS and len(op.reads) == 2 and all(r.index in raw for r in op.reads):
            value, other = sorted(op.reads, key=lambda r: _binary(r.tensor))
            if not _binary(other.tensor):
                return None
        else:
            return None
    return value if value.index in raw else None


def _binary(tensor: Tensor) -> bool:
    return bool(((tensor == 0) | (tensor == 1)).all())


# -- no sample -------------------------------------------------------------------------------


def _quantizer(flow: Flow, behind: Set[int]) -> Op | None:
    """A nearest-neighbour look-up or a rounding between the encoder and the reconstruction."""
    for op in flow.recording.ops:
        made = [m for m in op.makes if m.index in behind]
        if op.name in EXTREMES:  # of `distances.min(1)` the place, not the value
            made = [m for m in made if not m.tensor.is_floating_point()]
        elif op.name not in LOOKUPS and not _two_level(flow, op):
            continue
        if made and any(flow.posterior(v) for v in op.reads):
            return op
    return None


def _two_level(flow: Flow, op: Op) -> bool:
    """Whether an operation chooses between two numbers by the sign of what the encoder made."""
    if op.name != "where" or not op.reads or op.reads[0].tensor.dtype is not torch.bool:
        return False
    choices = op.reads[1:]
    levels = torch.unique(op.out.tensor.detach())
    return not any(flow.posterior(v) for v in choices) and len(levels) <= 2


def unsampled_heads(
    flow: Flow, outputs: list[Output], x_hat: Value | None, beside: Set[int] = frozenset()
) -> Unsampled | None:
    """Two parallel heads, returned or in the loss; x_hat is computed from the first or both.

    Locations in `beside` are left out: a sample is drawn around them.
    """
    if x_hat is None:
        return None
    behind = flow.ancestors(x_hat)
    known = [*outputs, *_penalized(flow, x_hat)]
    heads = [
        (o, h)
        for o in known
        if o.value is not x_hat
        and flow.posterior(o.value)
        and o.value.tensor.is_floating_point()
        and o.value.tensor.dim() > 1
        and (h := head(flow, o.value)) is not None
    ]
    for loc, loc_head in heads:
        for scale, scale_head in heads:
            if loc is scale or loc.value.shape != scale.value.shape:
                continue
            parallel = loc_head.op is not scale_head.op or loc_head.value is not scale_head.value
            apart = not (
                flow.ancestors(loc.value) & {scale_head.op.out.index}
                and loc_head.op is not scale_head.op
            )
            if scale.value.index in behind and loc_head.value.index in flow.ancestors(scale.value):
                continue  # the sample itself, returned beside its parameters
            used = loc_head.value.index in behind and loc_head.value.index not in beside
            if parallel and apart and used and not _drawn(flow, loc.value, scale_head.value, x_hat):
                return Unsampled(loc, scale, loc_head, scale_head)
    return None


def _drawn(flow: Flow, loc: Value, scale: Value, x_hat: Value) -> bool:
    """Whether noise makes a sample of the two on the way to x_hat, however it is made.

    It comes in behind the scale, or the second of the two is the sample itself: an exponential
    map divides its tangent by what the location makes.
    """
    behind = scale.index in flow.ancestors(x_hat)
    late = flow.noise[x_hat.index] & ~flow.noise[scale.index]
    return flow.noise[loc.index] != flow.noise[scale.index] or bool(behind and late)


def _penalized(flow: Flow, x_hat: Value) -> list[Output]:
    """Heads that only the loss sees: its KL reads a layer's output, and `exp` of another's.

    The second takes no part in the reconstruction; both meet before the loss.
    """
    loss = flow.recording.loss
    end = flow.recording.value_of(loss) if isinstance(loss, Tensor) else None
    if end is None:
        return []
    behind = flow.ancestors(x_hat)
    terms = flow.ancestors(end, stop=[x_hat])
    found = []
    for op in flow.recording.ops:
        read = [v for v in op.reads if v.index in terms and flow.posterior(v)]
        if op.name not in POSITIVE or not read or read[0].index in behind:
            continue
        scale = head(flow, read[0])
        if scale is None or scale.value.index in behind:
            continue
        found.append(Output("", scale.value))
        parallel = (behind & terms) - flow.ancestors(scale.value) - {x_hat.index}
        found += [
            Output("", v)
            for v in flow.recording.values
            if v.index in parallel
            and v.shape == scale.value.shape
            and v.op is not None
            and (flow.layer(v.op) or v.op.name in SLICES)
        ]
    return found


def fed_by(flow: Flow, value: Value) -> list[Value]:
    """What a value is put together from by moving and joining alone: `cat([mu, logvar])`."""
    waiting, found = [value], []
    while waiting:
        value = waiting.pop(0)
        op = value.op
        if op is not None and op.name in RESHAPES | JOINS | CUTS:
            waiting.extend(flow.parents(value))
        found.append(value)
    return found
