"""Which loss trains the model: given, inside the output, a method, or a function of the file."""

from __future__ import annotations

import inspect
import re
import types
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from ..spelling import did_you_mean
from .binding import (
    Binding,
    Recipe,
    Unbound,
    by_names,
    by_own_call,
    minimized_place,
    model_first,
    own_use,
    return_names,
    role,
)
from .errors import TargetError, summary
from .source import Source, source_of, span_of
from .subject import Batch, Objective
from .trial import attempt, items

_TOTAL_KEYS = ("loss", "total_loss", "total", "objective", "elbo", "nelbo", "negative_elbo")
_LOSS = re.compile(
    r"(.*_)?(loss|losses|elbo|nelbo|criterion|objective|lossfn|lossfunction)"
    r"(_?(function|fn|func|vae|total|step|batch))?|loss_.*|training_step|(compute|calculate|get)_?loss",
    re.IGNORECASE,
)
_PARTIAL = re.compile(
    r"rec|kl|bce|mse|reg_|perc|adv|gan|disc|class|mmd|focal|print|plot|log_loss|save|train_|test_|val"
    r"|huber|l1|l2|cross_entropy|backward",
    re.IGNORECASE,
)


def total(value: Any) -> Tensor:
    """The scalar of whatever a loss returns; `ValueError` says what it returned instead.

    A tensor is itself; of a mapping or record the entry `loss`, `total_loss`, ...; of a tuple the
    first scalar that requires a gradient.
    """
    if isinstance(value, Tensor):
        if value.numel() != 1:
            raise ValueError(f"the loss is not a scalar: its shape is {list(value.shape)}")
        return _scalar(value)
    entries = items(value)
    named = {str(k).lower(): v for k, v in entries}
    loss = getattr(value, "loss", None)
    for candidate in (*(named.get(k) for k in _TOTAL_KEYS), loss):
        if isinstance(candidate, Tensor):
            return total(candidate)
    scalars = [v for _, v in entries if isinstance(v, Tensor) and v.numel() == 1]
    for scalar in sorted(scalars, key=lambda s: not s.requires_grad):
        return _scalar(scalar)
    if entries:
        shapes = ", ".join(str(list(v.shape)) for _, v in entries if isinstance(v, Tensor))
        found = f"tensors of shape {shapes}" if shapes else "no tensor"
        raise ValueError(f"the loss holds no scalar: it returned {found}")
    raise ValueError(f"the loss is not a tensor: it returned `{type(value).__name__}`")


def _scalar(value: Tensor) -> Tensor:
    return value if value.dim() == 0 else value.reshape(())


def find_objective(
    model: nn.Module,
    batch: Batch,
    given: Callable[..., Any] | str | None = None,
    *,
    source: Source | None = None,
    namespace: Mapping[str, Any] | None = None,
    seed: int = 0,
) -> tuple[Objective | None, tuple[str, ...]]:
    """The objective and notes about the search; None when the loss must be composed."""
    finder = _Finder(model, batch, source, namespace or {}, seed)
    if isinstance(given, Objective):
        return given, ()
    if given is not None:
        return finder.given(given), ()
    return finder.found()


@dataclass(frozen=True, slots=True)
class _Loss:
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


@dataclass(frozen=True, slots=True)
class _Tried:
    """An objective with how its trial ended."""

    objective: Objective
    works: bool
    own_call: bool
    loss: _Loss
    error: BaseException | None = None
    trains: bool = False


