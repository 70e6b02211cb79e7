"""What a decoder may know of x around the sample: a summary, guessed classes, x under noise."""

from __future__ import annotations

from ..anatomy.latents import ADDS
from ..runs.flow import RESHAPES, SLICES, Flow
from ..runs.recording import Value


def statistics(flow: Flow, x: Value) -> list[Value]:
    """One number a row computed from x without weights: a library size, a norm, a length."""
    rows = x.shape[0] if x.shape else 0
    return [
        v
        for v in flow.recording.values
        if flow.data[v.index]
        and not flow.learned[v.index]
        and v.op is not None
        and 0 < v.tensor.numel() <= rows < x.tensor.numel()
    ]


def summaries(flow: Flow, x: Value) -> list[Value]:
    """Smaller pictures of all of x computed without weights: its grey, its coarse version.

    They are half as large as x at most; a part that is cut out of x is none.
    """
    size = x.tensor.numel()
    return [
        op.out
        for op in flow.recording.ops
        if op.makes
        and op.name not in RESHAPES | SLICES
        and flow.data[op.out.index]
        and not flow.learned[op.out.index]
        and 2 * op.out.tensor.numel() <= size
        and any(flow.data[v.index] and v.tensor.numel() >= size for v in op.reads)
    ]


def noised(flow: Flow, x: Value) -> list[Value]:
    """Sums of x and noise of its shape, weighed by a level that is drawn, as diffusion does."""
    found = []
    for op in flow.recording.ops:
        mixes = op.name in ADDS | {"lerp"} and op.makes and op.out.shape == x.shape
        if not mixes or flow.learned[op.out.index]:
            continue
        given = [v for v in op.reads if flow.data[v.index]]
        drawn = [v for v in op.reads if flow.noise[v.index] and not flow.data[v.index]]
        level = len(drawn) > 1 or any(flow.noise[v.index] for v in given)
        if given and level and any(v.shape == x.shape for v in drawn):
            found.append(op.out)
    return found


def classes(flow: Flow, x: Value) -> list[Value]:
    """Probabilities of a few classes a row, as a classifier gives them where no label is known."""
    rows = x.shape[0] if x.shape else 0
    return [
        op.out
        for op in flow.recording.ops
        if op.name == "softmax"
        and op.makes
        and flow.posterior(op.out)
        and len(op.out.shape) == 2
        and op.out.shape[0] == rows
        and 2 * op.out.tensor.numel() <= x.tensor.numel()
    ]
