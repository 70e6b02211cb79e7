"""What the decoder is fed: the sample, the posterior's parameters, or neither."""

from __future__ import annotations

from collections.abc import Iterator, Set
from dataclasses import dataclass, replace

from torch import nn

from ...finding import Span
from ..anatomy.anatomy import Anatomy
from ..anatomy.decoders import other_decoders, skipped_sample
from ..anatomy.heads import Head, path_of
from ..anatomy.latents import AFFINE_NOISE, tables_of, writes_to
from ..anatomy.moves import fed_by
from ..code.aliases import taken_for_sample
from ..code.places import Frame
from ..runs.flow import JOINS, RESHAPES, SLICES, Draw, Flow
from ..runs.recording import Op, Recording, Value
from .variational import is_variational, samples_elsewhere

_MOST = 8  # latents of a hierarchy or a sequence that are looked at


@dataclass(frozen=True, slots=True)
class Fed:
    """A layer on the way to x_hat that takes a posterior parameter instead of a sample.

    `decoder` says that the layer is the start of the decoder itself (the mean is decoded) rather
    than a layer between encoder and decoder, or that the code takes the mean for the sample; `at`
    is then the call that hands the mean over, or the statement that names it anew.
    """

    op: Op
    path: str
    location: bool
    scale: bool
    decoder: bool
    at: Span | None


@dataclass(frozen=True, slots=True)
class Decoding:
    """What reaches the reconstruction.

    `heads` is the pair (location, scale) if there is one, `dead` the draws that reach neither
    output nor loss, `dropped` whether a sample was made that reaches nothing,
    `elsewhere` whether the class samples in code that this forward pass does not run, `skipped` a
    pair of heads of which only the location is decoded, beside other samples.
    """

    sampled: bool
    heads: tuple[Head, Head] | None
    fed: tuple[Fed, ...]
    dead: tuple[Draw, ...]
    dropped: bool
    blind: Op | None
    elsewhere: bool
    variational: bool
    skipped: Fed | None = None
    idle: frozenset[str] = frozenset()

    @property
    def causes(self) -> frozenset[str]:
        """Tokens of the latent, of the layers that make its heads and of those it is lost in."""
        heads = {h.path for h in self.heads or ()}
        return frozenset({"latent", *(f"layer:{path}" for path in heads | self.idle if path)})


def examine_decoding(anatomy: Anatomy, model: nn.Module) -> Decoding:
    """Classify every layer between the heads and x_hat by what it takes."""
    recording = anatomy.recording
    pairs = list(_heads(anatomy))
    sampled = bool(anatomy.sampled)
    if not sampled and anatomy.x_hat is not None:  # of a hierarchy the level that is decoded first
        behind = anatomy.flow.alive(anatomy.x_hat)
        pairs.sort(key=lambda pair: pair[0][0].value.index not in behind)
    heads = pairs[0][0] if pairs else None
    fed: tuple[Fed, ...] = ()
    blind = None
    skipped = _skipped(anatomy, model) if anatomy.latents else None
    if heads is not None and anatomy.x_hat is not None:
        judged = pairs[:_MOST] if sampled else pairs[:1]
        fed = tuple(f for pair in judged for f in _fed(anatomy, *pair, exact=sampled))
        if not anatomy.latents:
            own = anatomy.flow.ancestors(anatomy.x_hat)
            fed = tuple(_named_anew(f, heads[0].op, own, model) for f in fed)
        if not sampled and anatomy.latents and not fed and skipped is None:
            blind = _blind(anatomy, heads)
    return Decoding(
        sampled,
        heads,
        fed,
        tuple(_dead(anatomy)),
        bool(anatomy.latents) and not sampled,
        blind,
        not anatomy.latents and samples_elsewhere(recording, model),
        bool(anatomy.latents) or is_variational(anatomy, model),
        skipped if sampled or not fed else None,
        frozenset() if sampled else frozenset(_fed_by_sample(anatomy)),
    )


def _fed_by_sample(anatomy: Anatomy) -> Iterator[str]:
    """The paths of all weights that are applied to a sample, and of what holds them."""
    flow = anatomy.flow
    for latent in anatomy.latents:
        after = flow.descendants(latent.z)
        for op in anatomy.recording.ops:
            if any(v.index in after for v in op.reads):
                for weight in op.reads:
                    parts = weight.name.split(".") if weight.source == "parameter" else []
                    yield from (".".join(parts[:end]) for end in range(1, len(parts) + 1))


def _skipped(anatomy: Anatomy, model: nn.Module) -> Fed | None:
    """The first layer that takes the location of heads of which no sample is drawn."""
    pair = skipped_sample(anatomy, [found.z for found in anatomy.sampled])
    if pair is None:
        return None
    flow, x_hat, loc = anatomy.flow, anatomy.x_hat, pair.loc.value
    assert x_hat is not None
    goal = flow.ancestors(x_hat)
    for op in anatomy.recording.ops:
        if not op.makes or op.out.index not in goal or not flow.layer(op):
            continue
        if any(loc in _sources(flow, read, exact=False) for read in op.reads):
            at = handed_over(op, pair.loc_head.op)
            at = taken_for_sample(at, model) or at
            return Fed(op, path_of(op) or op.name, True, False, True, at)
    return None


