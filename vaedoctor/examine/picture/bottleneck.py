"""The code of a deterministic autoencoder: the narrowest value through which all of x passes."""

from __future__ import annotations

from dataclasses import dataclass

from ..anatomy.anatomy import Anatomy
from ..anatomy.heads import head, path_of
from ..anatomy.unsampled import POSITIVE
from ..runs.naming import local_name
from ..runs.recording import Value


@dataclass(frozen=True, slots=True)
class Code:
    """The code, and whether it has fewer numbers a row than the input."""

    value: Value
    narrow: bool

    @property
    def name(self) -> str:
        """The user's name for it: the variable, or the layer that makes it."""
        made = self.value.op
        return local_name(self.value) or (path_of(made) if made is not None else "")

    @property
    def said(self) -> str:
        """How a sentence names it."""
        return f"`{self.name}`" if self.name else "one value"


def code(anatomy: Anatomy) -> Code | None:
    """The smallest layer output without which x_hat would not depend on x."""
    flow, x, x_hat = anatomy.flow, anatomy.x, anatomy.x_hat
    if x is None or x_hat is None:
        return None
    way = flow.descendants(x) & flow.ancestors(x_hat)
    made = [
        op.out
        for op in anatomy.recording.ops
        if op.makes
        and op.out.index in way
        and op.out is not x_hat
        and op.out.tensor.is_floating_point()
        and flow.layer(op)
        and flow.posterior(op.out)
    ]
    for value in sorted(made, key=lambda v: v.tensor.numel()):
        if x.index not in flow.ancestors(x_hat, stop=[value]):
            return Code(value, value.tensor.numel() < x.tensor.numel())
    return None


def noisy_code(anatomy: Anatomy, cut: Code | None) -> bool:
    """Whether noise comes in behind the code: noise on the input passes through it."""
    flow, x_hat = anatomy.flow, anatomy.x_hat
    assert x_hat is not None
    before = flow.noise[cut.value.index] if cut is not None else 0
    late = [d for d in flow.draws if flow.noise[x_hat.index] & ~before & (1 << d.bit)]
    inputs = anatomy.x.shape if anatomy.x is not None else ()
    return any(d.value.shape != inputs for d in late)


def unread_scale(anatomy: Anatomy) -> str:
    """The layer whose output is one part a code and one part a scale that x_hat does not read.

    As of a forward pass that decodes the mode of a posterior. Empty where there is none.
    """
    flow, x_hat = anatomy.flow, anatomy.x_hat
    behind = flow.ancestors(x_hat) if x_hat is not None else frozenset()
    for op in anatomy.recording.ops:
        if op.name not in POSITIVE or not op.reads or not op.makes or op.out.index in behind:
            continue
        scale = head(flow, op.reads[0]) if flow.posterior(op.reads[0]) else None
        if scale is None or scale.value is scale.op.out or scale.value.index in behind:
            continue
        siblings = [v for o in flow.consumers.get(scale.op.out.index, ()) for v in o.makes]
        if any(v.index in behind and v.shape == scale.value.shape for v in siblings):
            return f"`{scale.path}`" if scale.path else "the layer of the code"
    return ""
