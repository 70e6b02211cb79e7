"""The anatomy as a torch-free picture: x → encoder → location and scale → sample → … → x_hat."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ..finding import Part, Picture, Span
from ..rule import Unavailable
from .anatomy import Anatomy
from .flow import Flow
from .latents import Head, Latent, path_of
from .recording import Op, Value

if TYPE_CHECKING:
    from .examination import Examination

MOST_LATENTS = 4  # a sequence model has a latent a step; the picture shows the first few


def draw(examination: Examination) -> Picture:
    """The picture of one examination; empty where the step could not run."""
    try:
        anatomy = examination.anatomy
    except Unavailable:
        return Picture()
    return Picture(anatomy.family, anatomy.confidence, tuple(_parts(anatomy)))


def _parts(anatomy: Anatomy) -> Iterator[Part]:
    flow = anatomy.flow
    if anatomy.x is not None:
        yield Part("x", "", anatomy.x.shape)
    first = anatomy.latents[0] if anatomy.latents else None
    heads = _heads(anatomy, first)
    yield from _layers(flow, anatomy.x, [h.op for h in heads], "encoder", heads)
    if anatomy.unsampled is not None:
        yield _head_part("location", anatomy.unsampled.loc_head, anatomy.unsampled.loc.value)
        yield _head_part("scale", anatomy.unsampled.scale_head, anatomy.unsampled.scale.value)
    for latent in anatomy.latents[:MOST_LATENTS]:
        if latent.loc is not None and latent.loc_head is not None:
            yield _head_part("location", latent.loc_head, latent.loc)
        if latent.scale is not None and latent.scale_head is not None:
            yield _head_part("scale", latent.scale_head, latent.scale)
        yield Part("sample", latent.draw.name, latent.z.shape, _at(latent.z) or latent.meeting.span)
    if len(anatomy.latents) > MOST_LATENTS:
        yield Part(f"{len(anatomy.latents) - MOST_LATENTS} more samples", "")
    if anatomy.x_hat is not None:
        if first is not None:
            yield from _decoder(flow, first, anatomy.x_hat)
        yield Part("x_hat", anatomy.x_hat_name, anatomy.x_hat.shape, _at(anatomy.x_hat))


def _at(value: Value) -> Span | None:
    return value.op.span if value.op is not None else None


def _heads(anatomy: Anatomy, first: Latent | None) -> list[Head]:
    if first is not None:
        return [h for h in (first.loc_head, first.scale_head) if h is not None]
    if anatomy.unsampled is not None:
        return [anatomy.unsampled.loc_head, anatomy.unsampled.scale_head]
    return []


def _head_part(role: str, head: Head, value: Value) -> Part:
    return Part(role, head.path or head.op.name, value.shape, head.op.span)


def _layers(
    flow: Flow, x: Value | None, ends: list[Op], role: str, heads: list[Head]
) -> Iterator[Part]:
    """The topmost modules that ran between x and the heads, one part each."""
    if x is None or not ends:
        return
    way = flow.descendants(x) & flow.ancestors(*[op.out for op in ends])
    paths = {h.path for h in heads}
    yield from _units(flow, way, role, paths)


def _decoder(flow: Flow, latent: Latent, x_hat: Value) -> Iterator[Part]:
    way = (flow.descendants(latent.z) & flow.ancestors(x_hat)) - {latent.z.index}
    yield from _units(flow, way, "layer", set())


def _units(flow: Flow, way: set[int], role: str, skip: set[str]) -> Iterator[Part]:
    seen: dict[str, Op] = {}
    for op in flow.recording.ops:
        if op.makes and op.out.index in way and flow.layer(op):
            path = _unit(path_of(op), skip)
            if path and path not in skip:
                seen[path] = op
    for path, op in seen.items():
        yield Part(role, path, op.out.shape, op.span)


def _unit(path: str, skip: set[str]) -> str:
    """The topmost module on a layer's path that does not also hold one of the heads."""
    parts = path.split(".")
    for end in range(1, len(parts) + 1):
        prefix = ".".join(parts[:end])
        if not any(s == prefix or s.startswith(f"{prefix}.") for s in skip):
            return prefix
    return path
