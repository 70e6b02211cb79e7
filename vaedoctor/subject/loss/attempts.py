"""One loss tried: the ways to call it, the trial of each, and how it ended."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from ..code.losses import (
    Loss,
    names_outputs,
    parameters_of,
    underlying,
    wants_model,
)
from ..code.roles import role
from ..code.source import Source, function_tree, source_of, span_of
from ..code.syntax import called_name
from ..loading.trainerless import without_trainer
from ..subject import Batch, Objective
from ..total import TOTAL_KEYS, total
from ..trials.trial import attempt, items, leaves
from .binding import by_names
from .contained import only_terms, reached_by
from .handling import hands_to_forward, read_of
from .own_call import by_own_call, own_use
from .recipes import (
    Binding,
    Recipe,
    Unbound,
    batch_alone,
    cannot_bind,
    model_first,
    return_names,
    shown,
)


@dataclass(frozen=True, slots=True)
class Tried:
    """An objective with how its trial ended.

    `foreign`: the file's own data takes part, beside a batch that is made up. `loose`: a parameter
    took what was left over. `recipe` made the arguments of a loss that raised.
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
    loose: bool = False
    recipe: Recipe | None = None

    @property
    def useful(self) -> bool:
        """Whether it is a loss of this model's parameters, or the file says that it is one."""
        return self.works and (self.trains or self.own_call) and not (self.terms or self.elsewhere)


class Attempts:
    """Tries losses on one model and one batch; the forward pass runs once."""

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
        self.unbound: list[tuple[Loss, Unbound]] = []
        self._output: Any = None

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

    def best(self, loss: Loss) -> Tried | None:
        """The first way to call a loss that trains the model, else how the first one ended."""
        first: Tried | None = None
        unbound: Unbound | None = None
        for recipe in self.recipes(loss, given=False):
            if isinstance(recipe, Unbound):
                unbound = unbound or recipe
                continue
            tried = self.one(loss, recipe)
            if tried.works and (tried.trains or tried.own_call):
                return tried
            if first is None or (tried.works and not first.ran):
                first = tried
        if first is None and unbound is not None:
            self.unbound.append((loss, unbound))
        return first

    def one(self, loss: Loss, recipe: Recipe) -> Tried:
        """How a loss called by one recipe ends."""
        objective = self.objective(loss, recipe)
        batch, model = self.batch, self.model
        ran, scalar, error, terms = self.trial(objective)
        if scalar is None:
            given = shown(recipe, loss, model, batch, self.output()) if not ran else ""
            foreign = recipe.beside and batch.guessed
            return Tried(
                objective,
                False,
                recipe.own_call,
                loss,
                error,
                given=given,
                ran=ran,
                foreign=foreign,
                loose=recipe.loose,
                recipe=recipe,
            )
        trains = scalar.requires_grad
        elsewhere = trains and not reached_by(scalar, model)
        return Tried(
            objective, True, recipe.own_call, loss, None, trains, terms=terms, elsewhere=elsewhere
        )

    def trial(self, objective: Objective) -> tuple[bool, Tensor | None, BaseException | None, bool]:
        """Whether an objective runs, its scalar, what it raises, whether it gives terms alone."""
        batch, model = self.batch, self.model
        trial = attempt(lambda: objective.run(model, batch), model, seed=self.seed)
        if not trial.ran:
            if self.refusing is not None and "within the support" in str(trial.error):
                self.refusing.append(objective)
            return False, None, trial.error, False
        try:
            named = any(str(k).lower() in TOTAL_KEYS for k, _ in items(trial.value))
            return True, total(trial.value), None, not named and only_terms(trial.value)
        except ValueError as error:
            return True, None, error, False

    def objective(self, loss: Loss, recipe: Recipe) -> Objective:
        """The objective that calls the loss by the recipe on every run."""

        def run(model: nn.Module, batch: Batch) -> Any:
            output = batch.run(model) if recipe.needs_output else None
            args, kwargs = recipe.arguments(model, batch, output)
            if loss.is_method:
                with without_trainer(model) as losses:
                    value = loss.of(model)(*args, **kwargs)
                if value is None and losses:  # of several, as a critic's, what trains the most
                    value = max(losses, key=lambda one: len(reached_by(one, model)))
                if isinstance(value, float) and is_frameworks(loss, model):
                    value = torch.tensor(value)  # `return loss.item()`
            else:
                value = loss.of(model)(*args, **kwargs)
            return -total(value) if recipe.negated else value

        at = span_of(underlying(loss.function))
        weight, target = recipe.unweighed, recipe.elsewhere
        return Objective(run, loss.name, loss.origin, at, unweighed=weight, elsewhere=target)

    def recipes(self, loss: Loss, *, given: bool) -> Iterator[Recipe | Unbound]:
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
        if given and self._takes_batch(function, parameters):
            yield batch_alone(parameters)
        if given and read_of(function) is None:  # typed in, or compiled
            yield by_names(function, parameters, binding, whole=True)
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

    def may_take_model(self, loss: Loss) -> bool:
        """Whether the parameters can be the model and the batch, as in `lambda m, x`."""
        parameters = parameters_of(loss.function)
        fits = len(parameters) == 1 + len(self.batch.args) + len(self.batch.kwargs)
        return fits and role(parameters[0].name) != "recon" and not names_outputs(parameters[1:])

    def _takes_batch(
        self, function: Callable[..., Any], parameters: list[inspect.Parameter]
    ) -> bool:
        """Whether a method that runs the forward pass itself can be given the batch as it is."""
        required = [p for p in parameters if p.default is p.empty]
        fits = len(required) <= len(self.batch.args) + len(self.batch.kwargs) <= len(parameters)
        return fits and any(
            hands_to_forward(function, p.name, type(self.model)) for p in parameters
        )

    def lazy(self, loss: Loss) -> Recipe:
        """Bind when the forward pass comes to its end, which it did not do so far."""
        parameters = parameters_of(loss.function)
        if parameters and wants_model(parameters[0]) and not names_outputs(parameters[1:]):
            return model_first(parameters)
        function, names = underlying(loss.function), return_names(self.model)

        def arguments(model: nn.Module, batch: Batch, output: Any) -> Any:
            recipe = by_names(function, parameters, Binding(model, batch, output, names))
            if isinstance(recipe, Unbound):
                raise cannot_bind(loss, recipe, None)
            return recipe.arguments(model, batch, output)

        return Recipe(arguments)


