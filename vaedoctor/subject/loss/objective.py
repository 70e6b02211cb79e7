"""Which loss trains the model: given, inside the output, a method, or a function of the file."""

from __future__ import annotations

import ast
import re
import types
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from ...spelling import did_you_mean
from ..calling import has_forward
from ..code.losses import (
    Loss,
    as_loss,
    candidates,
    nameless,
    parameters_of,
    underlying,
)
from ..code.source import Source, function_tree, span_of
from ..code.syntax import called_name
from ..composing import is_pyro_pair, pyro_loss
from ..errors import TargetError, summary
from ..script.loop import Loop, loops
from ..script.unpacking import takes_apart
from ..subject import Batch, Objective
from ..total import total
from ..trials.trial import forward_parameters, leaves
from .attempts import Attempts, Tried, is_frameworks, lacks_key
from .contained import is_copied, minimized_loss, reached_by, returned_kl, returned_loss, total_loss
from .placed import placed
from .recipes import Unbound, cannot_bind, model_first
from .unlike import never_comes_out, refuses_values
from .untold import is_untold, untold

_BEFORE = re.compile(r"pre_?train|warm_?up", re.IGNORECASE)
_BOUND = re.compile(r"^(?!.*(neg|minus|nelbo|loss|objective|criterion)).*elbo", re.IGNORECASE)


def find_objective(
    model: nn.Module,
    batch: Batch,
    given: Callable[..., Any] | str | None = None,
    *,
    source: Source | None = None,
    namespace: Mapping[str, Any] | None = None,
    seed: int = 0,
    refusing: list[Objective] | None = None,
    invented: bool = False,
    stepped: Objective | None = None,
) -> tuple[Objective | None, tuple[str, ...]]:
    """The objective and notes about the search; None when the loss must be composed.

    Losses that a distribution ended, because the batch is outside its support, join `refusing`.
    `invented` says that arguments of the constructor were, which may be to blame for an error;
    `stepped` is the file's own step where that is the forward pass.
    """
    attempts = Attempts(model, batch, source, namespace or {}, seed, refusing)
    finder = _Finder(attempts, source, namespace or {}, invented)
    if isinstance(given, Objective):
        return given, ()
    if given is not None:
        return finder.given(given), ()
    if stepped is not None:
        scalar = attempts.trial(stepped)[1]
        if scalar is not None or not batch.guessed:
            return stepped, ()
    return finder.found()


