"""Which loss trains the model: given, inside the output, a method, or a function of the file."""

from __future__ import annotations

import re
import types
from collections.abc import Callable, Iterable, Iterator, Mapping
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
    model_first,
    return_names,
    role,
)
from .calling import has_forward
from .composing import is_pyro_pair, pyro_loss
from .contained import is_whole, only_terms, reached_by, total_among
from .errors import TargetError, summary
from .loop import Loop, loops
from .losses import (
    Loss,
    as_loss,
    candidates,
    names_outputs,
    parameters_of,
    underlying,
    wants_model,
)
from .own_call import by_own_call, minimized_place, own_use
from .source import Source, source_of, span_of
from .subject import Batch, Objective
from .trainerless import without_trainer
from .trial import attempt, items, leaves, pick

_BEFORE = re.compile(r"pre_?train|warm_?up", re.IGNORECASE)
_BOUND = re.compile(r"^(?!.*(neg|minus|nelbo|loss|objective|criterion)).*elbo", re.IGNORECASE)
_TOTAL_KEYS = ("loss", "total_loss", "total", "objective", "elbo", "nelbo", "negative_elbo")


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
    refusing: list[Objective] | None = None,
) -> tuple[Objective | None, tuple[str, ...]]:
    """The objective and notes about the search; None when the loss must be composed.

    Losses that a distribution ended, because the batch is outside its support, join `refusing`.
    """
    finder = _Finder(model, batch, source, namespace or {}, seed, refusing)
    if isinstance(given, Objective):
        return given, ()
    if given is not None:
        return finder.given(given), ()
    return finder.found()


@dataclass(frozen=True, slots=True)
class _Tried:
    """An objective with how its trial ended.

    `foreign`: the file's own data takes part, beside a batch that is made up.
    """

    objective: Objective
    works: bool
    own_call: bool
    loss: Loss
    error: BaseException | None = None
    trains: bool = False
    given: str = ""
    terms: bool = False
    elsewhere: bool = False
    ran: bool = True
    foreign: bool = False

    @property
    def useful(self) -> bool:
        """Whether it is a loss of this model's parameters, or the file says that it is one."""
        return self.works and (self.trains or self.own_call) and not (self.terms or self.elsewhere)


