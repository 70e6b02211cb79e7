"""The stations of the data in one forward pass, in order, each with the value that stands for it.

x, conditions, the topmost modules before each latent, its location, scale and sample, a codebook
or rounding, the modules after it, x_hat.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass

from ...finding import Part
from ..anatomy.anatomy import Anatomy
from ..anatomy.heads import Head, path_of
from ..anatomy.latents import Latent
from ..codebook.codebook import find_codebooks
from ..runs.flow import Flow
from ..runs.naming import local_name
from ..runs.recording import Op, Value

MOST_LATENTS = 4  # a sequence model has a latent a step; the picture shows the first few


@dataclass(frozen=True, slots=True)
class Station:
    """One part of the picture and the recorded value that stands for it."""

    part: Part
    value: Value | None = None


def stations(anatomy: Anatomy, parameters: Sequence[str] = ()) -> list[Station]:
    """Every station, x first and x_hat last, between them in the order of the run.

    `parameters` are the names of forward's parameters, by which the user knows the inputs.
    """
    shown = anatomy.latents[:MOST_LATENTS]
    between = [*_heads(anatomy, shown), *_quantized(anatomy)]
    between += _layers(anatomy, shown, between)
    between.sort(key=_age)
    found = [*_given(anatomy, parameters), *between]
    if len(anatomy.latents) > len(shown):
        more = f"{len(anatomy.latents) - len(shown)} more samples"
        last = max(i for i, s in enumerate(found) if s.part.role == "sample")
        found.insert(last + 1, Station(Part(more, "")))
    if anatomy.x_hat is not None:
        found.append(_ending(anatomy, anatomy.x_hat))
    return found


def _age(station: Station) -> tuple[int, int]:
    """When a station is reached; a location before its scale, whichever was computed first."""
    value = station.value
    assert value is not None
    made = value.op.index if value.op is not None else -1
    return made, value.index


def _given(anatomy: Anatomy, parameters: Sequence[str]) -> Iterator[Station]:
    x = anatomy.x
    if x is not None:
        name = _parameter(x.name, parameters)
        yield Station(Part("x", name if name != "x" and x.name else "", x.shape), x)
    values = anatomy.recording.values
    others = [v for v in values if v.op is None and v.source in ("input", "condition")]
    for value in others:
        if value is not x:
            name = _parameter(value.name, parameters)
            yield Station(Part("condition", name, value.shape), value)


def _parameter(name: str, parameters: Sequence[str]) -> str:
    """The name of the parameter at a position; a keyword is a name already."""
    if not name.isdigit():
        return name
    return parameters[int(name)] if int(name) < len(parameters) else f"input {name}"


def _ending(anatomy: Anatomy, x_hat: Value) -> Station:
    at = x_hat.op.span if x_hat.op is not None else None
    return Station(Part("x_hat", named_output(anatomy), x_hat.shape, at), x_hat)


def named_output(anatomy: Anatomy) -> str:
    """The user's name for the reconstruction: of its entry, its variable, or its position."""
    known = anatomy.x_hat_name
    bare = known in ("output", "x_hat") or known.startswith("[")
    named = local_name(anatomy.x_hat) if bare and anatomy.x_hat is not None else ""
    return named or known


# -- latents ---------------------------------------------------------------------------------


def _heads(anatomy: Anatomy, shown: list[Latent]) -> Iterator[Station]:
    if anatomy.unsampled is not None:
        pair = anatomy.unsampled
        yield _head("location", pair.loc_head, pair.loc.value)
        yield _head("scale", pair.scale_head, pair.scale.value)
    for latent in shown:
        if latent.loc is not None and latent.loc_head is not None:
            yield _head("location", latent.loc_head, latent.loc)
        if latent.scale is not None and latent.scale_head is not None:
            yield _head("scale", latent.scale_head, latent.scale)
        at = (latent.z.op.span if latent.z.op is not None else None) or latent.meeting.span
        name = local_name(latent.z) or latent.draw.name
        yield Station(Part("sample", name, latent.z.shape, at, latent.draw.name), latent.z)


def _head(role: str, head: Head, value: Value) -> Station:
    part = Part(role, head.path or head.op.name, value.shape, head.op.span, _kind(head.op))
    return Station(part, head.value)