class _Finder:
    def __init__(
        self,
        attempts: Attempts,
        source: Source | None,
        namespace: Mapping[str, Any],
        invented: bool = False,
    ) -> None:
        self.attempts = attempts
        self.model = attempts.model
        self.batch = attempts.batch
        self.source = source
        self.namespace = namespace
        self.invented = invented
        self._severed: Objective | None = None
        self._raising: list[Objective] = []

    def given(self, thing: Callable[..., Any] | str) -> Objective:
        """The objective the user named; `TargetError` when a parameter cannot be bound."""
        loss = self._named(thing) if isinstance(thing, str) else as_loss(thing)
        with_model = model_first(parameters_of(loss.function))
        if not self.batch.ran:
            alone = None if has_forward(self.model) else self.attempts.one(loss, with_model)
            raises = alone is not None and not alone.ran and self.attempts.may_take_model(loss)
            if alone is not None and (alone.useful or raises):  # it runs the model's parts itself
                return alone.objective
            return self.attempts.objective(loss, self.attempts.lazy(loss))
        if self.attempts.may_take_model(loss):
            first = self.attempts.one(loss, with_model)
            if first.works:
                return first.objective
        tried = []
        unbound: Unbound | None = None
        for recipe in self.attempts.recipes(loss, given=True):
            if isinstance(recipe, Unbound):
                unbound = unbound or recipe
                continue
            tried.append(self.attempts.one(loss, recipe))
            if tried[-1].works:
                return tried[-1].objective
        for recipe in placed(parameters_of(loss.function), self.batch, self.attempts.output()):
            by_place = self.attempts.one(loss, recipe)
            if by_place.useful:
                return by_place.objective
        # A bound loss that raises is for the examination to explain; one with a guess is not.
        certain = [t for t in tried if t.own_call or unbound is None]
        if certain and is_untold(certain[0]):
            raise untold(certain[0], self.model, self.batch)
        if certain and not certain[0].ran:
            return certain[0].objective
        raise cannot_bind(loss, unbound, tried[0].error if tried else None)

    def found(self) -> tuple[Objective | None, tuple[str, ...]]:
        """The plain objective of the model or its file."""
        if not self.batch.ran:
            return None, ()
        pair = is_pyro_pair(self.model)
        runs = pair and self.attempts.trial(_PYRO)[0]  # a refusal of values is remembered
        if runs or (pair and not has_forward(self.model)):
            return _PYRO, ()  # the batch of a forward pass of its own may not be the pair's
        contained, whole = returned_loss(self.model, self.attempts.output())
        if contained is not None and whole:
            return self._climbed(contained) or contained, ()
        objective, notes = self._searched()
        if objective is None and contained is not None:
            return contained, ()
        given = [*self.batch.args, *self.batch.kwargs.values()]
        if notes == (_NO_LOSS,) and len(given) == 1:
            kl = returned_kl(self.model, self.attempts.output(), given[0])
            return kl, () if kl is not None else notes
        return objective, notes

    def _climbed(self, contained: Objective) -> Objective | None:
        """The loop's loss where that is what forward returns with the sign turned: a bound."""
        if not isinstance(self.attempts.output(), Tensor) or self.source is None:
            return None
        looped, _, first = self._looped()
        if looped is None or first:
            return None
        one, other = (self.attempts.trial(o)[1] for o in (contained, looped))
        turned = one is not None and other is not None and bool(one == -other) and bool(one != 0)
        return looped if turned else None

    def _searched(self) -> tuple[Objective | None, tuple[str, ...]]:
        """The loss in the code: a `training_step`, a loop, a method, a function, an output."""
        # Nobody calls a `training_step` but its framework.
        every = list(candidates(self.model, self.namespace))
        tried = self._tried(c for c in every if c.name == "training_step")
        works = [t for t in tried if t.useful]
        if works:
            return works[0].objective, ()
        cut = [t for t in tried if t.works and not t.trains and is_frameworks(t.loss, self.model)]
        if cut:
            return cut[0].objective, ()
        looped, refused, first = self._looped()
        if looped is not None and not first:
            return looped, ()
        tried += self._tried(c for c in every if c.name != "training_step")
        works = _outermost([t for t in tried if t.useful])
        called = [t for t in works if t.own_call]
        if called:
            return called[0].objective, ()
        if looped is not None and not tried:
            return looped, ()
        if looped is None and len(self._raising) == 1:
            return self._raising[0], ()  # the training as the file writes it ends there
        output = self.attempts.output()
        other = minimized_loss(self.model, output, self.source) or total_loss(self.model, output)
        if other is not None:
            return other, ()
        if len(works) == 1:
            return replace(works[0].objective, settled=not _BOUND.search(works[0].loss.name)), ()
        if works:
            names = ", ".join(f"`{t.loss.name}`" for t in works)
            return None, (f"several losses run ({names}): name one with `--objective`",)
        if not tried and (only := self._only_whole()) is not None:
            return only, ()
        return self._none_runs(tried, refused)

    def _none_runs(
        self, tried: list[Tried], refused: tuple[str, ...]
    ) -> tuple[Objective | None, tuple[str, ...]]:
        """Of losses that do not run the one to examine all the same, or why there is none."""
        output = self.attempts.output()
        # The loss that the file itself calls and that raises is for the examination to explain,
        # and so is a method that asks the model's output for what it does not hold.
        raising = [
            t
            for t in tried
            if not t.ran and (self._called_so(t) or lacks_key(t, output) or self._compares(t))
        ]
        if len(raising) == 1:
            return raising[0].objective, ()
        severed = self._severed or next((t.objective for t in tried if self._copies(t)), None)
        if severed is not None:
            return severed, ()
        for t in tried:
            if t.error is not None:
                return None, (self._unused(t),)
            if t.terms:
                return None, (f"`{t.loss.name}` returns terms and no total: {_NO_LOSS}",)
        unbound = [self._not_bound(*u) for u in self.attempts.unbound[:1] if not refused]
        return None, (*refused, *unbound, *([] if unbound else [_NO_LOSS]))

    def _copies(self, tried: Tried) -> bool:
        """Whether a loss that runs asks for the gradient of terms that it copied."""
        scalar = self.attempts.trial(tried.objective)[1] if tried.works else None
        return scalar is not None and is_copied(scalar)

    def _only_whole(self) -> Objective | None:
        """The one function, whatever its name, from which every parameter in use is trained."""
        learned = [
            v
            for _, v in leaves(self.attempts.output())
            if isinstance(v, Tensor) and v.requires_grad
        ]
        if not learned:
            return None
        used = {p for v in learned for p in reached_by(v, self.model)}
        found = []
        for tried in self._tried(nameless(self.model, self.namespace)):
            scalar = self.attempts.trial(tried.objective)[1] if tried.works else None
            if scalar is not None and reached_by(scalar, self.model) >= used:
                found.append(replace(tried.objective, settled=False))
        return found[0] if len(found) == 1 else None

    def _tried(self, losses: Iterable[Loss]) -> list[Tried]:
        return [t for loss in losses if (t := self.attempts.best(loss)) is not None]

    def _called_so(self, tried: Tried) -> bool:
        """Whether a loss is called as here: by the file, or by its framework on the given batch."""
        if takes_apart(tried.error, self.batch) or refuses_values(tried.error, self.batch):
            return False
        stepped = tried.loss.name == "training_step" and not self.batch.guessed
        unknown = isinstance(tried.error, NameError) and is_evaluated(tried.error)
        own = tried.own_call and not (tried.foreign or tried.loose or unknown)
        refused = isinstance(tried.error, RuntimeError) or "target size" in str(tried.error)
        return own or (stepped and refused)

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
            if scalar is not None and (scalar.grad_fn is None or is_copied(scalar)):
                # The file goes backward from a number: no other model's loss, but one cut off.
                self._severed = self._severed or objective
            if isinstance(error, _OF_DATA) and self._tells(loop, error):
                self._raising.append(objective)
            if error is not None and not refused:
                place = self.source.line(loop.line) if self.source else f"line {loop.line}"
                said = f"the training loop of {place} raised {summary(error)}"
                refused = (f"{said} when repeated alone, and is not used",)
        return best, () if best is not None else refused, first

    def _tells(self, loop: Loop, error: BaseException) -> bool:
        """Whether what a loop raises is the file's own doing: all that takes part is its own."""
        of_torch = isinstance(error, RuntimeError) and not _ELSEWHERE.search(str(error))
        refused = isinstance(error, ValueError) and _is_raised_by_torch(error)
        known = of_torch or refused or is_raised_in(error, loop.source.path)
        of_own = of_torch and self._unlike if self.batch.guessed else loop.is_of_own
        return known and of_own and not loop.invents(self.batch)

    def _compares(self, tried: Tried) -> bool:
        """Whether a loss of the model's raises where what comes out is never like the input."""
        parameters = parameters_of(tried.loss.function)
        inputs = {p.name for p in forward_parameters(self.model)}
        compares = any(p.name in inputs or p.kind is p.VAR_POSITIONAL for p in parameters)
        of_size = tried.loss.is_method and isinstance(tried.error, RuntimeError)
        return compares and of_size and self._unlike

    @cached_property
    def _unlike(self) -> bool:
        made = self.batch.guessed and not self.invented
        return made and never_comes_out(self.model, self.batch, self.attempts.seed)

    def _repeated(self, loop: Loop) -> tuple[Objective, Tensor | None, BaseException | None]:
        """The objective of a loop, its scalar, and what it raised.

        A counter that the file does not tell is late in training, or 0 where that is too far.
        """
        for late in (loop.late, 0):
            loop = replace(loop, late=late)
            objective = self._of_loop(loop)
            _, scalar, error, _ = self.attempts.trial(objective)
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
        target = loop.elsewhere(self.batch)
        objective = Objective(
            loop.run, name, origin, at, unweighed=loop.unweighed, elsewhere=target
        )
        if not loop.negated:
            return objective
        run = loop.run
        return replace(objective, run=lambda m, b: -total(run(m, b)))

    def _not_bound(self, loss: Loss, unbound: Unbound) -> str:
        """What is missing to call a function that looks like the loss."""
        lacking = f"nothing tells its parameter `{unbound.parameter}`"
        return (
            f"loss: `{loss.name}` is not used: {lacking}; reconstruction + KL stand in. "
            "`--objective` names a function of the model and the batch that calls it"
        )

    def _unused(self, tried: Tried) -> str:
        """Why a function that looks like the loss is not used, and what to do about it."""
        loss, error = tried.loss, tried.error
        assert error is not None
        at = tried.objective.at
        where = ""
        if at is not None:
            where = f" ({self.source.line(at.line) if self.source else f'line {at.line}'})"
        given = f" with {tried.given}" if tried.given else ""
        hint = f"`--objective {loss.name}` examines why, `--objective NAME` names another"
        if is_untold(tried):
            assert tried.recipe is not None
            unknown = ", ".join(f"`{n}`" for n in tried.recipe.unknown)
            hint = f"Nothing tells what {unknown} is: `--objective {loss.name}` says what to type"
        if tried.ran and isinstance(error, ValueError):  # said by `total`
            return (
                f"loss: `{loss.name}`{where} is not used: {error}; "
                "reconstruction + KL stand in. `--objective NAME` names a function that returns "
                "the scalar that is minimised"
            )
        what = "it is not called in this file, and called"
        if tried.own_call:
            what = "called as here"
        if tried.foreign:
            what = "with the file's own data beside a batch that is made up, called"
        return (
            f"loss: `{loss.name}`{where} is not used: {what}{given} it raised "
            f"{summary(error)}; reconstruction + KL stand in. {hint}"
        )

    def _named(self, name: str) -> Loss:
        if ":" in name:
            from ..target import load_object

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


