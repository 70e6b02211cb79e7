"""What stays behind when a model moves, where it comes from, and in which of its methods."""

from __future__ import annotations

import ast
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from types import ModuleType

from torch import Tensor, nn

from ...finding import Span
from ...subject.subject import Subject
from ..anatomy.heads import path_of
from ..code.listing import Method, calls_in, functions_in, methods_of, text_of, tree_of
from ..code.methods import method_calls
from ..runs.flow import JOINS
from ..runs.inventory import unregistered_modules
from ..runs.recording import DRAWS, Op, Recording, Value
from ..shapes.failure import raised_at
from ..structure.branches import hiding_places
from .accelerator import CUDA, OTHER, Literal, Mixing, Pretence, pretend
from .devices import FREE, moved_if_told, names_a_device, stays_by_design
from .realmove import accelerator, refused

_ENTERING = frozenset("from_numpy FloatTensor DoubleTensor Tensor LongTensor IntTensor".split())
_DRAWN = frozenset({*DRAWS, "normal_"})


@dataclass(frozen=True, slots=True)
class Stayed:
    """One tensor that stays behind: what it is, where it is made, where it meets the others.

    `kind`: noise, constant, attribute, layer, numpy, literal, generator or "to numpy".
    """

    kind: str
    name: str
    at: Span | None
    operation: str
    mixed_at: Span | None
    path: str
    method: str
    causes: frozenset[str]
    device: str = "cpu"


@dataclass(frozen=True, slots=True)
class Moved:
    """The pretended move: what stayed behind, what names its device, which methods were tried.

    `agrees` says whether a real accelerator refuses and accepts the same; None without one.
    """

    stayed: tuple[Stayed, ...]
    literals: tuple[Literal, ...]
    methods: tuple[str, ...]
    error: BaseException | None
    agrees: bool | None = None


def examine_move(
    subject: Subject,
    seed: int,
    rewind: Callable[[], None],
    *,
    latent: Tensor | None = None,
    stuck: bool = False,
) -> Moved:
    """Pretend to move the model: the step, and the methods that can be called as it stands.

    `stuck` says that the step raises without the pretence.
    """
    found: dict[object, Stayed] = {}
    done = ["forward"]
    first = pretend(subject, seed)
    literals = list(first.literals)
    _collect(found, subject, first, "forward")
    first.recording.release()
    rewind()
    if (error := first.recording.error) is not None:
        if "type torch.cuda." in str(error) and (at := raised_at(error)) is not None:
            literals.append(Literal("cuda", at))  # `torch.cuda.FloatTensor`
        missing = tuple(one for one in literals if not one.device.startswith("cpu"))
        return Moved(tuple(found.values()), missing, (), error)
    for name, run in () if stuck else method_calls(subject, latent, CUDA):
        batch = subject.batch
        if latent is not None:
            batch = replace(batch, args=(*batch.args, latent))
        other = pretend(subject, seed, run=run, batch=batch, train=False)
        rewind()
        if other.recording.error is None:
            done.append(name)
            literals += other.literals
            _collect(found, subject, other, name)
        other.recording.release()
    elsewhere = tuple(_elsewhere(subject, seed, rewind, literals))
    agrees = None
    if (device := accelerator()) is not None and not stuck:
        real = refused(subject, device, seed, rewind)
        agrees = None if real is None else real is bool(first.mixings)
    return Moved(tuple(found.values()), elsewhere, tuple(done), None, agrees)


def _elsewhere(
    subject: Subject, seed: int, rewind: Callable[[], None], literals: list[Literal]
) -> Iterator[Literal]:
    """Calls that still ask for `cuda` on a machine without it: those behind no guard."""
    if not any(found.device.startswith("cuda") for found in literals):
        return
    other = pretend(subject, seed, home=OTHER)
    rewind()
    seen: set[tuple[str, int]] = set()
    for literal in other.literals:
        place = (literal.span.file, literal.span.line)
        if literal.device.startswith("cuda") and place not in seen:
            seen.add(place)
            yield literal


@dataclass(frozen=True, slots=True)
class Scattered:
    """A parameter that lives elsewhere than most and meets them in `op`."""

    name: str
    device: str
    most: str
    devices: int
    count: int
    op: Op


