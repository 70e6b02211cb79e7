"""Which recorded values are x, x_hat and the latents, and of which family the model is."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass, field, replace

import torch

from ..runs.flow import Flow
from ..runs.outputs import Output, outputs_of
from ..runs.recording import Op, Recording, Value
from .latents import PRODUCTS, Latent, find_latents
from .moves import inputs_of, only_moved
from .reconstruction import compared_values, input_of, reconstruction
from .unsampled import Unsampled, unsampled_heads

EXTREMES = frozenset({"min", "max", "sort"})
LOOKUPS = frozenset("argmin argmax topk round round_ sign floor one_hot".split())


@dataclass(slots=True)
class Anatomy:
    """Which recorded values are x, x_hat and the latents, and how sure that is."""

    recording: Recording
    flow: Flow
    outputs: list[Output]
    x: Value | None
    x_hat: Value | None
    x_hat_name: str
    latents: list[Latent] = field(default_factory=list)
    unsampled: Unsampled | None = None
    family: str = "none"
    confidence: str = "low"
    quantizer: Op | None = None
    penalty: str = "kl"

    @property
    def sampled(self) -> list[Latent]:
        """The latents whose sample reaches the reconstruction, or one of another input."""
        return [latent for latent in self.latents if latent.reaches]

    @property
    def affine(self) -> list[Latent]:
        """Latents made as location + scale * noise."""
        return [latent for latent in self.latents if latent.loc is not None]


def anatomize(recording: Recording, flow: Flow) -> Anatomy:
    """Read the anatomy off one recorded training step. Pure: runs nothing."""
    outputs = outputs_of(recording)
    shapes = {v.shape for v in inputs_of(recording)}
    latents = [x for x in find_latents(flow) if not _drawn_from_output(flow, x, shapes)]
    x_hat, name = reconstruction(recording, flow, outputs, latents)
    x = input_of(recording, flow, x_hat)
    anatomy = Anatomy(recording, flow, outputs, x, x_hat, name)
    behind = flow.alive(x_hat, *_beside(anatomy, latents)) if x_hat is not None else set()
    latents = [replace(found, reaches=found.z.index in behind) for found in latents]
    latents = [found for found in latents if found.reaches or found.scale is not None]
    scaled = [found for found in latents if found.scale is not None or found.family != "gaussian"]
    anatomy.latents = scaled or latents
    anatomy.quantizer = _quantizer(flow, behind)
    if not anatomy.latents and anatomy.quantizer is None:
        anatomy.unsampled = unsampled_heads(flow, outputs, x_hat)
    anatomy.family, anatomy.confidence = _family(anatomy)
    return anatomy


def _beside(anatomy: Anatomy, latents: list[Latent]) -> list[Value]:
    """What is compared entry by entry with another input, as a second decoder's output is."""
    recording, flow = anatomy.recording, anatomy.flow
    others = {
        v.index
        for v in inputs_of(recording)
        if v is not anatomy.x and len(v.shape) > 1 and v.tensor.is_floating_point()
    }
    compared = compared_values(recording, flow, [found.z for found in latents]) if others else []
    return [value for value, op in compared if any(only_moved(flow, v, others) for v in op.reads)]


def _drawn_from_output(flow: Flow, latent: Latent, shapes: set[tuple[int, ...]]) -> bool:
    """Whether a draw is made from the reconstruction itself, so that no layer follows it.

    A product of the draw with itself, as of the nodes of a graph, is a decoder too.
    """
    of_samples = any(v is not None and flow.noise[v.index] for v in (latent.loc, latent.scale))
    if not of_samples and latent.z.shape not in shapes:
        return False
    after = flow.descendants(latent.z)
    later = [op for op in flow.recording.ops if op.makes and op.out.index in after]
    with_itself = (op.name in PRODUCTS and all(v.index in after for v in op.reads) for op in later)
    return not (any(with_itself) or any(flow.layer(op) for op in later))


def _family(anatomy: Anatomy) -> tuple[str, str]:
    families = sorted({latent.family for latent in anatomy.latents})
    if families:
        reaching = anatomy.sampled
        certain = reaching and all(found.loc is not None for found in reaching)
        return " + ".join(families), "high" if certain else "medium"
    if anatomy.quantizer is not None:
        return "vq", "medium"
    if anatomy.unsampled is not None:
        return "gaussian (never sampled)", "medium"
    return "none", "low"


def _quantizer(flow: Flow, behind: Set[int]) -> Op | None:
    """A nearest-neighbour look-up or a rounding between the encoder and the reconstruction."""
    for op in flow.recording.ops:
        made = [m for m in op.makes if m.index in behind]
        if op.name in EXTREMES:  # of `distances.min(1)` the place, not the value
            made = [m for m in made if not m.tensor.is_floating_point()]
        elif op.name not in LOOKUPS and not _two_level(flow, op):
            continue
        if made and any(flow.posterior(v) for v in op.reads):
            return op
    return None


def _two_level(flow: Flow, op: Op) -> bool:
    """Whether an operation chooses between two numbers by the sign of what the encoder made."""
    if op.name != "where" or not op.reads or op.reads[0].tensor.dtype is not torch.bool:
        return False
    choices = op.reads[1:]
    levels = torch.unique(op.out.tensor.detach())
    return not any(flow.posterior(v) for v in choices) and len(levels) <= 2
