"""The terms of the loss that see the latent and not the reconstruction, and what they do."""

from __future__ import annotations

from collections.abc import Iterator, Set
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from torch import Tensor

from ..runs.flow import Flow
from ..runs.recording import Op, Value
from .anatomy import Anatomy
from .pinning import pair_layers

if TYPE_CHECKING:
    pass


_ELEMENTWISE = frozenset(
    "add sub mul div add_ sub_ mul_ div_ rsub xlogy mse_loss l1_loss smooth_l1_loss kl_div "
    "binary_cross_entropy binary_cross_entropy_with_logits gaussian_nll_loss poisson_nll_loss "
    "pow".split()
)
_MIXES = frozenset("logsumexp log_softmax softmax logaddexp".split())


@dataclass
class Terms:
    """The part of the loss that does not pass through x_hat, as seen from a latent or code."""

    anatomy: Anatomy
    loss: Value
    code: Value

    @property
    def flow(self) -> Flow:
        """What depends on what in the run."""
        return self.anatomy.flow

    @cached_property
    def behind(self) -> frozenset[int]:
        """What the loss reads on ways around x_hat."""
        x_hat = self.anatomy.x_hat
        stop = [x_hat] if x_hat is not None else []
        return self.flow.ancestors(self.loss, stop=stop)

    @cached_property
    def after(self) -> Set[int]:
        """What is computed from the code for those terms, and not to be decoded.

        Scores of edges, or of other pairs that the batch names, are decoded beside x_hat.
        """
        pairs = [m for op in pair_layers(self.flow, self.code, self.loss) for m in op.makes]
        x_hat = [self.anatomy.x_hat] if self.anatomy.x_hat is not None else []
        behind = self.behind
        if pairs:
            behind = self.flow.ancestors(self.loss, stop=[*x_hat, *pairs])
        compared = self.flow.descendants(*x_hat, *pairs) if x_hat or pairs else set()
        around = set(behind) - self._decoded - {self.code.index}
        return (self.flow.descendants(self.code) & around) - compared

    @cached_property
    def _decoded(self) -> frozenset[int]:
        x_hat = self.anatomy.x_hat
        return self.flow.ancestors(x_hat) if x_hat is not None else frozenset()

    def ops(self) -> Iterator[Op]:
        """The operations on the code that belong to those terms."""
        for op in self.anatomy.recording.ops:
            if op.makes and any(m.index in self.after for m in op.makes):
                yield op

    def layers(self) -> list[Op]:
        """Learned layers that the code passes through on its way to the loss alone."""
        own = self.flow.ancestors(self.code)
        return [
            op
            for op in self.ops()
            if self.flow.layer(op)
            and op.name not in _MIXES
            and any(v.index in self.after or v is self.code for v in op.reads)
            and any(
                v.source in ("parameter", "stray") and v.index not in own for v in self._leaves(op)
            )
            and is_product(op)
            and not self._predicts(op)
        ]

    def decodes(self, op: Op) -> bool:
        """Whether a layer makes x_hat too, as where the decoder's own gradient is penalized."""
        learned = (v.index for v in self._leaves(op) if v.source in ("parameter", "stray"))
        return any(i in self._decoded for i in learned)

    def keeps_its_size(self, layers: list[Op]) -> bool:
        """Whether the code comes out of layers in its own shape, as from a flow."""
        made = self.flow.descendants(*(op.out for op in layers))
        values = self.anatomy.recording.values
        return any(values[i].shape == self.code.shape for i in made & self.after)

    def foretells(self, layers: list[Op]) -> bool:
        """Whether what the layers make meets a sample, or its heads, that they did not make."""
        made = self.flow.descendants(*(op.out for op in layers))
        heads = [v for f in self.anatomy.latents for v in (f.loc, f.scale) if v is not None]
        bare = self.flow.descendants(self.code, *heads) | {self.code.index}
        return any(
            op.name in _ELEMENTWISE
            and any(r.index in made for r in op.reads)
            and any(r.index in bare - made and r.shape[1:] for r in op.reads)
            for op in self.ops()
        )

    def _predicts(self, op: Op) -> bool:
        """Whether what a layer makes is compared with data: a second decoder, a classifier."""
        after = self.flow.descendants(op.out)
        latent = self.flow.descendants(self.code)
        for reader in self.anatomy.recording.ops:
            made = [v for v in reader.reads if v.index in after]
            others = (v for v in reader.reads if v.index not in latent)
            if made and any(self._is_target(v, made[0]) for v in others):
                return True
        return False

    def _is_target(self, value: Value, made: Value) -> bool:
        """Whether a value is data, or features of data, that a prediction is compared with.

        Labels that the objective holds count: one a row, which a judge's verdicts are not.
        """
        rows = self.code.shape[0] if self.code.shape else 0
        features = self.flow.data[value.index] and value.tensor.numel() > rows
        leaves = (self.anatomy.recording.values[i] for i in self.flow.ancestors(value))
        given = [v for v in leaves if v.op is None and v.source in ("input", "condition")]
        label = bool(given) and not self.flow.learned[value.index]
        held = value.op is None and value.source == "constant" and value.shape[:1] == (rows,)
        label = label or (held and bool((value.tensor != value.tensor[:1]).any()))
        return label or (features and value.tensor.numel() == made.tensor.numel())

    def _leaves(self, op: Op) -> Iterator[Value]:
        for read in op.reads:
            if not self.flow.data[read.index]:
                for i in self.flow.ancestors(read):
                    yield self.anatomy.recording.values[i]

    def parameters(self) -> list[Value]:
        """Parameters that meet the posterior in those terms and that nothing else is made from."""
        heads = [v for f in self.anatomy.latents for v in (f.loc, f.scale, f.z) if v is not None]
        own = self.flow.ancestors(*heads, self.code) | self._decoded
        x_hat = self.anatomy.x_hat
        compared = self.flow.descendants(x_hat) if x_hat is not None else set()
        near = self.flow.descendants(*heads) & set(self.behind)
        made = [
            op.out
            for op in self.anatomy.recording.ops
            if op.makes
            and op.out.index in near
            and (op.out.index in self.after or (is_product(op) and op.out.index not in own))
            and self.flow.layer(op)
            and self._predicts(op)
        ]
        if made:  # a second decoder, or a projection onto given features
            compared = compared | self.flow.descendants(*made)
        met = near - self._decoded - compared
        values = self.anatomy.recording.values
        behind = self.flow.ancestors(*(values[i] for i in met)) if met else frozenset()
        return [
            v
            for v in values
            if v.source in ("parameter", "stray")
            and v.op is None
            and v.requires_grad
            and v.index in behind - own
        ]


def is_product(op: Op) -> bool:
    """Whether an operation mixes entries, as products of matrices and layers do."""
    return op.name not in _ELEMENTWISE


def terms_of(anatomy: Anatomy, code: Value) -> Terms | None:
    """Those of the loss as seen from a latent or code; None where there is no loss to read."""
    loss = anatomy.recording.loss
    if not isinstance(loss, Tensor) or not loss.requires_grad:
        return None
    end = anatomy.recording.value_of(loss)
    return Terms(anatomy, end, code) if end is not None else None
