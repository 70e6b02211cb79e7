"""From a class or factory to a model: constructor arguments given, read in the file, or made up."""

from __future__ import annotations

import ast
import copy
import inspect
import shlex
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..spelling import did_you_mean
from .construction import Aftermath, Construction, apply_following, constructions, own_arguments
from .errors import TargetError, a_kind, summary, user_traceback
from .scope import Scope, Unknown
from .sizes import Sizes
from .source import Source, function_tree
from .trace import generators_restored, seed_everything

Values = dict[str, Any]
_MOST_ATTEMPTS = 16
_MISSING: Any = object()


@dataclass(frozen=True, slots=True)
class Plan:
    """What to call, with which arguments, and the user's own call they were read from."""

    thing: Callable[..., Any]
    values: Values
    made_up: Values = field(default_factory=dict)
    construction: Construction | None = None

    def construct(self, seed: int) -> nn.Module:
        """A fresh model; the arguments are copied because some constructors change them."""
        bound = inspect.BoundArguments(_signature(self.thing), {})
        for name in bound.signature.parameters:
            if name in self.values:
                value = self.values[name]
                bound.arguments[name] = _copied(value.value if isinstance(value, Part) else value)
        with generators_restored():
            seed_everything(seed)
            made: nn.Module = self.thing(*bound.args, **bound.kwargs)
        return made


@dataclass(frozen=True, slots=True)
class Part:
    """A made-up component, and how it would be written."""

    value: Any
    spelled: str


@dataclass(frozen=True, slots=True)
class Built:
    """A model, how to make another, what was made up, and what the user's file did to it."""

    model: nn.Module
    rebuild: Callable[[int], nn.Module] | None
    notes: tuple[str, ...] = ()
    hints: Mapping[str, Any] = field(default_factory=dict)
    aftermath: Aftermath = field(default_factory=Aftermath)
    made_up: bool = False


def build(
    thing: Callable[..., Any],
    *,
    source: Source | None = None,
    namespace: dict[str, Any] | None = None,
    args: Mapping[str, str] | None = None,
    seed: int = 0,
    label: str = "",
) -> Built:
    """Construct a model; raises `TargetError` when it cannot be done."""
    return next(
        builds(thing, source=source, namespace=namespace, args=args, seed=seed, label=label)
    )


def builds(
    thing: Callable[..., Any],
    *,
    source: Source | None = None,
    namespace: dict[str, Any] | None = None,
    args: Mapping[str, str] | None = None,
    seed: int = 0,
    label: str = "",
) -> Iterator[Built]:
    """Models from the likeliest arguments on; more than one only when arguments were made up."""
    namespace = {} if namespace is None else namespace
    label = label or _name(thing)
    plans = _plans(thing, source, namespace, args or {}, label)
    failure: tuple[Plan, BaseException] | None = None
    succeeded = False
    for plan, _ in zip(plans, range(_MOST_ATTEMPTS), strict=False):
        try:
            model = plan.construct(seed)
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            failure = failure or (plan, error)
            continue
        if not isinstance(model, nn.Module):
            raise TargetError(
                f"`{_name(thing)}` returned {a_kind(model)}, not a module",
                next_step=f"let `{_name(thing)}` return the model",
            )
        succeeded = True
        yield _built(plan, model, namespace, seed)
    if not succeeded and failure is not None:
        raise _cannot_construct(*failure, label) from failure[1]


def _built(plan: Plan, model: nn.Module, namespace: dict[str, Any], seed: int) -> Built:
    aftermath = Aftermath()
    if plan.construction is not None and plan.construction.name is not None:
        scope = plan.construction.scope(namespace)
        with generators_restored():
            seed_everything(seed)
            aftermath = apply_following(plan.construction, model, namespace, scope)
    notes = []
    if plan.made_up:
        notes.append(f"made up: `{_arguments(plan.made_up)}`")
    hints = {**_defaults(plan.thing), **plan.values}
    rebuild = None if aftermath.changed else plan.construct
    return Built(model, rebuild, tuple(notes), hints, aftermath, bool(plan.made_up))


def _plans(
    thing: Callable[..., Any],
    source: Source | None,
    namespace: dict[str, Any],
    args: Mapping[str, str],
    label: str,
) -> Iterator[Plan]:
    signature = _signature(thing)
    given = _given(args, signature, namespace, source, thing, label)
    read, construction = _from_file(thing, signature, source, namespace)
    values = {**read, **given}
    missing = [
        p
        for p in signature.parameters.values()
        if p.default is p.empty
        and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
        and p.name not in values
    ]
    if not missing:
        yield Plan(thing, values, {}, construction)
        if construction is not None and read and not given and not _required(signature):
            yield Plan(thing, {}, {}, construction)
        return
    hints = _annotations(thing)
    known = {**_defaults(thing), **values}
    tried = False
    for made in _made_up(thing, missing, hints, known, namespace):
        tried = True
        yield Plan(thing, {**values, **made}, made, construction)
    if not tried:
        raise _cannot_guess(thing, signature, values, missing, known, namespace, label)