def scattered(model: nn.Module, recording: Recording) -> Scattered | None:
    """The first parameter or buffer on another device that the step mixes with the rest."""
    named = [*model.named_parameters(), *model.named_buffers()]
    devices = [t.device for _, t in named]
    if len(set(devices)) < 2:
        return None
    most = max(devices, key=devices.count)
    odd = {id(t): n for n, t in named if t.device != most}
    for op in recording.ops:
        elsewhere = [v for v in op.reads if id(v.tensor) in odd and (v.shape or op.name in JOINS)]
        others = {v.tensor.device for v in op.reads if v.shape}
        if elsewhere and op.name not in FREE and others - {elsewhere[0].tensor.device}:
            first = elsewhere[0].tensor
            name, device = odd[id(first)], str(first.device)
            return Scattered(name, device, str(most), len(set(devices)), len(odd), op)
    return None


# -- where it comes from ---------------------------------------------------------------------


def _collect(
    found: dict[object, Stayed], subject: Subject, pretence: Pretence, method: str
) -> None:
    for mixing in pretence.mixings:
        stayed = _judged(subject, pretence, mixing, method)
        if stayed is not None:
            at = stayed.at
            key = (stayed.kind, at.file, at.line) if at is not None else (stayed.kind, stayed.name)
            found.setdefault(key, stayed)


def _judged(subject: Subject, pretence: Pretence, mixing: Mixing, method: str) -> Stayed | None:
    op = mixing.op
    if mixing.stayed is None:
        kind = "to numpy" if mixing.why == "numpy" else "generator"
        return _stayed(kind, mixing.operation, op.span, mixing, method, _lines(op.span))
    weight = mixing.stayed.tensor
    if isinstance(weight, nn.Parameter) and not _was_there(subject.model, weight):
        return None  # of a layer made in the forward pass: VAE103
    leaves = list(_origins(pretence, mixing.stayed))
    named = [v for v in leaves if id(v.tensor) in pretence.literal_values]
    if named and named[0].op is not None:
        origin = named[0].op
        device = str(pretence.places[id(named[0].tensor)])
        stayed = _stayed("literal", origin.name, origin.span, mixing, method, _lines(origin.span))
        return replace(stayed, device=device)
    held = [v for v in leaves if v.op is None]
    for value in held:
        stayed_ = _held(subject, pretence, value, mixing, method)
        if stayed_ is not None:
            return stayed_
    if held and all(v.source == "constant" for v in held):
        written = [v for v in leaves if v.op is not None and v.op.name in _DRAWN]
        if not written:
            return None  # made before the run, who knows where
        leaves = written
    made = [v.op for v in leaves if v.op is not None]
    if not made:
        return None
    drawn = [o for o in made if o.name in _DRAWN]
    origin = (drawn or made)[0]
    if stays_by_design(origin.span) or moved_if_told(origin.span):
        return None
    kind = "noise" if drawn else "constant"
    return _stayed(kind, origin.name, origin.span, mixing, method, _lines(origin.span))


def _origins(pretence: Pretence, value: Value) -> Iterator[Value]:
    """What a value that stayed is computed from, as far back as everything stayed."""
    waiting, seen = [value], set[int]()
    while waiting:
        value = waiting.pop(0)
        if value.index in seen:
            continue
        seen.add(value.index)
        op = value.op
        if op is None or id(value.tensor) in pretence.literal_values:
            yield value
            continue
        picked = op.name == "__getitem__"  # where an index is does not matter
        read = op.reads[:1] if picked else (*op.reads, *op.shapes)
        parents = [p for p in read if pretence.stayed(p)]
        followed = pretence.follows.get(id(value.tensor))
        other = pretence.recording.value_of(followed) if followed is not None else None
        if other is not None and pretence.stayed(other):
            parents = [other]
        elif op.name in _DRAWN or not parents:
            yield value
        waiting.extend(p for p in parents if p.shape or not any(q.shape for q in parents))


