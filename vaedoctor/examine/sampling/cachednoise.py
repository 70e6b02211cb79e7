"""Constant tensors that serve as a draw: noise that was made once and is kept."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from torch import Tensor

from ..anatomy.anatomy import Anatomy
from ..anatomy.heads import head
from ..anatomy.unsampled import POSITIVE
from ..runs.flow import Flow
from ..runs.recording import Op, Value

_TIMES = ("mul", "mul_", "addcmul", "multiply")
_REGULAR = 1e-3
_PLUS = ("add", "add_", "sub", "sub_", "addcmul")


def cached_noise(anatomy: Anatomy) -> Iterator[tuple[Value, Op]]:
    """Constant tensors that look like a draw and serve as one: `mu + std * self.eps`.

    The constant has both signs, multiplies what is computed from one head and the product is
    added to what is computed from the other. A rotary embedding's tables meet no heads. Where the
    heads are not returned, the loss has to read both of them around the sum, and the second as the
    logarithm of a factor, as a KL does: the places that a transformer of pictures moves, which no
    layer reads, are none.
    """
    flow, pair = anatomy.flow, anatomy.unsampled
    heads = {pair.loc_head.value.index, pair.scale_head.value.index} if pair else set[int]()
    for op in flow.recording.ops:
        if op.name not in _TIMES or not op.makes:
            continue
        fused = op.name == "addcmul"
        factors = op.reads[1:] if fused else op.reads
        constants = [v for v in factors if _fixed(flow, v) and _looks_drawn(v.tensor)]
        spread = [v for v in factors if v not in constants]
        if not constants:
            continue
        for total in [op] if fused else flow.consumers.get(op.out.index, []):
            if not (fused or total.name in _PLUS) or not total.makes:
                continue
            others = op.reads[:1] if fused else [v for v in total.reads if v is not op.out]
            if pair is None:
                found = _scored(anatomy, spread, others, total.out)
            else:
                behind = heads & flow.ancestors(*spread)
                found = bool(behind and (heads - behind) & flow.ancestors(*others))
            if found:
                yield constants[0], op
                break


def _scored(anatomy: Anatomy, spread: list[Value], others: Sequence[Value], z: Value) -> bool:
    """Whether a decoded sum has a location and a scale head that the loss reads around it."""
    flow, loss = anatomy.flow, anatomy.recording.loss
    end = anatomy.recording.value_of(loss) if isinstance(loss, Tensor) else None
    if end is None or len(spread) != 1 or len(others) != 1:
        return False
    if not all(flow.posterior(v) for v in (*spread, *others)):
        return False
    scale, loc = head(flow, spread[0]), head(flow, others[0])
    if scale is None or loc is None or scale.value.shape != loc.value.shape:
        return False
    around = flow.ancestors(end, stop=[z])
    if scale.value is loc.value or not {scale.value.index, loc.value.index} <= around:
        return False
    grown = {op.out.index for op in flow.recording.ops if op.name in POSITIVE and op.makes}
    grown &= flow.descendants(scale.value)
    decoded = flow.descendants(z) & flow.ancestors(end if anatomy.x_hat is None else anatomy.x_hat)
    layers = {op.out.index for op in flow.recording.ops if op.makes and flow.layer(op)}
    return bool(grown & flow.ancestors(spread[0]) and grown & around and layers & decoded)


def _fixed(flow: Flow, value: Value) -> bool:
    return not (flow.data[value.index] or flow.learned[value.index] or flow.noise[value.index])


def _looks_drawn(tensor: Tensor) -> bool:
    t = tensor.detach()
    if t.dim() > 1 and bool((t == t[:1]).all()):
        t = t[:1]  # one draw that serves all rows
    if t.numel() < 3 or not t.is_floating_point():
        return False
    gaps = t.flatten().sort().values.diff()
    if bool((gaps - gaps.mean()).abs().max() <= _REGULAR * gaps.mean()):
        return False  # places on a line
    both_signs = bool((t > 0).any() and (t < 0).any())
    return both_signs and len(set(t.flatten().tolist())) > t.numel() // 2
