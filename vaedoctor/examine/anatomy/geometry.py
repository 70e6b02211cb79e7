"""The space that samples live in, by identities of their coordinates: a sphere, a ball, a sheet."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..runs.edits import Edits
from ..runs.recording import Op, Value
from ..runs.repeat import repeat
from .anatomy import Anatomy
from .latents import Latent

if TYPE_CHECKING:
    from ..examination import Examination

EVEN = 1e-3
FAR = 1e3
_MOST = 200  # values on the way to the decoder that are looked at
NORMAL = frozenset("randn randn_like normal normal_".split())
_NORMALS = frozenset("layer_norm batch_norm group_norm instance_norm rms_norm".split())

Found = tuple[str, str, str]


def space(examination: Examination, latents: list[Latent]) -> Found | None:
    """The name of a curved space, how sure it is and what shows it; None for a flat one."""
    anatomy = examination.anatomy
    candidates = list(_points(anatomy, latents))
    pushed: dict[int, Tensor] | None = None
    for value in candidates:
        points = value.tensor.detach().double()
        if _binary(points):
            continue
        if _constant(points.norm(dim=-1)):
            return _sphere(anatomy, latents, points)
        if _on_sheet(points):
            return (
                "hyperbolic (hyperboloid)",
                "high",
                "every sample lies on a sheet: -t² + |s|² is one constant for all rows",
            )
        sizes = points.norm(dim=-1)
        if any(value is found.z for found in latents) or bool((sizes > FAR).any()):
            continue
        if pushed is None:
            pushed = _pushed(examination, latents, candidates)
        ball = _ball(pushed.get(value.index), sizes) if not _constant(sizes) else None
        if ball is not None:
            return ball
    return None


def _points(anatomy: Anatomy, latents: list[Latent]) -> Iterator[Value]:
    """What becomes of the sample before a layer reads it: several rows of two or more numbers."""
    flow, x_hat = anatomy.flow, anatomy.x_hat
    if x_hat is None:
        return
    behind = flow.ancestors(x_hat)
    starts = [found.z for found in latents] or [
        v
        for v in anatomy.recording.values
        if v.index in behind and flow.noise[v.index] and flow.posterior(v)
    ][:1]

    def past(op: Op) -> bool:
        return not flow.layer(op) and op.name not in _NORMALS

    for value in islice(flow.onward(*starts, past=past, within=behind - {x_hat.index}), _MOST):
        several = len(value.shape) > 1 and value.shape[-1] > 1
        many = several and value.tensor.numel() > 2 * value.shape[-1]
        if many and value.tensor.is_floating_point():
            yield value


def _binary(points: Tensor) -> bool:
    """Bits or one-hot rows, whose length is constant for another reason."""
    sums = points.sum(-1)
    return bool(((points == 0) | (points == 1)).all()) or bool(
        (sums - sums.mean()).abs().max() < 1e-4
    )


def _constant(sizes: Tensor) -> bool:
    size = float(sizes.mean())
    return size > EVEN and float(sizes.max() - sizes.min()) < EVEN * size


def _sphere(anatomy: Anatomy, latents: list[Latent], points: Tensor) -> Found:
    radius = float(points.norm(dim=-1).mean())
    rows = points.shape[0]
    one = [
        v
        for v in anatomy.recording.values
        if anatomy.flow.posterior(v)
        and v.shape in ((rows,), (rows, 1))
        and not anatomy.flow.noise[v.index]
        and anatomy.x_hat is not None
        and (v.index in anatomy.flow.ancestors(anatomy.x_hat))
        and v.op is not None
        and anatomy.flow.layer(v.op)
    ]
    shown = f"every sample has the length {radius:.3f}"
    if one:
        return (
            "von Mises–Fisher (hypersphere)",
            "high",
            f"{shown}, and one number a row from the encoder says how far it strays",
        )
    sure = "high" if latents else "medium"
    return "projected gaussian (hypersphere)", sure, shown


def _on_sheet(points: Tensor) -> bool:
    """Whether -t² + |s|² is one negative number, with the time coordinate first or last."""
    for time, rest in ((points[..., :1], points[..., 1:]), (points[..., -1:], points[..., :-1])):
        form = (rest**2).sum(-1) - (time**2).squeeze(-1)
        far = bool((time.squeeze(-1) > 0).all()) and float(rest.abs().max()) > EVEN
        if far and bool((form < 0).all()) and _constant(-form) and not _constant(time.squeeze(-1)):
            return True
    return False


def _pushed(
    examination: Examination, latents: list[Latent], candidates: list[Value]
) -> dict[int, Tensor]:
    """The candidates of a run in which the noise is a thousand times as large."""
    flow = examination.anatomy.flow
    reaching = 0
    for value in candidates:
        reaching |= flow.noise[value.index]
    draws = [found.draw for found in latents[:1]] or [
        d for d in flow.draws if reaching & (1 << d.bit)
    ]
    drawn = [d for d in draws if d.op is not None and d.name in NORMAL]
    if not drawn:
        return {}
    edits: Edits = {d.value.place: lambda t: FAR * t for d in drawn}
    made = repeat(
        examination.subject,
        examination.recording,
        seed=examination.seed,
        edits=edits,
        keep=candidates,
        rewind=examination.rewind,
        grad=False,
    )
    return made.tensors


def _ball(far: Tensor | None, sizes: Tensor) -> Found | None:
    """Whether samples stay inside a ball however large the noise is, in every direction."""
    if far is None or far.shape[:-1] != sizes.shape or not bool(torch.isfinite(far).all()):
        return None
    ends = far.detach().double()
    radius = ends.norm(dim=-1)
    inside = bool((sizes < radius.min()).all()) and float(radius.max() - radius.min()) < 0.02
    spread = float(ends.abs().max() - ends.abs().min())
    if not inside or spread < 0.1:  # all coordinates at one bound: a tanh of each
        return None
    shown = f"with the noise {FAR:.0f} times as large every sample stops at radius"
    return "hyperbolic (ball)", "high", f"{shown} {float(radius.mean()):.3f}"
