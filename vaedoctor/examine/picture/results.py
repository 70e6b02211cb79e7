"""What each output of forward is, and of which terms the loss is made."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from ...finding import Result, Term
from ..anatomy.anatomy import Anatomy
from ..anatomy.latents import ADDS, MULS
from ..runs.flow import CUTS, RESHAPES, Flow
from ..runs.naming import local_name
from ..runs.outputs import Output
from ..runs.recording import Op, Value

MOST_TERMS = 200  # a loss summed up in a loop has a term a step
_CLOSE = 1e-4


def results(anatomy: Anatomy) -> Iterator[Result]:
    """Every tensor that forward returned, with what it was found to be."""
    for output in anatomy.outputs:
        value = output.value
        bare = output.name == "output" or output.name.startswith("[")
        name = local_name(value) if bare else output.name
        at = value.op.span if value.op is not None else None
        yield Result(output.name, name, role_of(anatomy, output), value.shape, at)


def role_of(anatomy: Anatomy, output: Output) -> str:
    """What an output is, by identity, by its numbers and by what it depends on."""
    value, flow = output.value, anatomy.flow
    if value is anatomy.x_hat:
        return "x_hat"
    if _is_input(anatomy, value):
        return "the input itself"
    role = _latent_role(anatomy, value)
    if role:
        return role
    loss = _loss_value(anatomy)
    if value.tensor.numel() == 1 or value.shape == _rows(anatomy):
        if loss is not None and _same(value, loss):
            return "loss"
        return _dependence(anatomy, value)
    if not value.tensor.is_floating_point():
        return "codes" if flow.data[value.index] else ""
    if anatomy.x_hat is not None and value.index in flow.ancestors(anatomy.x_hat):
        sampled = any(found.z.index in flow.ancestors(value) for found in anatomy.latents)
        return "decoder feature" if sampled else "encoder feature"
    return "other output"


def _rows(anatomy: Anatomy) -> tuple[int, ...]:
    x = anatomy.x
    return x.shape[:1] if x is not None else ()


def _is_input(anatomy: Anatomy, value: Value) -> bool:
    inputs = [v for v in anatomy.recording.values if v.source in ("input", "condition")]
    while value.op is not None and value.op.name in RESHAPES | CUTS:
        value = anatomy.flow.parents(value)[0]
    return any(value is v or value.tensor is v.tensor for v in inputs)


def _latent_role(anatomy: Anatomy, value: Value) -> str:
    if anatomy.unsampled is not None:
        if value is anatomy.unsampled.loc.value:
            return "location"
        if value is anatomy.unsampled.scale.value:
            return "scale"
    several = len(anatomy.latents) > 1
    for i, latent in enumerate(anatomy.latents):
        which = f" {i + 1}" if several else ""
        if _same(value, latent.z):
            return f"sample{which}"
        if latent.loc is not None and _same(value, latent.loc):
            return f"location{which}"
        if latent.scale is None:
            continue
        meaning = _scale_meaning(value, latent.scale)
        if meaning and _related(anatomy.flow, value, latent.scale):
            return f"{meaning}{which}"
    return ""


def _related(flow: Flow, a: Value, b: Value) -> bool:
    """Whether one is computed from the other, or both from one head."""
    shared = flow.ancestors(a) & flow.ancestors(b)
    return any(flow.posterior(flow.recording.values[i]) for i in shared)


def _scale_meaning(value: Value, scale: Value) -> str:
    """What an output is to the sampler's scale, by its numbers: its logarithm, its square, ..."""
    v, s = value.tensor.detach(), scale.tensor.detach()
    if v.shape != s.shape or not v.is_floating_point() or not s.is_floating_point():
        return ""
    known = (
        ("standard deviation", v),
        ("log-variance", torch.exp(0.5 * v)),
        ("log standard deviation", torch.exp(v)),
        ("variance", v.clamp_min(0).sqrt()),
    )
    return next((name for name, std in known if _alike(std, s)), "")


def _same(a: Value, b: Value) -> bool:
    if a is b:
        return True
    return a.tensor.shape == b.tensor.shape and a.tensor.data_ptr() == b.tensor.data_ptr() != 0


def _alike(a: Tensor, b: Tensor) -> bool:
    return bool(((a - b).abs() <= _CLOSE * b.abs().clamp_min(_CLOSE)).all())


