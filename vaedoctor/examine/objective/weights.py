"""Settings of the model that weigh the loss, and whether they do anything."""

from __future__ import annotations

import argparse
import ast
import dataclasses
import re
import types
from collections.abc import Callable, Iterator, MutableMapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from ...finding import Span
from ...subject.subject import Subject
from ..code.listing import Method, assigned_at, is_own_code, methods_of, span_in, tree_of
from ..runs.recording import Recording
from ..runs.step import run_recorded

_WEIGHT = re.compile(
    r"(.*_)?(beta|kld?_?(weight|coeff?|coefficient|scale|lambda|factor)|(lambda|weight)_?kld?)"
)
_TERM = r"(.*_)?(loss|rec(on(struction)?)?|mse|nll|bce|elbo|commit(ment)?)"
_OF_A_TERM = re.compile(rf"{_TERM}_?(weight|coeff?|coefficient|scale|lambda|factor)")


@dataclass(frozen=True, slots=True)
class DeadWeight:
    """A number on the model, named like a loss weight, that changes nothing when doubled.

    `of_kl` says that the name is that of a KL's weight, and not of another term's.
    """

    name: str
    value: float
    at: Span | None
    of_kl: bool


@dataclass(frozen=True, slots=True)
class _Kept:
    """A number by a name, on a module or in a container that it keeps as `container`."""

    module: nn.Module
    holder: Any
    name: str
    value: float
    container: str = ""

    def set(self, value: float) -> None:
        if isinstance(self.holder, MutableMapping):
            self.holder[self.name] = value
        else:
            setattr(self.holder, self.name, value)

    @property
    def now(self) -> Any:
        held = self.holder
        return held[self.name] if isinstance(held, MutableMapping) else getattr(held, self.name)

    @property
    def at(self) -> Span | None:
        for method in methods_of(type(self.module)) if self.container else ():
            for node in ast.walk(method.node):
                if isinstance(node, ast.keyword) and node.arg == self.name:
                    return span_in(method, node.value)
        return assigned_at(type(self.module), self.container or self.name)


def dead_weights(
    subject: Subject, recording: Recording, seed: int, rewind: Callable[[], None]
) -> Iterator[DeadWeight]:
    """Double every such attribute on its own and run the same step again.

    The bounds of a schedule (`beta_max`, or what another weight is made from) and what the step
    itself sets are no weights. A weight in a container, and one that is not called the KL's, is
    one only if no code reads it: others may be for another step.
    """
    for kept in _kept(subject.model):
        with suppress(AttributeError, TypeError):  # a frozen configuration
            if _is_dead(kept, subject, recording, seed, rewind):
                of_kl = _WEIGHT.fullmatch(kept.name.lower()) is not None
                yield DeadWeight(kept.name, float(kept.value), kept.at, of_kl)


def loss_weights(model: nn.Module) -> dict[str, float]:
    """The numbers on a model that are named like the weight of its KL."""
    return {
        name: float(value)
        for module in model.modules()
        for name, value in (vars(module).items() if is_own_code(type(module)) else ())
        if _is_number(value) and _WEIGHT.fullmatch(name.lower())
    }


def _is_dead(
    kept: _Kept, subject: Subject, recording: Recording, seed: int, rewind: Callable[[], None]
) -> bool:
    # a small weight of a small term is lost in the last digit of the sum when doubled
    factors = (2, 2**20) if isinstance(kept.value, float) else (2,)
    for factor in factors:
        try:
            kept.set(factor * kept.value)
            other = run_recorded(subject, seed=seed)
            remains = kept.now == factor * kept.value  # a schedule sets it anew
        finally:
            kept.set(kept.value)
            rewind()
        if not remains or other.error is not None:
            return False
        if not torch.equal(other.loss.detach(), recording.loss.detach()):
            return False
    return True