def is_frameworks(loss: Loss, model: nn.Module) -> bool:
    """Whether Lightning goes backward from what a method returns: it does not do so itself."""
    kinds = {k.__name__ for k in type(model).__mro__}
    if loss.name != "training_step" or "LightningModule" not in kinds:
        return False
    tree = function_tree(underlying(loss.function))
    calls = (n for n in ast.walk(tree) if isinstance(n, ast.Call)) if tree is not None else ()
    return not any(called_name(c) in {"backward", "manual_backward"} for c in calls)


def lacks_key(tried: Tried, output: Any) -> bool:
    """Whether a method read some of the model's dict, and asked it for a key it does not hold.

    That it reads other keys of the same argument shows that it was given what it expects.
    """
    error, function = tried.error, underlying(tried.loss.function)
    if not (tried.loss.is_method and isinstance(error, KeyError) and isinstance(output, Mapping)):
        return False
    trace, missing = error.__traceback__, error.args[0] if error.args else None
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    code = getattr(function, "__code__", None)
    if trace is None or trace.tb_frame.f_code is not code or missing in output:
        return False
    keys = _keys_read(function)
    return any(
        isinstance(value, Mapping)
        and value.keys() == output.keys()
        and missing in keys.get(name, ())
        and any(key in output for key in keys[name])
        for name, value in trace.tb_frame.f_locals.items()
    )


def _keys_read(function: Any) -> dict[str, set[Any]]:
    """The keys by which a function reads each of its names: `out["recon"]`."""
    tree = function_tree(function)
    found: dict[str, set[Any]] = {}
    for node in ast.walk(tree) if tree is not None else ():
        match node:
            case ast.Subscript(value=ast.Name(id=name), slice=ast.Constant(value=key)):
                found.setdefault(name, set()).add(key)
    return found
