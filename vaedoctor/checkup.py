"""The check-up: select rules, examine once, judge, fold, suppress, report."""

from __future__ import annotations

import gc
import platform
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import fields, is_dataclass, replace
from operator import is_not
from types import MappingProxyType
from typing import Any

import torch
from torch.nn.modules.lazy import LazyModuleMixin
from torch.nn.parameter import is_lazy

from .config import parse_severity, select_rules, severities
from .examine.examination import Examination
from .examine.picture.picture import draw
from .finding import Finding, Hunt, Number, Outcome, Picture, Report, Severity, fold
from .rule import Rule, left_out
from .span import Span, in_its_cell
from .subject.subject import Batch, Subject
from .subject.target import from_instance
from .subject.trials.trace import leaves_no_trace
from .suppress import apply_suppressions


class Unhealthy(AssertionError):
    """Raised by `assert_healthy`; `report` holds everything the check-up found."""

    def __init__(self, report: Report) -> None:
        super().__init__(f"{report}")
        self.report = report


def check(
    model: Any,
    batch: Any = None,
    *,
    objective: Any = None,
    optimizer: Any = None,
    conditions: Iterable[int | str] = (),
    beta: float | None = None,
    batch_axis: int | None = 0,
    call: Mapping[str, Any] | None = None,
    select: Iterable[str] | None = None,
    ignore: Iterable[str] = (),
    fail_on: str | Severity = Severity.ERROR,
    seed: int = 0,
) -> Report:
    """Examine a model and return the report. The model is left exactly as it was.

    Args:
        model: an `nn.Module`, its class, or a factory without arguments.
        batch: what `forward` takes (a tensor, a tuple of arguments, a dict), or a data loader, of
            which the first batch is taken; made up if None.
        objective: the loss, as `(model, *batch) -> scalar` or as a function whose parameters name
            outputs and inputs (`loss_function(recon, x, mu, logvar)`), or its name; found, or
            composed from reconstruction and KL, if None.
        optimizer: the optimizer, or several, that is to train the model.
        conditions: batch items (positions or names) that are conditions or masks, not data.
        beta: the intended weight of the KL.
        batch_axis: the axis of samples; None says that rows are not samples (a graph).
        call: keyword arguments for every call of `forward`, as in `{"sample_posterior": True}`.
        select: rules to run (codes, prefixes, names); all if None.
        ignore: rules not to run.
        fail_on: the severity from which `report.ok` is False.
        seed: seeds every experiment; the same seed gives the same report.

    Raises:
        TargetError: the model cannot be built, or the objective cannot be bound.
        ConfigError: an unknown rule or severity.
    """
    with _gradients():
        subject = from_instance(
            model,
            batch,
            objective=objective,
            optimizer=optimizer,
            conditions=conditions,
            beta=beta,
            batch_axis=batch_axis,
            call=call,
            seed=seed,
        )
    return examine_subject(subject, select=select, ignore=ignore, fail_on=fail_on, seed=seed)


def assert_healthy(model: Any, batch: Any = None, **options: Any) -> Report:
    """Like `check`, but raises `Unhealthy` when something is found at or above `fail_on`."""
    __tracebackhide__ = True
    report = check(model, batch, **options)
    if not report.ok:
        raise Unhealthy(report) from None
    return report


def examine_subject(
    subject: Subject,
    *,
    select: Iterable[str] | None = None,
    ignore: Iterable[str] = (),
    severity: Mapping[str, str] = MappingProxyType({}),
    fail_on: str | Severity = Severity.ERROR,
    seed: int = 0,
    hunt: bool = False,
) -> Report:
    """Examine a loaded subject between a snapshot and its restoration.

    `severity` gives the rules that a selector names another severity than their own; `hunt` also
    searches for an input that makes the model raise or overflow.
    """
    started = time.perf_counter()
    rules = select_rules(select, ignore)
    levels = severities(severity)
    threshold = parse_severity(fail_on)
    loss = subject.objective.run if subject.objective else None
    touched = (subject.model, subject.batch.args, dict(subject.batch.kwargs), loss)
    with _gradients(), ExitStack() as stack:
        stack.enter_context(subject.calling.on(subject.model))
        rewind = stack.enter_context(leaves_no_trace(*touched))
        held = list(subject.model.parameters())
        if not held or any(map(is_lazy, held)):
            _materialize(subject)
            rewind = stack.enter_context(leaves_no_trace(*touched))
        stack.enter_context(_old_objects_left_alone())
        outcomes, picture, subject, place = _examined(subject, rules, seed, rewind)
        hunted = _hunted(subject, seed, rewind) if hunt else None
    outcomes = [_placed(outcome, place) for outcome in outcomes]
    judged = apply_suppressions(_folded(outcomes, rules), model_at=place)
    return Report(
        target=subject.target or type(subject.model).__name__,
        outcomes=_in_cells(_weighed(judged, levels)),
        picture=_in_cells(picture),
        notes=(*subject.notes, *_origins(subject), *left_out()),
        environment=_environment(subject, seed),
        fail_on=threshold,
        seconds=time.perf_counter() - started,
        hunt=hunted,
    )


def _examined(
    subject: Subject, rules: Iterable[Rule], seed: int, rewind: Callable[[], None]
) -> tuple[list[Outcome], Picture, Subject, Span | None]:
    """What every rule says, the picture, the subject as examined, and where its class is.

    No measurement outlives the call: what it keeps of the graphs can be freed.
    """
    examination = Examination(subject, seed=seed, rewind=rewind)
    try:
        outcomes = [rule.run(examination) for rule in rules]
        return outcomes, draw(examination), examination.subject, examination.place
    finally:
        examination.release()