def _kept(model: nn.Module) -> Iterator[_Kept]:
    for module in model.modules():
        if not is_own_code(type(module)):
            continue  # the `beta` of an `nn.Softplus` is its slope
        for attribute, value in list(vars(module).items()):
            container = attribute.lstrip("_")
            found = [_Kept(module, value, n, v, container) for n, v in _numbers_in(value)]
            for kept in [_Kept(module, module, attribute, value)] if _is_number(value) else found:
                of_kl = _WEIGHT.fullmatch(kept.name.lower())
                direct = of_kl and not kept.container
                if (direct and not _bounds_another(module, kept.name)) or (
                    (of_kl or _OF_A_TERM.fullmatch(kept.name.lower()))
                    and not _is_read(module, kept.name, kept.container or kept.name)
                ):
                    yield kept


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value != 0


def _numbers_in(value: Any) -> list[tuple[str, float]]:
    """The numbers in a configuration: a namespace, a dict, a dataclass's instance."""
    held: Any = {}
    if isinstance(value, MutableMapping):
        held = dict(value)
    elif isinstance(value, argparse.Namespace | types.SimpleNamespace) or (
        dataclasses.is_dataclass(value) and not isinstance(value, type)
    ):
        held = getattr(value, "__dict__", {})
    return [(k, v) for k, v in held.items() if isinstance(k, str) and _is_number(v)]


def _bounds_another(module: nn.Module, name: str) -> bool:
    """Whether a method makes another weight from this one: `self.beta = min(t, self.most_beta)`."""
    for method in methods_of(type(module)):
        for node in ast.walk(method.node):
            match node:
                case (
                    ast.Assign(targets=[ast.Attribute(attr=made)], value=value)
                    | ast.AugAssign(target=ast.Attribute(attr=made), value=value)
                ) if made != name and _WEIGHT.fullmatch(made.lower()):
                    read = (n.attr for n in ast.walk(value) if isinstance(n, ast.Attribute))
                    if name in read:
                        return True
    return False


def _is_read(module: nn.Module, name: str, kept_as: str) -> bool:
    """Whether any code may read a setting: by its name, or as a part of what is handed on whole.

    That the constructor stores it, as `kept_as`, is no use of it.
    """
    methods = methods_of(type(module))
    for file in {m.file for m in methods}:
        tree = tree_of(file)
        around = {id(c): n for n in ast.walk(tree) for c in ast.iter_child_nodes(n)}
        for node in ast.walk(tree):
            match node:
                case ast.Attribute(attr=attr, ctx=ast.Load()) if attr == name:
                    return True
                case ast.Constant(value=text) if text == name:
                    return True
                case ast.Attribute(attr=attr, ctx=ast.Load()) if attr == kept_as:
                    if not isinstance(around.get(id(node)), ast.Attribute | ast.Subscript):
                        return True  # `criterion(self.hparams)`, `**self.hparams`
    return any(_passes_on(m, name, kept_as) for m in methods)


def _passes_on(method: Method, name: str, kept_as: str) -> bool:
    """Whether a method does more with its parameter than to store it.

    With the setting itself anything, with the configuration that holds it: hand it on whole.
    """
    stored = {
        id(n)
        for s in ast.walk(method.node)
        if isinstance(s, ast.Assign | ast.AnnAssign | ast.Expr) and _stores(s, name, kept_as)
        for n in ast.walk(s)
    }
    in_part = {
        id(n.value)
        for n in ast.walk(method.node)
        if isinstance(n, ast.Attribute | ast.Subscript) and name != kept_as
    }
    return any(
        isinstance(n, ast.Name)
        and isinstance(n.ctx, ast.Load)
        and (n.id == name or (n.id == kept_as and id(n) not in in_part))
        for n in ast.walk(method.node)
        if id(n) not in stored
    )


def _stores(statement: ast.stmt, name: str, kept_as: str) -> bool:
    """`self.hparams = Namespace(beta=beta)`, `self.save_hyperparameters(...)`, `self.w = w`."""
    match statement:
        case ast.Assign(targets=[target]) | ast.AnnAssign(target=target):
            kept = isinstance(target, ast.Attribute) and target.attr.lstrip("_") == kept_as
            plain = kept_as != name or isinstance(statement.value, ast.Name)
            return kept and plain
        case ast.Expr(ast.Call(ast.Attribute(attr="save_hyperparameters"))):
            return True
    return False