def _made_up(
    thing: Callable[..., Any],
    missing: list[inspect.Parameter],
    hints: Mapping[str, Any],
    known: Mapping[str, Any],
    namespace: dict[str, Any],
) -> Iterator[Values]:
    """Sets of made-up values: primes, one alternative at a time, then numbers that divide."""
    for even in (False, True):
        sizes = Sizes({k: v for k, v in known.items() if not isinstance(v, nn.Module)}, even=even)
        choices = {
            p.name: _choices(p, hints.get(p.name, p.annotation), sizes, namespace)
            or _settings(thing, p.name, sizes)
            for p in missing
        }
        if not all(choices.values()):
            return
        first = {name: options[0] for name, options in choices.items()}
        yield first
        for name, options in choices.items():
            for option in options[1:]:
                yield {**first, name: option}


def _choices(
    parameter: inspect.Parameter, annotation: Any, sizes: Sizes, namespace: dict[str, Any]
) -> list[Any]:
    found = sizes.choices(parameter.name, annotation)
    if found:
        return found
    part = _component(parameter.name, annotation, namespace)
    if part is not None:
        made = _make_component(part, sizes, namespace)
        return [] if made is _MISSING else [made]
    if annotation is float:
        return [0.5]
    return []


def _settings(thing: Callable[..., Any], name: str, sizes: Sizes) -> list[Any]:
    """A stand-in for `args` or `cfg`: every `cfg.hidden_dim` the constructor reads is made up."""
    tree = function_tree(vars(thing).get("__init__") if isinstance(thing, type) else thing)
    read: dict[str, Any] = {}
    for node in ast.walk(tree) if tree is not None else ():
        match node:
            case ast.Attribute(value=ast.Name(id=found), attr=key) if found == name:
                options = sizes.choices(key)
                if not options:
                    return []
                read[key] = options[0]
    if not read:
        return []
    spelled = ",".join(f"{k}={_typed(v)}" for k, v in read.items())
    return [Part(types.SimpleNamespace(**read), f"SimpleNamespace({spelled})")]


def _component(name: str, annotation: Any, namespace: dict[str, Any]) -> type | None:
    """The class a parameter such as `encoder` or `config: Config` asks for."""
    if isinstance(annotation, type) and annotation.__module__ == namespace.get("__name__"):
        return annotation
    bare = name.lower().replace("_", "")
    for key, thing in namespace.items():
        own = isinstance(thing, type) and thing.__module__ == namespace.get("__name__")
        if own and key.lower().replace("_", "") == bare:
            return typing.cast(type, thing)
    return None


def _make_component(part: type, sizes: Sizes, namespace: dict[str, Any]) -> Any:
    values: Values = {}
    hints = _annotations(part)
    for p in _required(_signature(part)):
        options = _choices(p, hints.get(p.name, p.annotation), sizes, namespace)
        if not options:
            return _MISSING
        values[p.name] = options[0].value if isinstance(options[0], Part) else options[0]
        if isinstance(options[0], int):
            sizes.note(p.name, options[0])
    spelled = ", ".join(f"{k}={_typed(v)}" for k, v in values.items())
    try:
        return Part(part(**values), f"{part.__name__}({spelled})")
    except KeyboardInterrupt:
        raise
    except BaseException:
        return _MISSING


def _given(
    args: Mapping[str, str],
    signature: inspect.Signature,
    namespace: dict[str, Any],
    source: Source | None,
    thing: Callable[..., Any],
    label: str,
) -> Values:
    hints = _annotations(thing)
    spare = next((p.name for p in signature.parameters.values() if p.kind is p.VAR_KEYWORD), None)
    named = [p.name for p in signature.parameters.values() if p.kind is not p.VAR_KEYWORD]
    found: Values = {}
    for name, text in args.items():
        if name in named:
            parameter = signature.parameters[name]
            hint = hints.get(name, parameter.annotation)
            found[name] = _parsed(name, text, hint, parameter.default, namespace, source)
        elif spare is not None:
            value = _parsed(name, text, inspect.Parameter.empty, None, namespace, source)
            found.setdefault(spare, {})[name] = value
        else:
            raise TargetError(
                f"`{_name(thing)}` has no argument `{name}`{did_you_mean(name, named)}",
                next_step=f"its signature is `{_name(thing)}{signature_text(thing)}`"
                + (f"\nvaedoctor check {label}" if label else ""),
            )
    return found


def _parsed(
    name: str,
    text: str,
    annotation: Any,
    default: Any,
    namespace: dict[str, Any],
    source: Source | None,
) -> Any:
    wanted = annotation if annotation is not inspect.Parameter.empty else type(default)
    if wanted is str:
        return text
    if wanted is bool and text.lower() in {"true", "false", "yes", "no", "on", "off", "1", "0"}:
        return text.lower() in {"true", "yes", "on", "1"}
    if wanted is torch.device:
        return torch.device(text)
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        value = _named_value(text, namespace, source)
    if wanted in (int, float) and not isinstance(value, bool):
        try:
            if wanted is int and isinstance(value, float) and not value.is_integer():
                raise ValueError
            return wanted(value)
        except (TypeError, ValueError):
            raise TargetError(
                f"`--arg {name}={text}` is not {'an int' if wanted is int else 'a float'}",
                next_step=f"--arg {name}={default if isinstance(default, int | float) else 16}",
            ) from None
    if isinstance(value, tuple | list) and wanted in (list, tuple):
        return wanted(value)
    return value