def _heads(
    anatomy: Anatomy,
) -> Iterator[tuple[tuple[Head, Head], tuple[Set[int], Set[int]]]]:
    """Every latent's (location, scale), with the values between the two and the sampler."""
    flow = anatomy.flow
    for latent in anatomy.latents:
        if latent.loc_head and latent.scale_head and latent.loc and latent.scale:
            values = (
                _between(flow, latent.loc_head.value, latent.loc),
                _between(flow, latent.scale_head.value, latent.scale),
            )
            yield (latent.loc_head, latent.scale_head), values
    u = anatomy.unsampled
    if u is not None and not anatomy.latents:
        values = (
            _between(flow, u.loc_head.value, u.loc.value),
            _between(flow, u.scale_head.value, u.scale.value),
        )
        yield (u.loc_head, u.scale_head), values


def _between(flow: Flow, start: Value, end: Value) -> Set[int]:
    return (flow.descendants(start) & flow.ancestors(end)) | {start.index, end.index}


def _fed(
    anatomy: Anatomy, heads: tuple[Head, Head], values: tuple[Set[int], Set[int]], *, exact: bool
) -> Iterator[Fed]:
    flow, x_hat = anatomy.flow, anatomy.x_hat
    assert x_hat is not None
    stop = [found.z for found in anatomy.sampled]
    own = flow.alive(x_hat, stop=stop)
    beside = other_decoders(anatomy, heads[0].value) if exact else []
    goal = own | flow.ancestors(*beside, stop=stop)
    makers = {heads[0].op.index, heads[1].op.index}
    last = _last_layer(flow, x_hat)
    for op in anatomy.recording.ops:
        if not op.makes or op.out.index not in goal or not flow.layer(op) or op.index in makers:
            continue
        arrived = [v for v in op.reads if flow.posterior(v)]
        sources = {v.index for a in arrived for v in _sources(flow, a, exact)}
        location, scale = bool(sources & values[0]), bool(sources & values[1])
        if location or scale:
            decoder = not scale and _starts_decoder(op, last, heads[0].op)
            again = _again_at(anatomy.recording, op) if exact else None
            at = again or (handed_over(op, heads[0].op) if decoder else op.span)
            yield Fed(
                op, path_of(op) or op.name, location, scale, decoder and op.out.index in own, at
            )
    if not exact and last is not None and last.out.index in flow.ancestors(heads[0].value):
        yield from _without_layers(flow, heads, own)


def _again_at(recording: Recording, op: Op) -> Span | None:
    """Where code that runs several times is given what this layer takes: the calls differ there."""
    layer = op.call.module if op.call is not None else None
    for twin in recording.ops if layer is not None else ():
        if twin is op or twin.call is None or twin.call.module is not layer:
            continue
        pairs = zip(op.frames, twin.frames, strict=False)
        apart = next((a for a, b in pairs if a.span != b.span), None)
        if apart is not None:
            return apart.span
    return None


def _named_anew(fed: Fed, encoder: Op, own: Set[int], model: nn.Module) -> Fed:
    """The same at the statement that takes the mean for the sample, where the code has one."""
    if fed.scale or fed.op.out.index not in own:
        return fed
    at = taken_for_sample(handed_over(fed.op, encoder), model)
    return fed if at is None else replace(fed, decoder=True, at=at)


def _without_layers(flow: Flow, heads: tuple[Head, Head], own: Set[int]) -> Iterator[Fed]:
    """What a decoder without weights, an inner product, takes: the location itself."""
    encoded = flow.ancestors(heads[0].value)
    for op in flow.consumers.get(heads[0].value.index, ()):
        made = [m for m in op.makes if m.index in own and m.index not in encoded]
        if made and op.name not in RESHAPES | SLICES:
            at = handed_over(op, heads[0].op)
            yield Fed(op, path_of(op) or op.name, True, False, True, at)
            return


def handed_over(op: Op, encoder: Op) -> Span | None:
    """The call, in the function that also ran the encoder, inside of which a layer ran."""
    known = [_activation(encoder.frames, i) for i in range(len(encoder.frames))]
    for i, frame in enumerate(op.frames):
        if _activation(op.frames, i) in known:
            return frame.span or op.span
    return op.span


def _sources(flow: Flow, value: Value, exact: bool) -> list[Value]:
    """What a layer's operand is put together from: by joins alone, or by any layerless step."""
    if exact:
        return fed_by(flow, value)
    found, waiting, seen = [], [value], set()
    while waiting:
        v = waiting.pop()
        if v.index in seen:
            continue
        seen.add(v.index)
        found.append(v)
        if v.op is not None and not flow.layer(v.op) and v not in flow.zeroed:
            waiting.extend(p for p in flow.parents(v) if flow.posterior(p))
    return found


