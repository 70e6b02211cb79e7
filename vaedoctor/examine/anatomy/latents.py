"""Find the latent without names: where a draw of noise meets what the encoder computed.

A sample is made where a value that depends on noise only meets one that depends on the data
through learned weights: `mul` then `add` in either order, `addcmul`, a direct draw
`normal(mu, std)`. Dropout masks, noise on the input and dequantisation are no latents.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from ..runs.flow import CUTS, RESHAPES, SLICES, Draw, Flow
from ..runs.recording import Op, Value
from .heads import Head, head

ADDS = frozenset("add add_ sub sub_ rsub __rsub__ __iadd__ subtract".split())
MULS = frozenset("mul mul_ div div_ true_divide multiply __imul__ divide rdiv".split())
PRODUCTS = frozenset("matmul bmm mv einsum mm dot baddbmm addmv linear".split())
DIRECT = frozenset(
    "normal bernoulli bernoulli_ multinomial poisson binomial _standard_gamma "
    "_sample_dirichlet gumbel_softmax".split()
)
_NAMED = {"gumbel_softmax": "gumbel", "multinomial": "categorical", "_standard_gamma": "gamma"}
ONE_HOT = frozenset({"one_hot", "scatter", "scatter_"})
FUSED = frozenset({"addcmul", "addcmul_"})
POWERS = frozenset({"pow", "pow_", "rpow", "__rpow__", "float_power"})
AFFINE_NOISE = frozenset(
    "randn randn_like normal normal_ rand rand_like uniform_ exponential_ numpy".split()
)
COMPARES = frozenset("gt lt ge le eq ne __gt__ __lt__ __ge__ __le__".split())


@dataclass(frozen=True, slots=True)
class Latent:
    """One stochastic node: the draw, where it meets the encoder, and the sample `z`.

    `loc` and `scale` are the operands of the sampler (None where it has none), `loc_head` and
    `scale_head` the layers they come from, `reaches` whether `z` reaches the reconstruction.
    """

    draw: Draw
    meeting: Op
    z: Value
    family: str
    loc: Value | None = None
    scale: Value | None = None
    loc_head: Head | None = None
    scale_head: Head | None = None
    reaches: bool = False


def find_latents(flow: Flow) -> Iterator[Latent]:
    """Every draw that meets what the encoder computed, one latent a sample.

    Of a width of 0 there is nothing to be measured.
    """
    used: set[int] = set()
    for draw in (d for d in flow.draws if d.value.tensor.numel()):
        latent = _direct(flow, draw) or _affine(flow, draw)
        if latent is not None and latent.z.index not in used and not _into_a_table(flow, latent.z):
            used.add(latent.z.index)
            yield latent
            for twin in _again(flow, latent):
                used.add(twin.z.index)
                yield twin


def _again(flow: Flow, latent: Latent) -> Iterator[Latent]:
    """The same draw met with the same location again: `mu - std * eps`, an antithetic sample."""
    if latent.loc is None or latent.scale is None:
        return
    own = 1 << latent.draw.bit
    after = flow.descendants(latent.z)
    for op in flow.consumers.get(latent.loc.index, ()):
        spreads = [v for v in op.reads if flow.noise[v.index] == own and v.index not in after]
        alike = op.name in ADDS and op.makes and op.out.shape == latent.z.shape
        if alike and spreads and op.out.index not in after:
            yield replace(latent, meeting=op, z=op.out)


def _into_a_table(flow: Flow, z: Value) -> bool:
    """Whether a value is only written into a parameter or buffer, as codes that start anew are."""
    tables, waiting, writes = tables_of(flow), [z], 0
    while waiting:
        for op in flow.consumers.get(waiting.pop().index, ()):
            if op.name in RESHAPES | SLICES | CUTS and not op.inplace:
                waiting.extend(op.makes)
            elif writes_to(op, tables):
                writes += 1
            else:
                return False
    return writes > 0


def tables_of(flow: Flow) -> frozenset[int]:
    """Where the numbers of parameters and buffers lie."""
    leaves = (v for v in flow.recording.values if v.op is None)
    return frozenset(v.memory for v in leaves if v.source in ("parameter", "buffer")) - {0}


def writes_to(op: Op, tables: frozenset[int]) -> bool:
    """Whether an operation changes a parameter or buffer in place."""
    return op.inplace and any(v.memory in tables for v in op.makes)


def _direct(flow: Flow, draw: Draw) -> Latent | None:
    """A draw whose own distribution comes from the encoder: `normal(mu, std)`, `bernoulli(p)`."""
    op = draw.op
    if op is None or op.name not in DIRECT:
        return None
    operands = [v for v in op.reads if flow.posterior(v)]
    if not operands:
        return None
    if op.name != "normal":
        family = _NAMED.get(op.name, op.name.strip("_").removeprefix("sample_"))
        z = _settled(flow, _one_hot(flow, draw.value) if op.name == "multinomial" else draw.value)
        return Latent(draw, op, z, family, operands[0], None, head(flow, operands[0]))
    loc = operands[0] if flow.posterior(op.reads[0]) else None
    scale = op.reads[1] if len(op.reads) > 1 and flow.posterior(op.reads[1]) else None
    return _with_heads(flow, Latent(draw, op, draw.value, "gaussian", loc, scale))


def _settled(flow: Flow, value: Value) -> Value:
    """A direct draw after its arithmetic: straight through, `b + p - p.detach()`, or a rate.

    What is edited in place through a detached view, as in `Gamma.rsample`, is the same sample.
    """
    while True:
        ops = flow.consumers.get(value.index, ())
        edits = [m for op in ops if op.inplace for m in op.makes if m.tensor is value.tensor]
        if edits:
            value = edits[-1]
            continue
        sums = [
            op
            for op in ops
            if op.name in ADDS | MULS | CUTS and op.makes and op.out.shape == value.shape
        ]
        if not sums or any(flow.layer(op) for op in ops):  # a score may read it beside the layer
            return value
        value = sums[0].out


def _one_hot(flow: Flow, value: Value) -> Value:
    """The one-hot vector made of an index that was drawn, moved; itself where there is none."""
    ahead, hot = value, False
    for _ in range(12):
        ops = [op for op in flow.consumers.get(ahead.index, ()) if op.makes]
        ops = [op for op in ops if op.name in RESHAPES | ONE_HOT]
        if not ops:
            break
        ahead, hot = ops[0].out, hot or ops[0].name in ONE_HOT
    return ahead if hot else value


def _before_layer(flow: Flow, value: Value) -> Value:
    """What a value has become where the next layer reads it; itself where none does."""
    for now in flow.onward(value, past=lambda op: not flow.layer(op)):
        if any(map(flow.layer, flow.consumers.get(now.index, ()))):
            return now
    return value


def _affine(flow: Flow, draw: Draw) -> Latent | None:
    """Noise that meets the encoder's output: scale by multiplication, location by addition."""
    if draw.name not in AFFINE_NOISE:
        return None
    meeting = _meeting(flow, draw)
    known = ADDS | MULS | PRODUCTS | FUSED | POWERS
    if meeting is None or meeting.name not in known or not meeting.makes:
        return None
    bit = 1 << draw.bit
    others = [v for v in meeting.reads if flow.posterior(v) and not flow.noise[v.index] & bit]
    if meeting.name in POWERS:  # an inverse distribution function, as of Kumaraswamy's
        return Latent(draw, meeting, _before_layer(flow, meeting.out), "implicit")
    z = meeting.out
    loc: Value | None = others[0]
    scale: Value | None = None
    if meeting.name in FUSED:
        loc = meeting.reads[0] if meeting.reads[0] in others else None
        scale = next((v for v in meeting.reads[1:] if v in others), None)
    elif meeting.name not in ADDS:
        scale = others[0]
        z, loc = _add_location(flow, meeting.out, bit)
    if loc is None:
        return None
    if scale is None:
        z = _other_half(flow, z, loc, bit)
    family = _noise_family(flow, draw, z)
    return _with_heads(flow, Latent(draw, meeting, z, family, loc, scale))


