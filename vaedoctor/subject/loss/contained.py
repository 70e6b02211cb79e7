"""The loss among the outputs of forward, found by its name or by what it is computed from."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from ..code.source import Source, source_of, span_of
from ..subject import Batch, Objective
from ..trials.trial import items, leaves, pick
from .own_call import minimized_place
from .recipes import return_names

_KL = re.compile(r"(.*_)?kl(d|l)?_?(loss|div(ergence)?|term|z|out)?", re.IGNORECASE)
_TERMS = 16  # at most, of a loss; what is trained in the place of weights has more entries
_REDUCTIONS = tuple("Mean Sum Mul Div Neg View Reshape Squeeze Unsqueeze Select".split())


def returned_loss(model: nn.Module, output: Any) -> tuple[Objective | None, bool]:
    """A loss that forward itself returns, as an entry `loss` or as its only output.

    And whether it is all of the loss.
    """
    if _is_loss(output):
        origin = "found: forward returns the loss"
        return Objective(lambda m, b: b.run(m), "forward", origin), True
    for name, key, value in _named(model, output):
        if str(name).lower() in {"loss", "total_loss"} and _is_loss(value):
            origin = f"found: `{name}` in the output"
            at = span_of(type(model))
            return Objective(_entry(key), str(name), origin, at), is_whole(value, output)
    return None, False


def minimized_loss(model: nn.Module, output: Any, source: Source | None) -> Objective | None:
    """The output in an unnamed place from which the file goes backward."""
    own = source or source_of(getattr(type(model), "forward", None))
    if own is None or not isinstance(output, tuple | list):
        return None
    name, place = minimized_place(own, len(output)) or ("", 0)
    if not name or not _is_loss(output[place]):
        return None
    origin = f"found: `{name}.backward()` in {own.path.name}"
    return Objective(_entry(place), name, origin, span_of(type(model)))


def total_loss(model: nn.Module, output: Any) -> Objective | None:
    """The scalar output that is computed from all others, or alone and from every parameter."""
    path, of_what = total_among(output), "all others"
    if not path:
        path, of_what = _alone_among(model, output), "every parameter"
    if not path:
        return None
    shown = "".join(f"[{key!r}]" for key in path)
    origin = f"found: output {shown} is computed from {of_what}"
    at = span_of(type(model))
    return Objective(lambda m, b: pick(b.run(m), path), f"output{shown}", origin, at)


def returned_kl(model: nn.Module, output: Any, x: Any) -> Objective | None:
    """The KL that forward returns beside x_hat, with a squared error in the reconstruction's place.

    None unless both together reach every parameter of which anything that comes out is made. A KL
    is never negative: of one that is below 0 nothing tells whether the user subtracts it.
    """
    named = _named(model, output)
    terms = [(k, v) for n, k, v in named if _KL.fullmatch(n) and _is_loss(v)]
    like = [
        k
        for _, k, v in named
        if _trains(v) and isinstance(x, Tensor) and v is not x and v.numel() == x.numel() > 1
    ]
    if len(terms) != 1 or len(like) != 1 or not x.is_floating_point():
        return None
    (key, kl), place = terms[0], like[0]
    if kl.item() < 0:
        return None
    parts = dict(items(output))
    learned = [v for _, v in leaves(output) if _trains(v)]
    reached = reached_by(kl, model) | reached_by(parts[place], model)
    if not reached >= {p for v in learned for p in reached_by(v, model)}:
        return None

    def run(model: nn.Module, batch: Batch) -> Tensor:
        parts = dict(items(batch.run(model)))
        x = next(a for a in (*batch.args, *batch.kwargs.values()) if isinstance(a, Tensor))
        error = parts[place].reshape(x.shape) - x
        loss: Tensor = 0.5 * error.square().sum() / len(x) + parts[key].reshape(())
        return loss

    name = next(n for n, k, _ in named if k == key)
    origin = f"found: `{name}` in the output; a squared error stands in for the reconstruction"
    return Objective(run, name, origin, span_of(type(model)), stands_in=True)


def _named(model: nn.Module, output: Any) -> list[tuple[str, Any, Any]]:
    """The entries of the output: the name, the key and the value of each."""
    names = return_names(model)
    if isinstance(output, tuple | list) and len(names) == len(output):
        return [(str(n), i, v) for i, (n, v) in enumerate(zip(names, output, strict=True))]
    return [(str(k), k, v) for k, v in items(output)]


def total_among(output: Any) -> tuple[Any, ...] | None:
    """The path to the one scalar that is computed from all that forward learned; None if none.

    A loss reaches every parameter that any other output reaches, and every other scalar (its
    terms) goes into it, as it is or before its own reduction over the rows. A KL or a penalty does
    not reach the decoder, x_hat is no scalar.
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
        if parameters <= behind and _holds(behind, others):
            return path
    return None


def _alone_among(model: nn.Module, output: Any) -> tuple[Any, ...] | None:
    """The path to the only output that can train, a scalar that every parameter goes into.

    As in `return loss, {"kl": kl.item()}`. A penalty alone does not reach the decoder.
    """
    learned = [(path, t) for path, t in leaves(output) if _trains(t)]
    if len(learned) != 1 or learned[0][1].numel() != 1:
        return None
    path, scalar = learned[0]
    trainable = {id(p) for p in model.parameters() if p.requires_grad}
    return path if trainable and reached_by(scalar, model) >= trainable else None


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


def is_copied(loss: Tensor) -> bool:
    """Whether a loss asks for a gradient that ends in numbers that were copied: a new tensor.

    `torch.tensor([recon, kl], requires_grad=True).sum()`. A network of another model has
    parameters, and an input that is trained more entries than a loss has terms.
    """
    ends = [loss] if loss.is_leaf else [getattr(n, "variable", None) for n in _behind([loss])]
    found = [end for end in ends if isinstance(end, Tensor)]
    few = all(not isinstance(end, nn.Parameter) and end.numel() <= _TERMS for end in found)
    return bool(found) and loss.requires_grad and few


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


def _is_loss(value: Any) -> bool:
    return (
        isinstance(value, Tensor)
        and value.numel() == 1
        and value.is_floating_point()
        and value.requires_grad
        and torch.is_tensor(value)
    )


def _entry(key: Any) -> Callable[[nn.Module, Batch], Any]:
    def run(model: nn.Module, batch: Batch) -> Any:
        output = batch.run(model)
        return dict(items(output))[key]

    return run