def _quantized(anatomy: Anatomy) -> Iterator[Station]:
    if anatomy.latents or anatomy.quantizer is None:
        return
    books = find_codebooks(anatomy)
    for book in books:
        shape = book.table.shape
        yield Station(
            Part("codebook", book.name, shape, book.read.span, book.index.name), book.read.out
        )
    op = anatomy.quantizer
    if not books and op.makes:
        name = local_name(op.out) or op.name
        yield Station(Part("rounding", name, op.out.shape, op.span, op.name), op.out)


# -- layers ----------------------------------------------------------------------------------


def _layers(anatomy: Anatomy, shown: list[Latent], known: list[Station]) -> Iterator[Station]:
    """The topmost modules on the ways between x, the heads, the samples and x_hat."""
    flow, x = anatomy.flow, anatomy.x
    heads = [s for s in known if s.part.role in ("location", "scale")]
    skip = {s.part.name for s in heads}
    middles = [s.value for s in known if s.value is not None and s not in heads]
    ends = [s.value for s in heads if s.value is not None] or middles
    before: Set[int] = set()
    if x is not None and ends:
        before = flow.descendants(x) & flow.ancestors(*ends)
    behind: Set[int] = set()
    goals = [*ends, *([anatomy.x_hat] if anatomy.x_hat is not None else [])]
    starts = middles or ([x] if x is not None and not heads else [])
    starts = starts or [s.value for s in heads if s.value is not None]
    if starts and goals:
        behind = (flow.descendants(*starts) & flow.ancestors(*goals)) - {v.index for v in starts}
    inside = {s.value.index for s in known if s.value is not None}
    yield from _units(anatomy, behind, "layer", skip, inside)
    yield from _units(anatomy, before - behind, "encoder", skip, inside)


def _units(
    anatomy: Anatomy, way: Set[int], role: str, skip: set[str], known: set[int]
) -> Iterator[Station]:
    flow = anatomy.flow
    seen: dict[str, Op] = {}
    for op in flow.recording.ops:
        if op.makes and op.out.index in way and flow.layer(op) and op.out.index not in known:
            path = _unit(path_of(op), skip)
            if path and path not in skip and path not in seen:
                seen[path] = op
    for path, op in seen.items():
        value, kind = _result(op, path, way)
        made = value.op or op
        yield Station(Part(role, path, value.shape, made.span, kind), value)


def _result(op: Op, path: str, way: Set[int]) -> tuple[Value, str]:
    """What the module's call around an operation made on the way, and the module's class."""
    chain = list(op.call.chain()) if op.call is not None else []
    inside = [c for c in chain if c.path == path or c.path.startswith(f"{path}.")]
    if inside:
        call = inside[-1]
        made = [v for v in call.outputs if v.index in way]
        value = max(made, key=lambda v: v.tensor.numel(), default=op.out)
        return value, type(call.module).__name__
    return op.out, _kind(op)


def _kind(op: Op) -> str:
    """The class of the layer that runs an operation."""
    call = next((c for c in op.call.chain() if c.path), None) if op.call is not None else None
    return type(call.module).__name__ if call is not None else op.name


def _unit(path: str, skip: set[str]) -> str:
    """The topmost module on a layer's path that does not also hold one of the heads."""
    parts = path.split(".")
    for end in range(1, len(parts) + 1):
        prefix = ".".join(parts[:end])
        if not any(s == prefix or s.startswith(f"{prefix}.") for s in skip):
            return prefix
    return path


def fed(flow: Flow, found: list[Station]) -> Iterator[tuple[int, int]]:
    """Which station feeds which, with no other station between the two.

    Two stations may share a value: the last layer hands x_hat on as it is.
    """
    place: dict[int, int] = {}
    for i, station in enumerate(found):
        if station.value is not None:
            place.setdefault(station.value.index, i)
    values = [s.value for s in found if s.value is not None]
    for end, station in enumerate(found):
        if station.value is None:
            continue
        twin = place[station.value.index]
        if twin != end:
            yield twin, end
            continue
        stops = [v for v in values if v is not station.value]
        for index in sorted(flow.ancestors(station.value, stop=stops)):
            start = place.get(index)
            if start is not None and start != end:
                yield start, end