def _meeting(flow: Flow, draw: Draw) -> Op | None:
    """The first operation in which the noise meets a posterior value."""
    bit = 1 << draw.bit
    # A mask made from noise is dropout by hand.
    for value in flow.onward(draw.value, past=lambda op: op.name not in COMPARES):
        for op in flow.consumers.get(value.index, ()):
            if any(flow.posterior(v) and not flow.noise[v.index] & bit for v in op.reads):
                return op
    return None


def _noise_family(flow: Flow, draw: Draw, z: Value) -> str:
    """The noise of a sample: uniform noise becomes Laplace, Gumbel, … by what is done to it."""
    if draw.name in ("randn", "randn_like", "normal", "normal_", "numpy"):
        return "gaussian"
    way = flow.descendants(draw.value) & flow.ancestors(z)
    ops = [op for op in flow.recording.ops if op.makes and op.out.index in way]
    names = {op.name for op in ops}
    logs = [op for op in ops if op.name == "log"]
    nested = any(a.out.index in flow.ancestors(*b.reads) for a in logs for b in logs)
    if draw.name == "exponential_" or nested:
        return "gumbel"
    if "erfinv" in names:
        return "gaussian"
    if names & {"log", "log1p", "logit"}:
        return "laplace" if names & {"sign", "abs"} else "logistic"
    return "uniform"


def _add_location(flow: Flow, made: Value, bit: int) -> tuple[Value, Value | None]:
    """Follow `scale * eps` to the addition of the location."""
    value = made
    while True:
        for op in flow.consumers.get(value.index, ()):
            if not op.makes:
                continue
            others = [v for v in op.reads if not flow.noise[v.index] & bit]
            locations = [v for v in others if flow.posterior(v)]
            if op.name in ADDS and locations:
                return op.out, locations[0]
            constant = op.name in ADDS | MULS and not locations
            if op.name in RESHAPES or constant:
                value = op.out
                break
        else:
            return made, None


def _other_half(flow: Flow, z: Value, loc: Value, bit: int) -> Value:
    """The sum after the second part of a location: `noise + log(p) - log(1 - p)`, a logit."""
    first = head(flow, loc)
    for op in flow.consumers.get(z.index, ()):
        others = [v for v in op.reads if flow.posterior(v) and not flow.noise[v.index] & bit]
        if first is None or op.name not in ADDS or len(others) != 1 or not op.makes:
            continue
        second = head(flow, others[0])
        if second is not None and second.value is first.value:
            return op.out
    return z


def _with_heads(flow: Flow, latent: Latent) -> Latent:
    return replace(
        latent,
        loc_head=head(flow, latent.loc) if latent.loc is not None else None,
        scale_head=head(flow, latent.scale) if latent.scale is not None else None,
    )


def same_posterior(one: Latent, other: Latent) -> bool:
    """Whether two latents are draws of one posterior, as the K samples of a loop are."""
    heads = [(x.loc_head, x.scale_head) for x in (one, other)]
    values = [(a.value, b.value) for a, b in heads if a is not None and b is not None]
    alike = len(values) == 2 and all(a is b for a, b in zip(*values, strict=True))
    return one is other or (alike and one.family == other.family)
