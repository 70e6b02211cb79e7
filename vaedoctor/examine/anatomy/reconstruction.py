"""Which output is the reconstruction, and which input it stands for."""

from __future__ import annotations

from collections.abc import Set

import torch
from torch import Tensor

from ..runs.flow import RESHAPES, Flow
from ..runs.outputs import Output
from ..runs.recording import Op, Recording, Value
from .latents import MULS, Latent
from .moves import inputs_of, is_binary, moved_from, only_moved

CLASS_LOSSES = frozenset({"cross_entropy", "nll_loss"})
_LOSSES = ("_loss", "cross_entropy", "cross_entropy_with_logits")


def input_of(recording: Recording, flow: Flow, x_hat: Value | None) -> Value | None:
    """x: the input that x_hat is compared with, or else the one that is most like it."""
    inputs = inputs_of(recording)
    if not inputs:
        return None
    if x_hat is not None:
        if (target := _target(recording, flow, x_hat)) is not None:
            return target
        data = rebuilt(flow, inputs)
        alike = [v for v in data if v.shape == x_hat.shape]
        same = [v for v in data if v.tensor.numel() == x_hat.tensor.numel()]
        alike += sorted(same, key=lambda v: not v.tensor.is_floating_point())
        if alike:
            return alike[0]
    floating = [v for v in inputs if v.tensor.is_floating_point()]
    return (floating or inputs)[0]


def rebuilt(flow: Flow, inputs: list[Value]) -> list[Value]:
    """The inputs that a reconstruction can be like: of several no masks, lengths or tokens.

    A number of a token's own shape is no guess at it: that has a number for each of the words.
    """
    if len(inputs) < 2:
        return inputs
    looked_up = {
        v.index
        for op in flow.recording.ops
        if op.name == "embedding"
        for read in op.reads
        for v in [moved_from(flow, read, {i.index for i in inputs})]
        if v is not None
    }
    return [
        v
        for v in inputs
        if not _keeps_all(v.tensor) and v.index not in looked_up and not _is_a_number_each(v.tensor)
    ]


def _is_a_number_each(tensor: Tensor) -> bool:
    """Whether an input is a whole number for each row, as a length or a class is."""
    return not tensor.is_floating_point() and tensor.dim() == 1


def _keeps_all(tensor: Tensor) -> bool:
    """Whether an input says what counts: switches, or nothing but ones."""
    return tensor.dtype is torch.bool or (tensor.dim() > 0 and bool((tensor == 1).all()))


def _target(recording: Recording, flow: Flow, x_hat: Value) -> Value | None:
    """The input that the loss compares x_hat with, where the model is given it as well.

    Of a conditional model it is what is decoded, not the condition of the same shape.
    """
    raw = {v.index for v in inputs_of(recording)}
    behind = flow.ancestors(x_hat)
    made = _unshaped(flow, x_hat, RESHAPES)
    for value, op in compared_values(recording, flow, [x_hat]):
        roots = [moved_from(flow, v, raw) for v in op.reads]
        found = [v for v in roots if v is not None and v.index in behind]
        if value in (x_hat, made) and found:
            return found[0]
    return None


def reconstruction(
    recording: Recording, flow: Flow, outputs: list[Output], latents: list[Latent]
) -> tuple[Value | None, str]:
    """The output that stands for x: like x in shape, computed from the sample, compared with x.

    With the name under which forward returns it.
    """
    inputs = inputs_of(recording)
    data = rebuilt(flow, inputs)
    shapes = {v.shape for v in data}
    sizes = {v.tensor.numel() for v in data}
    drawn = {found.z.shape for found in latents}
    candidates = _candidates(flow, outputs, latents, inputs)
    partners, inside = _compared(recording, flow, candidates, latents)
    rank = _ranks(flow, partners, candidates, sizes)

    def order(o: Output) -> tuple[bool, bool, bool, bool, bool, bool, bool, int]:
        v = o.value
        return (
            v.index not in rank,
            not _deep(flow, v, latents),
            v.shape not in shapes,
            v.tensor.numel() not in sizes,
            not flow.noise[v.index],
            not v.tensor.requires_grad,
            v.shape in drawn and v.tensor.numel() not in sizes,  # the sample behind a flow
            -v.tensor.numel() if v.tensor.numel() not in sizes else 0,
        )

    if candidates:
        best = min(candidates, key=order)
        plausible = best.value.shape in shapes or best.value.tensor.numel() in sizes
        certain = plausible or best.value.index in rank
        if certain or (not partners and not inside and _deep(flow, best.value, latents)):
            return best.value, best.name
    if met := [value for value, _ in partners or inside]:
        alike = [v for v in met if v.tensor.numel() == met[0].tensor.numel()]
        sampled = [v for v in alike if _deep(flow, v, latents)]
        return (sampled or met)[0], "x_hat"  # of a likelihood's two parameters, what is decoded
    decoded = next((o for o in candidates if _from_location(flow, o.value, latents)), None)
    if latents and decoded is None:  # it depends on the weights alone, or on data alone (VAE402)
        blind = compared_values(recording, flow, of_data=False)
        if blind := blind or _undecoded(recording, flow, [found.z for found in latents]):
            return blind[0][0], "x_hat"
    return (decoded.value, decoded.name) if decoded is not None else (None, "")