def _pyro(model: nn.Module, batch: Batch) -> Tensor:
    return pyro_loss(model, *batch.args, **batch.kwargs)


def is_raised_in(error: BaseException, path: Path) -> bool:
    """Whether an exception comes from a line of a file, not from what it calls."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return trace is not None and trace.tb_frame.f_code.co_filename == str(path)


def _is_raised_by_torch(error: BaseException) -> bool:
    """Whether torch itself refuses what it is given, but for a batch of values of another kind."""
    if "within the support" in str(error):
        return False
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return trace is not None and trace.tb_frame.f_globals.get("__name__", "").startswith("torch.")


def is_evaluated(error: BaseException) -> bool:
    """Whether an exception comes from an expression of the file that was evaluated alone."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return trace is not None and trace.tb_frame.f_code.co_name == "<module>"


_ELSEWHERE = re.compile("cuda|nvidia|device|process group|not installed", re.IGNORECASE)
_OF_DATA = (RuntimeError, KeyError, IndexError, ValueError, AttributeError)
_PYRO = Objective(_pyro, "Trace_ELBO", "found: Pyro's `Trace_ELBO` of `model` and `guide`")
_NO_LOSS = "no loss found: reconstruction + KL stand in, `--objective` names yours"


def _outermost(works: list[Tried]) -> list[Tried]:
    """Those that are no term of another one: none of the others calls them."""
    calls = {id(t): _called_in(t.loss.function) for t in works}
    inner = {n for t in works for n in calls[id(t)] - {t.loss.name}}
    return [t for t in works if t.loss.name not in inner] or works


def _called_in(function: Callable[..., Any]) -> set[str]:
    tree = function_tree(underlying(function))
    calls = (n for n in ast.walk(tree) if isinstance(n, ast.Call)) if tree is not None else ()
    return {called_name(n) for n in calls}