def _held(
    subject: Subject, pretence: Pretence, value: Value, mixing: Mixing, method: str
) -> Stayed | None:
    """A tensor that was there before the run: on the model, on a hidden layer, a global."""
    model = subject.model
    places = dict(hiding_places(model))
    if value.source == "stray":
        hidden = hidden_owners(model, value.tensor)
        if not hidden or not mixing.op.grad_mode:
            return None  # made in the run, global, or a frozen network that is moved by hand
        causes = {f"module:{id(m)}" for m in hidden} | {f"tensor:{id(value.tensor)}"}
        place = next((places[id(m)] for m in hidden if id(m) in places), None) or places.get(
            id(value.tensor)
        )
        at = (place.at if place else None) or mixing.op.span
        name = place.expression if place else "a layer"
        return _stayed("layer", name, at, mixing, method, frozenset(causes) | _lines(at))
    if value.source == "attribute":
        place = places.get(id(value.tensor))
        if place is None or names_a_device(place.at) or _moved_by_hand(model, place.attribute):
            return None
        if _assigned_while_running(pretence, place.at):
            return None
        causes = {f"tensor:{id(value.tensor)}", f"state:{place.attribute}"}
        at = place.at or mixing.op.span
        causes_ = frozenset(causes) | _lines(at)
        return _stayed("attribute", place.expression, at, mixing, method, causes_)
    if value.source == "constant":
        return _entered(model, value, mixing, method)
    return None


def _was_there(model: nn.Module, tensor: Tensor) -> bool:
    return bool(hidden_owners(model, tensor)) or id(tensor) in dict(hiding_places(model))


def hidden_owners(model: nn.Module, tensor: Tensor) -> list[nn.Module]:
    """The unregistered modules that hold a weight and are to be trained."""
    return [
        m
        for m in unregistered_modules(model)
        if any(t is tensor for t in (*m.parameters(), *m.buffers()))
        and any(p.requires_grad for p in m.parameters())
    ]


def _moved_by_hand(model: nn.Module, attribute: str) -> bool:
    """Whether a method such as `_apply` or `to` of the user's own takes the attribute along."""
    return any(
        m.name in ("_apply", "to", "cuda")
        and attribute in text_of(Span(m.file, m.lines[0], 1, m.lines[1], 0))
        for m in _methods(model)
    )


def _methods(model: nn.Module) -> Iterator[Method]:
    for kind in {type(m) for m in model.modules()}:
        yield from methods_of(kind)


def _assigned_while_running(pretence: Pretence, at: Span | None) -> bool:
    """Whether the attribute is one that the forward pass itself keeps (a cache)."""
    if at is None:
        return True
    return any(
        f.file == at.file and m.lines[0] <= at.line <= m.lines[1] and m.name == f.code.co_name
        for f in pretence.recording.functions.values()
        if f.file == at.file
        for m in functions_in(f.file)
    )


def _entered(model: nn.Module, value: Value, mixing: Mixing, method: str) -> Stayed | None:
    """A tensor out of sight until it was used: a global, or one that NumPy made."""
    files = {m.file for m in _methods(model)}
    for module in _modules(model):
        for name, thing in vars(module).items():
            if thing is value.tensor:
                at = _global_at(getattr(module, "__file__", "") or "", name)
                if at is None or names_a_device(at):
                    return None
                return _stayed("constant", name, at, mixing, method, _lines(at))
    calls = [s for k in {type(m) for m in model.modules()} for s in calls_in(k, _ENTERING)]
    calls = [s for s in calls if s.file in files]
    if not calls or value.tensor.grad_fn is not None:
        return None
    if any(names_a_device(s) for s in calls):
        return None
    user = value.op or mixing.op
    lines = {f.span.line for f in user.frames if f.span is not None}
    at = min(calls, key=lambda s: (s.line not in lines, s.line))
    return _stayed("numpy", text_of(at), at, mixing, method, _lines(at))


def _modules(model: nn.Module) -> Iterator[ModuleType]:
    for name in {type(m).__module__ for m in model.modules()}:
        if name in sys.modules and not name.startswith("torch."):
            yield sys.modules[name]


def _global_at(file: str, name: str) -> Span | None:
    for node in tree_of(file).body:
        if isinstance(node, ast.Assign) and any(
            isinstance(t, ast.Name) and t.id == name for t in node.targets
        ):
            end = node.end_lineno or node.lineno
            return Span(file, node.lineno, node.col_offset + 1, end, (node.end_col_offset or 0) + 1)
    return None


def _lines(at: Span | None) -> frozenset[str]:
    return frozenset({f"line:{at.file}:{at.line}"} if at is not None else ())


def _stayed(
    kind: str, name: str, at: Span | None, mixing: Mixing, method: str, causes: frozenset[str]
) -> Stayed:
    op: Op = mixing.op
    return Stayed(kind, name, at, op.name, op.span, path_of(op), method, causes)