def _dependence(anatomy: Anatomy, value: Value) -> str:
    """A number's part in the loss by what it depends on: the reconstruction, the posterior."""
    flow, x_hat = anatomy.flow, anatomy.x_hat
    behind = flow.ancestors(value)
    decoded = x_hat
    if x_hat is not None and x_hat.index not in behind:
        decoded = before_activation(flow, x_hat)
    if decoded is not None and decoded.index in behind:
        around = flow.ancestors(value, stop=[decoded]) & flow.ancestors(decoded) - {decoded.index}
        both = any(flow.posterior(flow.recording.values[i]) for i in around)
        return f"reconstruction + {_penalty(anatomy)}" if both else "reconstruction"
    if any(flow.posterior(flow.recording.values[i]) for i in behind):
        return _penalty(anatomy)
    return "weights only" if flow.learned[value.index] else ""


def before_activation(flow: Flow, x_hat: Value) -> Value:
    """What the decoder's last layer makes: a loss may take logits where forward returns means."""
    value = x_hat
    while value.op is not None and not flow.layer(value.op):
        learned = [v for v in value.op.reads if flow.learned[v.index]]
        if len(learned) != 1 or flow.noise[value.index] != flow.noise[learned[0].index]:
            return x_hat
        (value,) = learned
    return value


def _penalty(anatomy: Anatomy) -> str:
    """What a term on the latent is called in this family."""
    if anatomy.latents or anatomy.unsampled is not None:
        return "kl" if anatomy.penalty == "kl" else anatomy.penalty
    return "codebook" if anatomy.quantizer is not None else "penalty"


# -- the loss --------------------------------------------------------------------------------


def terms(anatomy: Anatomy) -> Iterator[Term]:
    """The summands of the user's loss; none where there is no loss of the user's."""
    end = _loss_value(anatomy)
    if end is None:
        return
    found: list[tuple[Value, float]] = []
    _summands(anatomy.flow, end, 1.0, found)
    grouped: dict[tuple[str, object], Term] = {}
    for value, factor in found:
        at = value.op.span if value.op is not None else None
        size = value.tensor.detach().double()
        number = float(size.mean()) * factor if size.numel() else 0.0
        role = _dependence(anatomy, value)
        same = grouped.get((role, at))  # a term of every step of a loop, or of every layer
        total = number + (same.value or 0.0 if same is not None else 0.0)
        name = (same.name if same is not None else "") or local_name(value)
        grouped[role, at] = Term(role, name, total, at)
    yield from grouped.values()


def _loss_value(anatomy: Anatomy) -> Value | None:
    loss = anatomy.recording.loss
    return anatomy.recording.value_of(loss) if isinstance(loss, Tensor) else None


def _summands(flow: Flow, value: Value, factor: float, found: list[tuple[Value, float]]) -> None:
    """Take a sum apart as far as it goes through constants, means and reshapes."""
    op = value.op
    parents = [p for p in flow.parents(value) if p.requires_grad] if op is not None else []
    if op is None or len(found) > MOST_TERMS:
        found.append((value, factor))
        return
    if op.name in ADDS and len(parents) > 1 and _elementwise(op, parents):
        for parent in parents:
            _summands(flow, parent, factor * _sign(op, parent), found)
        return
    if len(parents) == 1 and (op.name in RESHAPES or op.name in MULS | ADDS | {"neg", "mean"}):
        inner = _through(flow, parents[0])
        if inner:
            scale = _factor(value, parents[0], op)
            if scale is not None:
                _summands(flow, parents[0], factor * scale, found)
                return
    found.append((value, factor))


def _elementwise(op: Op, parents: list[Value]) -> bool:
    return all(p.shape in ((), op.out.shape) for p in parents)


def _through(flow: Flow, value: Value) -> bool:
    """Whether a sum lies behind: otherwise the weighted term itself is the one to show."""
    for _ in range(12):
        if value.op is None:
            return False
        parents = [p for p in flow.parents(value) if p.requires_grad]
        if value.op.name in ADDS and len(parents) > 1 and _elementwise(value.op, parents):
            return value.tensor.dim() <= 1
        if len(parents) != 1 or value.op.name not in RESHAPES | MULS | ADDS | {"neg", "mean"}:
            return False
        value = parents[0]
    return False


def _sign(op: Op, parent: Value) -> float:
    first = op.reads[0] is parent
    if op.name in ("sub", "sub_", "subtract", "__isub__"):
        return 1.0 if first else -1.0
    return (-1.0 if first else 1.0) if op.name in ("rsub", "__rsub__") else 1.0


def _factor(made: Value, read: Value, op: Op) -> float | None:
    """By which constant an operation multiplies."""
    if op.name == "mean" or op.name in RESHAPES:
        return 1.0
    if op.name in ADDS:
        return -1.0 if op.name in ("rsub", "__rsub__") else 1.0
    a, b = made.tensor.detach().double().mean(), read.tensor.detach().double().mean()
    return float(a / b) if float(b) != 0 else None