def _last_layer(flow: Flow, x_hat: Value) -> Op | None:
    behind = flow.ancestors(x_hat)
    layers = [
        op for op in flow.recording.ops if op.makes and op.out.index in behind and flow.layer(op)
    ]
    return layers[-1] if layers else None


def _starts_decoder(op: Op, last: Op | None, encoder: Op) -> bool:
    """Whether a layer is the decoder's own first one.

    It is where the layer and the one that makes x_hat run inside one module or function that does
    not also run the encoder, or where all three are called side by side.
    """
    if last is None or last is op:
        return True
    shared = [u for u in _around(op) if any(u == v for v in _around(last))]
    apart = [u for u in shared if not any(u == v for v in _around(encoder))]
    if apart:
        return True
    return len(_around(op)) == len(_around(last)) == len(_around(encoder)) == len(shared)


def _around(op: Op) -> list[object]:
    """The module calls and functions an operation runs inside of, its own layer left out."""
    calls: list[object] = []
    if op.call is not None:
        chain = list(op.call.chain())
        own = chain[0] if _is_leaf(op.call.module) else None
        calls = [id(c) for c in chain if c is not own]
    return [*calls, *(_activation(op.frames, i) for i in range(len(op.frames)))]


def _is_leaf(module: nn.Module) -> bool:
    return next(module.children(), None) is None and type(module).__module__.startswith("torch.")


def _activation(frames: tuple[Frame, ...], index: int) -> object:
    """One activation of a function: its code and the line from which it was called."""
    caller = frames[index + 1] if index + 1 < len(frames) else None
    return (frames[index].code, caller and (caller.file, caller.line))


def _dead(anatomy: Anatomy) -> Iterator[Draw]:
    """Draws shaped after the posterior that reach no output and no loss.

    A number that layers make of a draw is a loss of another network's: a critic's of the prior.
    None where x_hat has noise from a draw joined to the data: of an implicit posterior.
    """
    flow, recording = anatomy.flow, anatomy.recording
    if anatomy.x_hat is not None and _joined_noise(anatomy, anatomy.x_hat):
        return
    ends = [o.value for o in anatomy.outputs]
    if recording.loss is not None and (loss := recording.value_of(recording.loss)):
        ends.append(loss)
    if anatomy.x_hat is not None:
        ends.append(anatomy.x_hat)
    # Noise that is written into a table takes effect there: codes that start anew.
    tables = tables_of(flow)
    kept = [v for op in recording.ops if writes_to(op, tables) for v in op.reads]
    alive = flow.ancestors(*ends, *kept) if ends else set()
    numbers = [op.out for op in recording.ops if op.makes and not op.out.shape]
    scored = flow.ancestors(*(v for v in numbers if v.tensor.requires_grad))
    judged = {op.out.index for op in recording.ops if op.makes and flow.layer(op)} & scored
    shapes = {o.value.shape for o in anatomy.outputs if o.value is not anatomy.x_hat}
    merged = {found.draw.bit for found in anatomy.latents}
    for draw in flow.draws:
        drawn = draw.name in AFFINE_NOISE | {"gumbel_softmax"}
        drawn &= draw.value.tensor.numel() > 1  # one number picks a bit rate, say
        other = not judged.isdisjoint(flow.descendants(draw.value))
        if draw.bit in merged or draw.value.index in alive or other or not drawn:
            continue
        after = draw.op is not None and 0 <= recording.forward_end <= draw.op.index
        given = (*draw.op.shapes, *draw.op.reads) if draw.op is not None else ()
        modelled = any(flow.posterior(v) for v in given)
        if not after and (modelled or draw.value.shape in shapes):
            yield draw


def _joined_noise(anatomy: Anatomy, x_hat: Value) -> bool:
    """Whether a reconstruction is computed from data and a draw that enter a layer side by side."""
    flow = anatomy.flow
    behind = flow.ancestors(x_hat)
    return any(
        op.name in JOINS
        and op.makes
        and op.out.index in behind
        and any(flow.noise[v.index] and not flow.data[v.index] for v in op.reads)
        and any(flow.data[v.index] and not flow.noise[v.index] for v in op.reads)
        for op in flow.recording.ops
    )


def _blind(anatomy: Anatomy, heads: tuple[Head, Head]) -> Op | None:
    """The first layer of a reconstruction that neither sample nor heads reach."""
    flow, x_hat = anatomy.flow, anatomy.x_hat
    assert x_hat is not None
    behind = flow.alive(x_hat)
    known = {heads[0].value.index, heads[1].value.index}
    if behind & known or any(found.z.index in behind for found in anatomy.latents):
        return None
    encoder = flow.ancestors(heads[0].value, heads[1].value)
    for op in anatomy.recording.ops:
        if op.makes and op.out.index in behind and op.out.index not in encoder and flow.layer(op):
            return op
    return x_hat.op