def _candidates(
    flow: Flow, outputs: list[Output], latents: list[Latent], inputs: list[Value]
) -> list[Output]:
    """The outputs that layers compute, and that are no input or parameter of a latent again."""
    parameters = {v.index for found in latents for v in (found.loc, found.scale, found.z) if v}
    return [
        o
        for o in outputs
        if flow.learned[o.value.index]
        and o.value.tensor.is_floating_point()
        and not only_moved(flow, o.value, parameters)
        and not any(o.value.tensor is v.tensor for v in inputs)
        and o.value.tensor.dim() > 0
    ]


def _compared(
    recording: Recording, flow: Flow, candidates: list[Output], latents: list[Latent]
) -> tuple[list[tuple[Value, Op]], list[tuple[Value, Op]]]:
    """What is compared with the input by the loss, or else by a forward pass itself."""
    partners = compared_values(recording, flow)
    samples = [found.z for found in latents]
    if not candidates and not partners:  # forward returns only the loss
        partners = compared_values(recording, flow, samples)
    # A forward pass that returns densities compares the input with the decoder's output itself.
    inside = [] if partners or not latents else compared_values(recording, flow, samples)
    if latents and not partners and not inside:  # or what it decodes in place of the sample
        locations = [found.loc for found in latents if found.loc is not None]
        inside = compared_values(recording, flow, locations)
    return partners, inside


def _ranks(
    flow: Flow, partners: list[tuple[Value, Op]], candidates: list[Output], sizes: set[int]
) -> dict[int, int]:
    """Which values the loss compares first; also of what is compared step by step."""
    rank = {value.index: i for i, (value, _) in enumerate(partners)}
    made = {o.value.index for o in candidates}
    for i, (value, _) in enumerate(partners):  # step by step, of a series that lacks the first ones
        whole = moved_from(flow, value, made)
        if whole is not None and value.tensor.numel() not in sizes:
            rank.setdefault(whole.index, i)
    return rank


def _undecoded(recording: Recording, flow: Flow, samples: list[Value]) -> list[tuple[Value, Op]]:
    """What a loss inside forward compares with the encoded input.

    Nothing that layers make of a sample may reach the loss.
    """
    loss = recording.loss
    end = recording.value_of(loss) if isinstance(loss, Tensor) else None
    if end is None:
        return []
    decoded = flow.descendants(*samples) & flow.ancestors(end)
    if any(op.makes and op.out.index in decoded and flow.layer(op) for op in recording.ops):
        return []
    encoded = {v.index for v in inputs_of(recording)} & flow.ancestors(*samples)
    return [
        (value, op)
        for value, op in compared_values(recording, flow, [])
        if op.name.endswith(_LOSSES) and any(only_moved(flow, v, encoded) for v in op.reads)
    ]


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
    inputs = inputs_of(recording)
    raw = {v.index for v in inputs if len(inputs) == 1 or not _keeps_all(v.tensor)}
    lengths = {v.index for v in inputs if len(inputs) > 1 and _is_a_number_each(v.tensor)}
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
        given = raw - lengths if op.name in MULS else raw
        plain = [v for v in op.reads if only_moved(flow, v, given)]
        learned = [v for v in op.reads if (flow.posterior(v) if of_data else flow.learned[v.index])]
        if plain and learned and _entry_by_entry(op, learned[0].tensor, plain[0].tensor, draws):
            through = {*RESHAPES, "log"} if op.name in MULS else RESHAPES  # `x * x_hat.log()`
            found.append((_unshaped(flow, learned[0], through), op))
    compared = [(value, op) for value, op in found if not _masks(op, raw, flow)]
    found = compared or found
    made = flow.ancestors(*(value for value, _ in found))
    return [(value, op) for value, op in found if op.out.index not in made] or found


def _unshaped(flow: Flow, value: Value, through: Set[str]) -> Value:
    """What a value was before operations that only give it another shape, or are of such a name."""
    while value.op is not None and value.op.name in through:
        value = flow.parents(value)[0]
    return value


def _masks(op: Op, raw: set[int], flow: Flow) -> bool:
    """Whether an operation multiplies by an input of zeros and ones, or a row's sum by a weight."""
    given = [v.tensor for v in op.reads if only_moved(flow, v, raw)]
    of_rows = all(v.tensor.dim() < 2 for v in op.reads)
    return op.name in MULS and (of_rows or all(map(is_binary, given)))


def _entry_by_entry(op: Op, made: Tensor, given: Tensor, draws: Set[int]) -> bool:
    """Whether there is a number for every entry of the input, or for each class it may be.

    Of several `draws` that stand in front, the input is compared with each, and so it is where it
    is spread along one axis behind the rows.
    """
    if not given.numel():
        return False
    each = 1
    if made.dim() == given.dim() and made.shape[:1] == given.shape[:1]:
        apart = [(m, g) for m, g in zip(made.shape, given.shape, strict=True) if m != g]
        each = apart[0][0] if len(apart) == 1 and apart[0][1] == 1 else 1
    if made.dim() == given.dim() + 1 and made.shape[1:] == given.shape and made.shape[0] in draws:
        each = made.shape[0]
    if op.name in CLASS_LOSSES and not given.is_floating_point() and made.dim():
        each = made.shape[min(1, made.dim() - 1)]
    return made.numel() == given.numel() * each