def _named_value(text: str, namespace: dict[str, Any], source: Source | None) -> Any:
    """`nn.ReLU` or `Config()` said in a `--arg`; any other text is a string."""
    try:
        expr = ast.parse(text, mode="eval").body
        if isinstance(expr, ast.Name) and expr.id not in namespace:
            return text
        scope = Scope(source or _NOWHERE, {**_TYPED, **namespace}, None, 0)
        return scope.value(expr)
    except (SyntaxError, ValueError, Unknown):
        return text


def _from_file(
    thing: Callable[..., Any],
    signature: inspect.Signature,
    source: Source | None,
    namespace: dict[str, Any],
) -> tuple[Values, Construction | None]:
    """The arguments of the user's own call; one that can be evaluated completely is preferred."""
    if source is None:
        return {}, None
    best: tuple[Values, Construction | None] = {}, None
    with generators_restored():
        for construction in constructions(source, _name(thing)):
            scope = construction.scope(namespace)
            found, complete = own_arguments(construction, signature, scope)
            if complete:
                return found, construction
            if best[1] is None or len(found) > len(best[0]):
                best = found, construction
    return best


def signature_text(thing: Callable[..., Any]) -> str:
    """`(input_dim, latent_dim=16)`, shortened to one line."""
    text = str(_signature(thing))
    return text if len(text) <= 200 else text[:197] + "..."


def _signature(thing: Callable[..., Any]) -> inspect.Signature:
    try:
        return inspect.signature(thing)
    except (TypeError, ValueError):
        return inspect.Signature()


def _required(signature: inspect.Signature) -> list[inspect.Parameter]:
    return [
        p
        for p in signature.parameters.values()
        if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
    ]


def _defaults(thing: Callable[..., Any]) -> Values:
    parameters = _signature(thing).parameters.values()
    return {p.name: p.default for p in parameters if p.default is not p.empty}


def _annotations(thing: Callable[..., Any]) -> dict[str, Any]:
    try:
        return typing.get_type_hints(vars(thing)["__init__"] if isinstance(thing, type) else thing)
    except Exception:
        return {}


def _copied(value: Any) -> Any:
    try:
        return copy.deepcopy(value)
    except Exception:
        return value


def _arguments(values: Values) -> str:
    return " ".join(f"--arg {shlex.quote(f'{k}={_typed(v)}')}" for k, v in values.items())


def _typed(value: Any) -> str:
    if isinstance(value, Part):
        return value.spelled
    if isinstance(value, nn.Module):
        return f"nn.{type(value).__name__}()" if _is_torch(type(value)) else type(value).__name__
    if isinstance(value, type):
        return f"nn.{value.__name__}" if _is_torch(value) else value.__name__
    if isinstance(value, str | torch.device | torch.dtype):
        return str(value)
    return repr(value).replace(", ", ",")


def _is_torch(kind: type) -> bool:
    return kind.__module__.startswith("torch.")


def _name(thing: Any) -> str:
    return str(getattr(thing, "__name__", type(thing).__name__))


def _cannot_guess(
    thing: Callable[..., Any],
    signature: inspect.Signature,
    values: Values,
    missing: list[inspect.Parameter],
    known: Mapping[str, Any],
    namespace: dict[str, Any],
    label: str,
) -> TargetError:
    sizes = Sizes({k: v for k, v in known.items() if not isinstance(v, nn.Module)})
    words, unknown = [], []
    for p in missing:
        options = _choices(p, _annotations(thing).get(p.name, p.annotation), sizes, namespace)
        if not options:
            unknown.append(f"`{p.name}`")
        words.append(
            shlex.quote(f"{p.name}={_typed(options[0])}") if options else f"{p.name}=VALUE"
        )
    command = f"vaedoctor check {label} " + " ".join(f"--arg {w}" for w in words)
    return TargetError(
        f"`{_name(thing)}{signature_text(thing)}` needs {' and '.join(unknown)}, "
        "which cannot be made up",
        next_step=command,
    )


def _cannot_construct(plan: Plan, error: BaseException, label: str) -> TargetError:
    name = _name(plan.thing)
    again = f"vaedoctor check {label}"
    if plan.made_up:
        again += f" {_arguments(plan.made_up)}"
        message = (
            f"`{name}{signature_text(plan.thing)}` could not be constructed "
            f"with made-up arguments: {summary(error)}"
        )
        return TargetError(message, traceback=user_traceback(error), next_step=again)
    return TargetError(
        f"`{name}` raised {summary(error)} while it was constructed",
        traceback=user_traceback(error),
        next_step=f"correct `{name}.__init__`, then `{again}`"
        if isinstance(plan.thing, type)
        else f"correct `{name}`, then `{again}`",
    )


_TYPED = {"torch": torch, "nn": nn, "SimpleNamespace": types.SimpleNamespace}
_NOWHERE = Source(Path("<arg>"), "", ast.Module([], []))
