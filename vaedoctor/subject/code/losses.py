"""Functions that may be the loss: methods of the model, functions of its file, modules."""

from __future__ import annotations

import inspect
import re
import types
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from .callees import tree_of
from .roles import role
from .source import file_of, is_library, source_of
from .statements import is_costly

_LOSS = re.compile(
    r"(.*_)?(loss|losses|elbo|nelbo|criterion|objective|lossfn|lossfunction)"
    r"(_?(function|fn|func|vae|total|step|batch))?|loss_.*|training_step|(compute|calculate|get)_?loss",
    re.IGNORECASE,
)
_PARTIAL = re.compile(
    r"rec|kl|bce|mse|reg_|regular|perc|adv|gan|disc|class|mmd|focal|print|plot|log_loss|save|train_|test_|val"
    r"|huber|l1|l2|cross_entropy|backward",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Loss:
    """A function that may be the loss: how to get it from a model, and how it was found."""

    function: Callable[..., Any]
    name: str
    origin: str
    is_method: bool = False

    def of(self, model: nn.Module) -> Callable[..., Any]:
        """The callable; a method is looked up on the model that is examined."""
        if not self.is_method:
            return self.function
        method: Callable[..., Any] = getattr(model, self.name)
        return method


def as_loss(thing: Callable[..., Any], name: str = "") -> Loss:
    """The loss that the user named; of a module class an instance."""
    name = name or getattr(thing, "__name__", type(thing).__name__)
    if isinstance(thing, type) and issubclass(thing, nn.Module):
        made: Callable[..., Any] = thing()
        return Loss(made, name, "given")
    return Loss(thing, name, "given")


def underlying(function: Callable[..., Any]) -> Callable[..., Any]:
    """The plain function behind a method, a decorator or a module."""
    if isinstance(function, nn.Module):
        function = function.forward
    bare: Callable[..., Any] = inspect.unwrap(getattr(function, "__func__", function))
    return bare


def parameters_of(function: Callable[..., Any]) -> list[inspect.Parameter]:
    """The parameters of a loss, `self` left out."""
    if isinstance(function, nn.Module):
        function = function.forward
    try:
        return list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        return []


def wants_model(parameter: inspect.Parameter) -> bool:
    """Whether a parameter takes the model itself."""
    kind = parameter.annotation
    if isinstance(kind, type) and issubclass(kind, nn.Module):
        return True
    named = isinstance(kind, str) and kind.rpartition(".")[2] == "Module"
    return named or parameter.name.lower() in {"model", "net", "vae", "module", "network", "self"}


def names_outputs(parameters: list[inspect.Parameter]) -> bool:
    """Whether any parameter is called like an output of a VAE."""
    return any(role(p.name) in {"recon", "mu", "logvar", "z"} for p in parameters)


def is_total(name: str) -> bool:
    """Whether a name is that of a whole loss, not of one of its terms."""
    if not _LOSS.fullmatch(name) or name.startswith("__"):
        return False
    return not _PARTIAL.search(name) or "vae" in name.lower() or name == "training_step"


def candidates(model: nn.Module, namespace: Mapping[str, Any]) -> Iterator[Loss]:
    """Methods of the model and functions beside it whose names say that they are the loss."""
    seen: set[str] = set()
    for kind in type(model).__mro__:
        if is_library(kind):
            continue
        for name, thing in vars(kind).items():
            if inspect.isroutine(thing) and name not in seen and is_total(name):
                seen.add(name)
                yield Loss(getattr(model, name), name, f"found: method `{name}`", is_method=True)
    for name, thing in list(namespace.items()):
        if isinstance(thing, types.FunctionType) and name not in seen and is_total(name):
            beside = thing.__module__ == type(model).__module__  # of a library's model too
            if source_of(thing) is not None or beside:
                yield Loss(thing, name, f"found: `{name}` in {Path(file_of(thing)).name}")


def nameless(model: nn.Module, namespace: Mapping[str, Any]) -> Iterator[Loss]:
    """Functions beside the model that take its outputs, whatever they are called themselves.

    Those that load, write or train are left out, and those named after a term of a loss.
    """
    home = type(model).__module__
    for name, thing in list(namespace.items()):
        if not isinstance(thing, types.FunctionType) or thing.__module__ != home:
            continue
        parameters, tree = parameters_of(thing), tree_of(thing)
        if tree is None or is_total(name) or _PARTIAL.search(name):
            continue
        roles = {role(p.name) for p in parameters}
        if len(roles & {"recon", "mu", "logvar", "z"}) < 2 or wants_model(parameters[0]):
            continue
        source = source_of(thing)
        if source is not None and not any(is_costly(s) for s in tree.body):
            yield Loss(thing, name, f"found: `{name}` in {source.path.name}")