class _Finder:
    def __init__(
        self,
        model: nn.Module,
        batch: Batch,
        source: Source | None,
        namespace: Mapping[str, Any],
        seed: int,
    ) -> None:
        self.model = model
        self.batch = batch
        self.source = source
        self.namespace = namespace
        self.seed = seed
        self._output: Any = None

    def output(self) -> Any:
        """The output of one guarded forward pass; None when it raises."""
        if self._output is None and self.batch.ran:
            batch, model = self.batch, self.model
            self._output = attempt(lambda: batch.run(model), model, seed=self.seed).value
        return self._output

    def given(self, thing: Callable[..., Any] | str) -> Objective:
        """The objective the user named; `TargetError` when a parameter cannot be bound."""
        loss = self._named(thing) if isinstance(thing, str) else _as_loss(thing)
        if not self.batch.ran:
            return self._objective(loss, self._lazy(loss))
        tried = []
        unbound: Unbound | None = None
        for recipe in self._recipes(loss, given=True):
            if isinstance(recipe, Unbound):
                unbound = unbound or recipe
                continue
            tried.append(self._try(loss, recipe))
            if tried[-1].works:
                return tried[-1].objective
        # A bound loss that raises is for the examination to explain; one with a guess is not.
        certain = [t for t in tried if t.own_call or unbound is None]
        if certain:
            return certain[0].objective
        raise _cannot_bind(loss, unbound, tried[0].error if tried else None)

    def found(self) -> tuple[Objective | None, tuple[str, ...]]:
        """The plain objective of the model or its file."""
        if not self.batch.ran:
            return None, ()
        contained = self._contained()
        if contained is not None:
            return contained, ()
        tried = [t for loss in self._candidates() if (t := self._best(loss)) is not None]
        works = [t for t in tried if t.works and (t.trains or t.own_call)]
        called = [t for t in works if t.own_call]
        for choice in (called, works):
            if len(choice) == 1:
                return choice[0].objective, ()
        if len(called) > 1:
            return called[0].objective, ()
        if works:
            names = ", ".join(f"`{t.loss.name}`" for t in works)
            return None, (f"several losses run ({names}): name one with `--objective`",)
        # The loss that the file itself calls and that raises is for the examination to explain.
        raising = [t for t in tried if t.own_call and t.error is not None]
        if len(raising) == 1:
            return raising[0].objective, ()
        for t in tried:
            if t.error is not None:
                return None, (f"`{t.loss.name}` raised {summary(t.error)} and is not used",)
        return None, ("no loss found: reconstruction + KL stand in, `--objective` names yours",)

    def _best(self, loss: _Loss) -> _Tried | None:
        first: _Tried | None = None
        for recipe in self._recipes(loss, given=False):
            if isinstance(recipe, Unbound):
                continue
            tried = self._try(loss, recipe)
            if tried.works and (tried.trains or tried.own_call):
                return tried
            first = first or tried
        return first

    def _try(self, loss: _Loss, recipe: Recipe) -> _Tried:
        objective = self._objective(loss, recipe)
        batch, model = self.batch, self.model
        trial = attempt(lambda: objective.run(model, batch), model, seed=self.seed)
        if not trial.ran:
            return _Tried(objective, False, recipe.own_call, loss, trial.error)
        try:
            scalar = total(trial.value)
        except ValueError as error:
            return _Tried(objective, False, recipe.own_call, loss, error)
        return _Tried(objective, True, recipe.own_call, loss, None, scalar.requires_grad)

    def _objective(self, loss: _Loss, recipe: Recipe) -> Objective:
        def run(model: nn.Module, batch: Batch) -> Any:
            output = batch.run(model) if recipe.needs_output else None
            args, kwargs = recipe.arguments(model, batch, output)
            value = loss.of(model)(*args, **kwargs)
            return -total(value) if recipe.negated else value

        return Objective(run, loss.name, loss.origin, span_of(_underlying(loss.function)))

    def _recipes(self, loss: _Loss, *, given: bool) -> Iterator[Recipe | Unbound]:
        """Ways to call the loss, the best evidence first."""
        function = _underlying(loss.function)
        parameters = _parameters(loss.function)
        binding = Binding(self.model, self.batch, self.output(), return_names(self.model))
        takes_model = bool(parameters) and _wants_model(parameters[0])
        if takes_model:
            ways = [model_first(), by_names(function, parameters, binding)]
            yield from reversed(ways) if _names_outputs(parameters[1:]) else ways
            return
        sources = [s for s in (self.source, source_of(function)) if s is not None]
        for source in {s.path: s for s in sources}.values():
            own = by_own_call(
                source, loss.name, parameters, binding, self.namespace, is_method=loss.is_method
            )
            if own is not None:
                yield own
        named = by_names(function, parameters, binding)
        used, negated = own_use(sources, loss.name)
        if used and isinstance(named, Recipe):
            named = replace(named, own_call=True, negated=negated)
        yield named
        if given:
            yield model_first()

    def _lazy(self, loss: _Loss) -> Recipe:
        """Bind when the forward pass comes to its end, which it did not do so far."""
        parameters = _parameters(loss.function)
        if parameters and _wants_model(parameters[0]) and not _names_outputs(parameters[1:]):
            return model_first()
        function, names = _underlying(loss.function), return_names(self.model)

        def arguments(model: nn.Module, batch: Batch, output: Any) -> Any:
            recipe = by_names(function, parameters, Binding(model, batch, output, names))
            if isinstance(recipe, Unbound):
                raise _cannot_bind(loss, recipe, None)
            return recipe.arguments(model, batch, output)

        return Recipe(arguments)

    def _contained(self) -> Objective | None:
        """A loss that forward itself returns, as an entry `loss` or as its only output."""
        output = self.output()
        if _is_loss(output):
            return Objective(lambda m, b: b.run(m), "forward", "found: forward returns the loss")
        named: list[tuple[Any, Any, Any]] = [(k, k, v) for k, v in items(output)]
        names = return_names(self.model)
        if isinstance(output, tuple | list) and len(names) == len(output):
            named = [(str(n), i, v) for i, (n, v) in enumerate(zip(names, output, strict=True))]
        for name, key, value in named:
            if str(name).lower() in {"loss", "total_loss"} and _is_loss(value):
                return Objective(
                    _entry(key),
                    str(name),
                    f"found: `{name}` in the output",
                    span_of(type(self.model)),
                )
        own = self.source or source_of(type(self.model).forward)
        if own is None or not isinstance(output, tuple | list):
            return None
        name, place = minimized_place(own, len(output)) or ("", 0)
        if not name or not _is_loss(output[place]):
            return None
        origin = f"found: `{name}.backward()` in {own.path.name}"
        return Objective(_entry(place), name, origin, span_of(type(self.model)))

    def _candidates(self) -> Iterator[_Loss]:
        seen: set[str] = set()
        for kind in type(self.model).__mro__:
            if kind.__module__.startswith(("torch.", "lightning", "pytorch_lightning", "builtins")):
                continue
            for name, thing in vars(kind).items():
                if inspect.isroutine(thing) and name not in seen and _is_total(name):
                    seen.add(name)
                    yield _Loss(
                        getattr(self.model, name), name, f"found: method `{name}`", is_method=True
                    )
        for name, thing in list(self.namespace.items()):
            if isinstance(thing, types.FunctionType) and name not in seen and _is_total(name):
                source = source_of(thing)
                if source is not None:
                    yield _Loss(thing, name, f"found: `{name}` in {source.path.name}")

    def _named(self, name: str) -> _Loss:
        if ":" in name:
            from .target import load_object

            thing = load_object(name)
            if not callable(thing):
                raise TargetError(
                    f"`--objective {name}` is not a function",
                    next_step="--objective losses.py:loss_function",
                )
            return _as_loss(thing)
        bare = name.removeprefix("self.").rpartition(".")[2]
        if callable(thing := self.namespace.get(bare)):
            return _as_loss(thing, bare)
        if callable(method := getattr(self.model, bare, None)):
            return _Loss(method, bare, "given", is_method=True)
        known = [loss.name for loss in self._candidates()]
        known += [k for k, v in self.namespace.items() if isinstance(v, types.FunctionType)]
        model = type(self.model).__name__
        raise TargetError(
            f"there is no function `{bare}` beside `{model}` and no method "
            f"`{model}.{bare}`{did_you_mean(bare, known)}",
            next_step=f"--objective {known[0] if known else 'losses.py:loss_function'}",
        )