class _Finder:
    def __init__(
        self,
        model: nn.Module,
        batch: Batch,
        source: Source | None,
        namespace: Mapping[str, Any],
        seed: int,
        refusing: list[Objective] | None = None,
    ) -> None:
        self.refusing = refusing
        self.model = model
        self.batch = batch
        self.source = source
        self.namespace = namespace
        self.seed = seed
        self._output: Any = None
        self._severed: Objective | None = None

    def output(self) -> Any:
        """The output of one guarded forward pass; None when it raises."""
        if self._output is None and self.batch.ran:
            batch, model = self.batch, self.model
            self._output = attempt(lambda: batch.run(model), model, seed=self.seed).value
        return self._output

    def moving(self) -> set[tuple[Any, ...]]:
        """The outputs that are not the same in a second pass with another seed."""
        batch, model = self.batch, self.model
        again = attempt(lambda: batch.run(model), model, seed=self.seed + 1).value
        second = dict(leaves(again))
        return {
            path
            for path, value in leaves(self.output())
            if isinstance(value, Tensor)
            and isinstance(other := second.get(path), Tensor)
            and (other.shape != value.shape or not torch.equal(other, value))
        }

    def given(self, thing: Callable[..., Any] | str) -> Objective:
        """The objective the user named; `TargetError` when a parameter cannot be bound."""
        loss = self._named(thing) if isinstance(thing, str) else as_loss(thing)
        if not self.batch.ran:
            return self._objective(loss, self._lazy(loss))
        with_model = model_first(parameters_of(loss.function))
        if self._may_take_model(loss) and (first := self._try(loss, with_model)).works:
            return first.objective
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
        if certain and not certain[0].ran:
            return certain[0].objective
        raise _cannot_bind(loss, unbound, tried[0].error if tried else None)

    def found(self) -> tuple[Objective | None, tuple[str, ...]]:
        """The plain objective of the model or its file."""
        if not self.batch.ran:
            return None, ()
        if is_pyro_pair(self.model) and (not has_forward(self.model) or self._trial(_PYRO)[0]):
            return _PYRO, ()  # the batch of a forward pass of its own may not be the pair's
        contained, whole = self._contained()
        if contained is not None and whole:
            return contained, ()
        objective, notes = self._searched()
        if objective is None and contained is not None:
            return contained, ()
        return objective, notes

    def _searched(self) -> tuple[Objective | None, tuple[str, ...]]:
        """The loss in the code: a `training_step`, a loop, a method, a function, an output."""
        # Nobody calls a `training_step` but its framework.
        every = list(candidates(self.model, self.namespace))
        tried = self._tried(c for c in every if c.name == "training_step")
        works = [t for t in tried if t.useful]
        if works:
            return works[0].objective, ()
        looped, refused, first = self._looped()
        if looped is not None and not first:
            return looped, ()
        tried += self._tried(c for c in every if c.name != "training_step")
        works = [t for t in tried if t.useful]
        called = [t for t in works if t.own_call]
        if called:
            return called[0].objective, ()
        if looped is not None and not tried:
            return looped, ()
        other = self._minimized() or self._total()
        if other is not None:
            return other, ()
        if len(works) == 1:
            return replace(works[0].objective, settled=not _BOUND.search(works[0].loss.name)), ()
        if works:
            names = ", ".join(f"`{t.loss.name}`" for t in works)
            return None, (f"several losses run ({names}): name one with `--objective`",)
        # The loss that the file itself calls and that raises is for the examination to explain.
        raising = [t for t in tried if not t.ran and self._called_so(t)]
        if len(raising) == 1:
            return raising[0].objective, ()
        if self._severed is not None:
            return self._severed, ()
        for t in tried:
            if t.error is not None:
                return None, (self._unused(t),)
            if t.terms:
                return None, (f"`{t.loss.name}` returns terms and no total: {_NO_LOSS}",)
        return None, (*refused, _NO_LOSS)

    def _tried(self, losses: Iterable[Loss]) -> list[_Tried]:
        return [t for loss in losses if (t := self._best(loss)) is not None]

    def _called_so(self, tried: _Tried) -> bool:
        """Whether a loss is called as here: by the file, or by its framework on the given batch."""
        stepped = tried.loss.name == "training_step" and not self.batch.guessed
        own = tried.own_call and not tried.foreign
        return own or (stepped and isinstance(tried.error, RuntimeError))

    def _looped(self) -> tuple[Objective | None, tuple[str, ...], bool]:
        """The loss as a training loop of the file computes it, or why that cannot be repeated.

        And whether that loop only comes before the training: `def pretrain(self, loader)`.
        """
        refused: tuple[str, ...] = ()
        best: Objective | None = None
        most, first = (0, 0), False
        for loop in loops(self.source, self.namespace, self.model) if self.source else ():
            objective, scalar, error = self._repeated(loop)
            reached = 0 if scalar is None else len(reached_by(scalar, self.model))
            before = loop.step.function is not None and _BEFORE.search(loop.step.function.name)
            if reached and (rank := (0 if before else 1, reached)) > most:
                best, most, first = objective, rank, bool(before)
            if scalar is not None and scalar.grad_fn is None:
                # The file goes backward from a number: no other model's loss, but one cut off.
                self._severed = self._severed or objective
            if error is not None and not refused:
                place = self.source.line(loop.line) if self.source else f"line {loop.line}"
                said = f"the training loop of {place} raised {summary(error)}"
                refused = (f"{said} when repeated alone, and is not used",)
        return best, () if best is not None else refused, first

    def _repeated(self, loop: Loop) -> tuple[Objective, Tensor | None, BaseException | None]:
        """The objective of a loop, its scalar, and what it raised.

        A counter that the file does not tell is late in training, or 0 where that is too far.
        """
        for late in (loop.late, 0):
            loop = replace(loop, late=late)
            objective = self._of_loop(loop)
            _, scalar, error, _ = self._trial(objective)
            if scalar is not None:
                break
        return objective, scalar, error

    def _of_loop(self, loop: Loop) -> Objective:
        function, path = loop.callee(), loop.source.path.name
        place = loop.source.line(loop.line)
        name, at = loop.name, loop.at
        origin = f"found: `{name}` of the training loop, {place}"
        if function is not None:
            name, at = function.__name__, span_of(function) or at
            origin = f"found: `{name}` in {path}"
        objective = Objective(loop.run, name, origin, at, unweighed=loop.unweighed)
        if not loop.negated:
            return objective
        run = loop.run
        return replace(objective, run=lambda m, b: -total(run(m, b)))

    def _unused(self, tried: _Tried) -> str:
        """Why a function that looks like the loss is not used, and what to do about it."""
        loss, error = tried.loss, tried.error
        assert error is not None
        at = tried.objective.at
        where = ""
        if at is not None:
            where = f" ({self.source.line(at.line) if self.source else f'line {at.line}'})"
        given = f" with {tried.given}" if tried.given else ""
        what = "it is not called in this file, and called"
        if tried.own_call:
            what = "called as here"
        if tried.foreign:
            what = "with the file's own data beside a batch that is made up, called"
        return (
            f"loss: `{loss.name}`{where} is not used: {what}{given} it raised "
            f"{summary(error)}; reconstruction + KL stand in. `--objective {loss.name}` examines "
            "why, `--objective NAME` names another"
        )

    def _best(self, loss: Loss) -> _Tried | None:
        first: _Tried | None = None
        for recipe in self._recipes(loss, given=False):
            if isinstance(recipe, Unbound):
                continue
            tried = self._try(loss, recipe)
            if tried.works and (tried.trains or tried.own_call):
                return tried
            first = first or tried
        return first

    def _try(self, loss: Loss, recipe: Recipe) -> _Tried:
        objective = self._objective(loss, recipe)
        batch, model = self.batch, self.model
        ran, scalar, error, terms = self._trial(objective)
        if scalar is None:
            given = _shown(recipe, loss, model, batch, self.output()) if not ran else ""
            foreign = recipe.beside and batch.guessed
            own = recipe.own_call
            return _Tried(objective, False, own, loss, error, given=given, ran=ran, foreign=foreign)
        trains = scalar.requires_grad
        elsewhere = trains and not reached_by(scalar, model)
        return _Tried(
            objective, True, recipe.own_call, loss, None, trains, terms=terms, elsewhere=elsewhere
        )

    def _trial(
        self, objective: Objective
    ) -> tuple[bool, Tensor | None, BaseException | None, bool]:
        """Whether an objective runs, its scalar, what it raises, whether it gives terms alone."""
        batch, model = self.batch, self.model
        trial = attempt(lambda: objective.run(model, batch), model, seed=self.seed)
        if not trial.ran:
            if self.refusing is not None and "within the support" in str(trial.error):
                self.refusing.append(objective)
            return False, None, trial.error, False
        try:
            named = any(str(k).lower() in _TOTAL_KEYS for k, _ in items(trial.value))
            return True, total(trial.value), None, not named and only_terms(trial.value)
        except ValueError as error:
            return True, None, error, False

    def _objective(self, loss: Loss, recipe: Recipe) -> Objective:
        def run(model: nn.Module, batch: Batch) -> Any:
            output = batch.run(model) if recipe.needs_output else None
            args, kwargs = recipe.arguments(model, batch, output)
            if loss.is_method:
                with without_trainer(model) as losses:
                    value = loss.of(model)(*args, **kwargs)
                value = losses[0] if value is None and losses else value
            else:
                value = loss.of(model)(*args, **kwargs)
            return -total(value) if recipe.negated else value

        at = span_of(underlying(loss.function))
        return Objective(run, loss.name, loss.origin, at, unweighed=recipe.unweighed)

    def _recipes(self, loss: Loss, *, given: bool) -> Iterator[Recipe | Unbound]:
        """Ways to call the loss, the best evidence first."""
        function = underlying(loss.function)
        parameters = parameters_of(loss.function)
        takes_model = bool(parameters) and wants_model(parameters[0])
        outputs_named = names_outputs(parameters[1:])
        if takes_model and not outputs_named:  # before an output is made to bind to
            yield model_first(parameters)
        names = return_names(self.model)
        binding = Binding(self.model, self.batch, self.output(), names, self.moving)
        if takes_model:
            yield by_names(function, parameters, binding)
            if outputs_named:
                yield model_first(parameters)
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
        handed = loss.name == "training_step" or (parameters and parameters[0].name == "batch")
        if loss.is_method and parameters and handed:
            yield by_names(function, parameters, binding, paired=True)
        if given:
            yield model_first(parameters)

    def _may_take_model(self, loss: Loss) -> bool:
        """Whether the parameters can be the model and the batch, as in `lambda m, x`."""
        parameters = parameters_of(loss.function)
        fits = len(parameters) == 1 + len(self.batch.args) + len(self.batch.kwargs)
        return fits and role(parameters[0].name) != "recon" and not names_outputs(parameters[1:])

    def _lazy(self, loss: Loss) -> Recipe:
        """Bind when the forward pass comes to its end, which it did not do so far."""
        parameters = parameters_of(loss.function)
        if parameters and wants_model(parameters[0]) and not names_outputs(parameters[1:]):
            return model_first(parameters)
        function, names = underlying(loss.function), return_names(self.model)

        def arguments(model: nn.Module, batch: Batch, output: Any) -> Any:
            recipe = by_names(function, parameters, Binding(model, batch, output, names))
            if isinstance(recipe, Unbound):
                raise _cannot_bind(loss, recipe, None)
            return recipe.arguments(model, batch, output)

        return Recipe(arguments)

    def _contained(self) -> tuple[Objective | None, bool]:
        """A loss that forward itself returns, as an entry `loss` or as its only output.

        And whether it is all of the loss.
        """
        output = self.output()
        if _is_loss(output):
            origin = "found: forward returns the loss"
            return Objective(lambda m, b: b.run(m), "forward", origin), True
        named: list[tuple[Any, Any, Any]] = [(k, k, v) for k, v in items(output)]
        names = return_names(self.model)
        if isinstance(output, tuple | list) and len(names) == len(output):
            named = [(str(n), i, v) for i, (n, v) in enumerate(zip(names, output, strict=True))]
        for name, key, value in named:
            if str(name).lower() in {"loss", "total_loss"} and _is_loss(value):
                origin = f"found: `{name}` in the output"
                at = span_of(type(self.model))
                return Objective(_entry(key), str(name), origin, at), is_whole(value, output)
        return None, False

    def _minimized(self) -> Objective | None:
        """The output in an unnamed place from which the file goes backward."""
        output, own = self.output(), self.source or source_of(type(self.model).forward)
        if own is None or not isinstance(output, tuple | list):
            return None
        name, place = minimized_place(own, len(output)) or ("", 0)
        if not name or not _is_loss(output[place]):
            return None
        origin = f"found: `{name}.backward()` in {own.path.name}"
        return Objective(_entry(place), name, origin, span_of(type(self.model)))

    def _total(self) -> Objective | None:
        """The scalar output that is computed from all others."""
        path = total_among(self.output())
        if not path:
            return None
        shown = "".join(f"[{key!r}]" for key in path)
        origin = f"found: output {shown} is computed from all others"
        at = span_of(type(self.model))
        return Objective(lambda m, b: pick(b.run(m), path), f"output{shown}", origin, at)

    def _named(self, name: str) -> Loss:
        if ":" in name:
            from .target import load_object

            thing = load_object(name)
            if not callable(thing):
                raise TargetError(
                    f"`--objective {name}` is not a function",
                    next_step="--objective losses.py:loss_function",
                )
            return as_loss(thing)
        bare = name.removeprefix("self.").rpartition(".")[2]
        if callable(thing := self.namespace.get(bare)):
            return as_loss(thing, bare)
        if callable(method := getattr(self.model, bare, None)):
            return Loss(method, bare, "given", is_method=True)
        known = [loss.name for loss in candidates(self.model, self.namespace)]
        known += [k for k, v in self.namespace.items() if isinstance(v, types.FunctionType)]
        model = type(self.model).__name__
        raise TargetError(
            f"there is no function `{bare}` beside `{model}` and no method "
            f"`{model}.{bare}`{did_you_mean(bare, known)}",
            next_step=f"--objective {known[0] if known else 'losses.py:loss_function'}",
        )


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


