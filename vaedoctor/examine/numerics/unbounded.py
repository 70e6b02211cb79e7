"""What stands behind an operand that no bound holds: layers, and parameters of their own."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from ..runs.flow import Flow
from ..runs.recording import Op, Value

_PRODUCTS = frozenset("matmul mm bmm einsum".split())  # of two weights they are a weight
UNBOUNDED = frozenset(
    "linear conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d addmm "
    "matmul mm bmm bilinear layer_norm batch_norm group_norm multi_head_attention_forward "
    "embedding einsum".split()
)


def sources(
    flow: Flow, operand: Value, held: Callable[[Tensor], bool]
) -> tuple[list[Value], list[Value]]:
    """The nearest layers behind an operand that no bound holds, and bare parameters.

    Parameters that training does not move, or that are `held` positive, stay what they are.
    """
    waiting, seen = [operand], set[int]()
    layers: list[Value] = []
    numbers: list[Value] = []
    while waiting:
        value = waiting.pop()
        if value.index in seen:
            continue
        seen.add(value.index)
        op = value.op
        if op is None:
            moved = value.source == "parameter" and value.tensor.requires_grad
            if moved and not held(value.tensor):
                numbers.append(value)
        elif flow.layer(op) or (op.name not in _PRODUCTS and _weighs(op)):
            if op.name in UNBOUNDED and any(v.source == "parameter" for v in op.reads):
                layers.append(value)
        else:
            waiting.extend(flow.parents(value))
    return layers, numbers


def _weighs(op: Op) -> bool:
    """Whether a layer has weights beside its operand, which may be made of parameters alone.

    As where a prior is computed from a learned start that stands for no data.
    """
    weights = [v.source == "parameter" for v in op.reads]
    return op.name in UNBOUNDED and any(weights) and not all(weights)