def _as_loss(thing: Callable[..., Any], name: str = "") -> _Loss:
    name = name or getattr(thing, "__name__", type(thing).__name__)
    if isinstance(thing, type) and issubclass(thing, nn.Module):
        made: Callable[..., Any] = thing()
        return _Loss(made, name, "given")
    return _Loss(thing, name, "given")


def _underlying(function: Callable[..., Any]) -> Callable[..., Any]:
    if isinstance(function, nn.Module):
        function = function.forward
    bare: Callable[..., Any] = inspect.unwrap(getattr(function, "__func__", function))
    return bare


def _parameters(function: Callable[..., Any]) -> list[inspect.Parameter]:
    if isinstance(function, nn.Module):
        function = function.forward
    try:
        return list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        return []


def _wants_model(parameter: inspect.Parameter) -> bool:
    kind = parameter.annotation
    if isinstance(kind, type) and issubclass(kind, nn.Module):
        return True
    named = isinstance(kind, str) and kind.rpartition(".")[2] == "Module"
    return named or parameter.name.lower() in {"model", "net", "vae", "module", "network", "self"}


def _names_outputs(parameters: list[inspect.Parameter]) -> bool:
    return any(role(p.name) in {"recon", "mu", "logvar", "z"} for p in parameters)


def _is_total(name: str) -> bool:
    if not _LOSS.fullmatch(name) or name.startswith("__"):
        return False
    return not _PARTIAL.search(name) or "vae" in name.lower() or name == "training_step"


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


def _cannot_bind(loss: _Loss, unbound: Unbound | None, error: BaseException | None) -> TargetError:
    signature = ", ".join(str(p) for p in _parameters(loss.function))
    shown = f"`{loss.name}({signature})`"
    if unbound is not None and unbound.parameter:
        message = f"the parameter `{unbound.parameter}` of {shown} could not be bound: {unbound}"
    else:
        message = f"{shown} could not be called: {summary(error) if error else 'no reading fits'}"
    return TargetError(
        message,
        next_step="write `def objective(model, *batch): ...` that returns the loss, "
        "then --objective objective",
    )
