"""The loss among the outputs of forward, found by what it is computed from."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from torch import Tensor, nn

from .trial import leaves

_REDUCTIONS = tuple("Mean Sum Mul Div Neg View Reshape Squeeze Unsqueeze Select".split())


def total_among(output: Any) -> tuple[Any, ...] | None:
    """The path to the one scalar that is computed from all that forward learned; None if none.

    A loss reaches every parameter that any other output reaches, and every other scalar (its
    terms) goes into it. A KL or a penalty does not reach the decoder, x_hat is no scalar.
    """
    learned = [(path, t) for path, t in leaves(output) if _trains(t)]
    scalars = [(path, t) for path, t in learned if t.numel() == 1]
    if not scalars or len(scalars) == len(learned):
        return None  # without x_hat beside it a penalty alone would look the same
    whole = _behind(t for _, t in learned)
    parameters = {node for node in whole if hasattr(node, "variable")}
    for path, scalar in scalars:
        behind = _behind([scalar])
        others = {t.grad_fn for _, t in scalars if t is not scalar}
        if parameters <= behind and others <= behind:
            return path
    return None


def is_whole(loss: Tensor, output: Any) -> bool:
    """Whether a loss reaches every parameter that the outputs beside it reach.

    The penalty of a codebook, returned as `loss` beside x_hat, knows nothing of the decoder.
    """
    others = _behind(t for _, t in leaves(output) if t is not loss and _trains(t))
    reached = _behind([loss])
    return all(node in reached for node in others if hasattr(node, "variable"))


def only_terms(value: Any) -> bool:
    """Whether a loss returns several terms and no total: no scalar is computed from the others."""
    scalars = [t for _, t in leaves(value) if _trains(t) and t.numel() == 1]
    ends = {t.grad_fn for t in scalars}
    return len(ends) > 1 and not any(_holds(_behind([t]), ends) for t in scalars)


def _holds(whole: set[Any], ends: set[Any]) -> bool:
    """Whether every term goes into a total, as it is or before its own reduction over the rows.

    As in `{"loss": (rec + kl).mean(), "kl": kl.mean()}`.
    """
    return all(not whole.isdisjoint(_reduced_from(end)) for end in ends)


def _reduced_from(node: Any) -> Iterator[Any]:
    """A node of autograd's graph, and what it is a mere sum, mean or multiple of."""
    while node is not None:
        yield node
        before = [n for n, _ in node.next_functions if n is not None]
        if len(before) != 1 or not node.name().startswith(_REDUCTIONS):
            return
        node = before[0]


def reached_by(loss: Tensor, model: nn.Module) -> set[int]:
    """The parameters of the model (their ids) from which a loss is computed.

    None where it is computed from another instance's: a function may hold the script's own.
    """
    own = {id(p) for p in model.parameters()}
    leaves = (getattr(node, "variable", None) for node in _behind([loss]))
    return {id(leaf) for leaf in leaves if leaf is not None} & own


def _trains(thing: Any) -> bool:
    return isinstance(thing, Tensor) and thing.is_floating_point() and thing.grad_fn is not None


def _behind(tensors: Iterable[Tensor]) -> set[Any]:
    """The nodes of autograd's graph that tensors are computed from."""
    seen: set[Any] = set()
    waiting: list[Any] = [t.grad_fn for t in tensors]
    while waiting:
        node = waiting.pop()
        if node is not None and node not in seen:
            seen.add(node)
            waiting.extend(following for following, _ in node.next_functions)
    return seen