def _hunted(subject: Subject, seed: int, rewind: Callable[[], None]) -> Hunt:
    from .examine.numerics.hunt import hunt  # imports hypothesis: only when asked

    return hunt(subject, seed, rewind)


@contextmanager
def _gradients() -> Iterator[None]:
    """As in training, also where the caller has switched gradients off."""
    with torch.inference_mode(False), torch.enable_grad():
        yield


@contextmanager
def _old_objects_left_alone() -> Iterator[None]:
    """Let the garbage collector look at new objects only, so that it may run after each experiment.

    A recording holds its graph in reference cycles: without a collection the graphs of all
    experiments would be alive at once.
    """
    if gc.get_freeze_count():
        yield
        return
    gc.freeze()
    try:
        yield
    finally:
        gc.collect()  # while only new objects count: unfrozen, they wait until all are looked at
        gc.unfreeze()


def _materialize(subject: Subject) -> None:
    """Let lazy layers take their sizes from the batch, as the first training step would.

    A model without any parameter may be one that builds all its layers then.
    """
    # The recorded step tells what is wrong, also where the model ends the process.
    with suppress(Exception, SystemExit), torch.no_grad():
        subject.batch.run(subject.model)
    for module in subject.model.modules():
        if isinstance(module, LazyModuleMixin) and module.has_uninitialized_params():
            _of_least_size(module)


def _of_least_size(module: Any) -> None:
    """A lazy layer that the batch does not reach, with one input: everything has a shape then."""
    for axes in range(2, 6):
        with suppress(Exception), torch.no_grad():
            module._infer_parameters(module, (torch.zeros((1,) * axes),))
            return


def _placed(outcome: Outcome, place: Any) -> Outcome:
    """Every finding has a place: the class line where the rule knows none."""
    if all(f.at for f in outcome.findings):
        return outcome
    return replace(
        outcome, findings=tuple(f if f.at else replace(f, at=place) for f in outcome.findings)
    )


def _folded(outcomes: list[Outcome], rules: Iterable[Rule]) -> tuple[Outcome, ...]:
    """One cause, one finding: what a more specific rule explains goes into its notes."""
    precedence: Mapping[str, tuple[str, ...]] = {r.code: r.before for r in rules}
    found = [f for outcome in outcomes for f in outcome.findings]
    kept = fold(found, precedence)
    by_code: dict[str, list[Finding]] = {}
    for finding in kept:
        by_code.setdefault(finding.code, []).append(finding)
    folded = []
    for outcome in outcomes:
        mine = tuple(by_code.get(outcome.code, ()))
        if mine == outcome.findings:
            folded.append(outcome)
            continue
        if not mine:
            outcome = replace(
                outcome, status="skipped", reason="explained by another finding of this report"
            )
        folded.append(replace(outcome, findings=mine))
    return tuple(folded)


def _weighed(outcomes: tuple[Outcome, ...], levels: Mapping[str, Severity]) -> tuple[Outcome, ...]:
    """The outcomes with the severities that were asked for, suppressed findings too."""
    if not levels:
        return outcomes

    def weigh(findings: tuple[Finding, ...]) -> tuple[Finding, ...]:
        return tuple(replace(f, severity=levels.get(f.code, f.severity)) for f in findings)

    return tuple(
        replace(o, findings=weigh(o.findings), suppressed=weigh(o.suppressed)) for o in outcomes
    )


def _in_cells(thing: Any) -> Any:
    """The same with the places of a notebook as places in its cells."""
    if not thing or isinstance(thing, (str, int, float)):
        return thing
    if isinstance(thing, Span):
        return in_its_cell(thing)
    if isinstance(thing, tuple):
        items = tuple(map(_in_cells, thing))
        return items if any(map(is_not, items, thing)) else thing
    if isinstance(thing, Outcome) and not (thing.findings or thing.suppressed or thing.known):
        return thing  # what it verified stands nowhere
    if is_dataclass(thing) and not isinstance(thing, type):
        held = {f.name: getattr(thing, f.name) for f in fields(thing)}
        moved = {n: now for n, then in held.items() if (now := _in_cells(then)) is not then}
        return replace(thing, **moved) if moved else thing
    return thing


def _origins(subject: Subject) -> Iterator[str]:
    """How forward is called, where the batch and the loss come from, unless the caller said so."""
    if subject.calling.text:
        yield f"forward: {subject.calling.text}"
    if subject.batch.origin != "given":
        yield f"batch: {subject.batch.origin}"
    if subject.objective is not None and subject.objective.origin != "given":
        yield f"loss: {subject.objective.origin}"


def _environment(subject: Subject, seed: int) -> dict[str, Number]:
    parameter = next(subject.model.parameters(), None)
    return {
        "torch": torch.__version__,
        "python": platform.python_version(),
        "device": str(parameter.device) if parameter is not None else "cpu",
        "seed": seed,
        "batch": _shapes(subject.batch),
        "objective": subject.objective.name if subject.objective else "composed",
    }


def _shapes(batch: Batch) -> str:
    from .examine.runs.recording import tensors_in

    shapes = ["×".join(map(str, t.shape)) for t in tensors_in((batch.args, dict(batch.kwargs)))]
    return ", ".join(shapes)