def _shown(recipe: Recipe, loss: Loss, model: nn.Module, batch: Batch, output: Any) -> str:
    """The shapes a loss was called with, by the names of its parameters."""
    try:
        args, kwargs = recipe.arguments(model, batch, output)
    except Exception:
        return ""
    named = dict(zip((p.name for p in parameters_of(loss.function)), args, strict=False)) | kwargs
    shapes = {k: "×".join(map(str, v.shape)) for k, v in named.items() if isinstance(v, Tensor)}
    return ", ".join(f"`{k}` {shape}" for k, shape in shapes.items() if shape)


def _pyro(model: nn.Module, batch: Batch) -> Tensor:
    return pyro_loss(model, *batch.args, **batch.kwargs)


def maximised(objective: Objective) -> Objective:
    """The objective that minimises the negative of a bound."""

    def run(model: nn.Module, batch: Batch) -> Tensor:
        return -total(objective.run(model, batch))

    origin = f"{objective.origin}; it rises as x_hat gets better, so its negative is minimised"
    return replace(objective, run=run, origin=origin, settled=True)


_PYRO = Objective(_pyro, "Trace_ELBO", "found: Pyro's `Trace_ELBO` of `model` and `guide`")
_NO_LOSS = "no loss found: reconstruction + KL stand in, `--objective` names yours"


def _cannot_bind(loss: Loss, unbound: Unbound | None, error: BaseException | None) -> TargetError:
    signature = ", ".join(str(p) for p in parameters_of(loss.function))
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
