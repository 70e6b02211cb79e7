"""A step that raised: which operation, in which module, with which shapes, and who sent them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from types import ModuleType, TracebackType

from torch import nn

from ...finding import Span, where
from ...subject.errors import user_traceback
from ..anatomy.heads import path_of
from ..anatomy.latents import ADDS, FUSED, MULS
from ..anatomy.moves import inputs_of, only_moved
from ..code.places import is_user_file, span_of
from ..runs.flow import JOINS, RESHAPES, Flow
from ..runs.recording import Call, Op, Recording, Value
from ..structure.branches import defined_at

CONVOLUTIONS = frozenset(
    "conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d".split()
)
NORMS = frozenset("batch_norm layer_norm group_norm instance_norm".split())

CELLS = frozenset("lstm_cell gru_cell rnn_tanh_cell rnn_relu_cell".split())


@dataclass(frozen=True, slots=True)
class Mismatch:
    """A layer that received a size it was not built for."""

    layer: str
    expected: int
    arrived: int
    shape: tuple[int, ...]
    sender: str
    sent_at: Span | None
    defined_at: Span | None
    parameter: str


@dataclass(frozen=True, slots=True)
class Failure:
    """What ended the step: the error, its operation and module, the user's own traceback."""

    error: BaseException
    op: Op | None
    path: str
    at: Span | None
    traceback: str
    shapes: tuple[tuple[int, ...], ...]
    senders: tuple[str, ...]
    in_loss: bool
    mismatch: Mismatch | None
    cause: str

    @property
    def kind(self) -> str:
        """The exception's type name."""
        return type(self.error).__name__

    @property
    def operation(self) -> str:
        """The name of the operation that raised."""
        return self.op.name if self.op is not None else ""

    @property
    def whatever_the_input(self) -> bool:
        """Whether no other input can mend it: a missing name or method, an end of the program."""
        if isinstance(self.error, SystemExit):
            return True
        if isinstance(self.error, AttributeError):
            return isinstance(self.error.obj, nn.Module | ModuleType | type)
        return isinstance(self.error, NameError) and not isinstance(self.error, UnboundLocalError)

    @property
    def explained(self) -> bool:
        """Whether a more specific rule than VAE002 speaks about it."""
        return self.cause != "other"


def explain(model: nn.Module, recording: Recording, flow: Flow, *, guessed: bool) -> Failure | None:
    """Read the failure off a recording that ended in an exception; None where none did.

    `cause` says which rule explains it: "posterior" (heads that do not fit), "target" (x_hat and
    x in the loss), "shapes" (a broken chain) or "other".
    """
    error = recording.error
    if error is None:
        return None
    op = next((o for o in reversed(recording.ops) if o.error is error), None)
    call = next((c for c in reversed(recording.calls) if c.output is None), None)
    path = path_of(op) if op is not None else (call.path if call is not None else "")
    mismatch = _mismatch(model, flow, op) if op is not None else _refused(model, flow, call)
    return Failure(
        error,
        op,
        path,
        op.span if op is not None and op.span is not None else raised_at(error),
        user_traceback(error),
        tuple(v.shape for v in op.reads) if op is not None else (),
        tuple(_arrivals(flow, op)) if op is not None else (),
        recording.forward_end >= 0,
        mismatch,
        _cause(recording, flow, op, mismatch, guessed=guessed),
    )


def _cause(
    recording: Recording, flow: Flow, op: Op | None, mismatch: Mismatch | None, *, guessed: bool
) -> str:
    made_up = mismatch is not None and mismatch.sender == "the input" and guessed
    if op is None:
        return "other" if mismatch is None or made_up else "shapes"
    if guessed and (not any(flow.posterior(v) for v in op.reads) or _untried(recording, flow, op)):
        made_up = True  # no layer has run on it yet: the made-up batch itself does not fit
    if made_up or not _is_shape_error(op, mismatch):
        return "other"
    if posterior_operands(flow, op) is not None:
        return "posterior"
    pair = target_operands(recording, flow, op)
    if pair is None:
        return "shapes"
    return "other" if guessed and _beside_another(recording, flow, pair[1]) else "target"


def _beside_another(recording: Recording, flow: Flow, x: Value) -> bool:
    """Whether x enters the first layer side by side with another input, so its width is free."""
    given = {v.index for v in recording.values if v.source in ("input", "condition")}
    own = flow.ancestors(x) & given
    return any(
        own & flow.ancestors(op.out) and given & flow.ancestors(op.out) - own
        for op in recording.ops
        if op.name in JOINS and op.makes and not flow.learned[op.out.index]
    )


def _untried(recording: Recording, flow: Flow, op: Op) -> bool:
    """Whether an operation of the forward pass reads an input that no layer has taken yet."""
    if recording.forward_end >= 0:
        return False
    given = {v.index for v in recording.values if v.source in ("input", "condition")}
    taken = flow.ancestors(*(v for o in recording.ops if flow.layer(o) for v in o.reads))
    fresh = given - taken
    return any(flow.ancestors(v) & fresh for v in op.reads if not flow.learned[v.index])


def _arrivals(flow: Flow, op: Op) -> Iterator[str]:
    for value in op.reads[:2]:
        sender, at = sender_of(flow, value)
        place = f"`{sender}` in {where(at, op.span)}" if at is not None else sender
        yield f"{list(value.shape)} comes from {place}"


def posterior_operands(flow: Flow, op: Op) -> tuple[Value, Value] | None:
    """(location, scale) where a sampler's own arithmetic failed on two heads of unlike shape."""
    if op.name not in ADDS | MULS | FUSED | {"normal", "broadcast_tensors"}:
        return None
    heads = [v for v in op.reads if flow.posterior(v)]
    noisy = [v for v in op.reads if flow.noise[v.index]]
    if len(op.reads) < 2 or not heads or not (noisy or op.name == "broadcast_tensors"):
        return None
    if noisy and not any(_freshly_drawn(flow, v) for v in noisy):
        return None  # terms of a loss inside forward
    scale = next((v for v in noisy if flow.posterior(v)), None) or heads[-1]
    loc = next((v for v in heads if v is not scale), heads[0])
    return (loc, scale) if loc.shape != scale.shape else None


def _freshly_drawn(flow: Flow, value: Value) -> bool:
    """Whether a draw reaches a value without passing through any layer."""
    layers = [op.out for op in flow.recording.ops if op.makes and flow.layer(op)]
    near = flow.ancestors(value, stop=[v for v in layers if v is not value])
    return any(draw.value.index in near for draw in flow.draws)


def target_operands(recording: Recording, flow: Flow, op: Op) -> tuple[Value, Value] | None:
    """(x_hat, x) where an operation of unlike operands compares the two."""
    raw = {v.index for v in inputs_of(recording)}
    plain = [v for v in op.reads if only_moved(flow, v, raw)]
    learned = [v for v in op.reads if flow.posterior(v)]
    return (learned[0], plain[0]) if plain and learned else None


def raised_at(error: BaseException) -> Span | None:
    """The innermost place of an exception in the user's own files."""
    found = None
    trace: TracebackType | None = error.__traceback__
    while trace is not None:
        code = trace.tb_frame.f_code
        if is_user_file(code.co_filename):
            found = span_of(code, trace.tb_lasti)
        trace = trace.tb_next
    return found


def _mismatch(model: nn.Module, flow: Flow, op: Op) -> Mismatch | None:
    """Read expected and received size off the failing operation's operands."""
    sizes = _sizes(op)
    if sizes is None:
        return None
    data, weight, expected, arrived, parameter = sizes
    layer, _, _ = weight.name.rpartition(".")
    sender, sent_at = sender_of(flow, data)
    known = layer and weight.source in ("parameter", "buffer")
    return Mismatch(
        layer or weight.name or path_of(op),
        expected,
        arrived,
        data.shape,
        sender,
        sent_at,
        defined_at(model, layer) if known else None,
        parameter,
    )


def _refused(model: nn.Module, flow: Flow, call: Call | None) -> Mismatch | None:
    """A recurrent layer looks at the sizes of input and state before any operation runs."""
    if call is None or not isinstance(call.module, nn.RNNBase | nn.RNNCellBase) or not call.inputs:
        return None
    states = 0 if getattr(call.module, "proj_size", 0) else len(call.inputs) - 1
    built = [call.module.input_size, *[call.module.hidden_size] * states]
    for i, (data, expected) in enumerate(zip(call.inputs, built, strict=False)):
        if data.shape and data.shape[-1] != expected:
            sender, sent_at = sender_of(flow, data)
            at = defined_at(model, call.path) if call.path else None
            name = call.path or type(call.module).__name__
            size = "hidden_size" if i else "input_size"
            arrived = data.shape[-1]
            return Mismatch(name, expected, arrived, data.shape, sender, sent_at, at, size)
    return None


def _sizes(op: Op) -> tuple[Value, Value, int, int, str] | None:
    """(data, weight, expected, arrived, constructor parameter) of a layer fed a wrong size."""
    reads = op.reads
    if op.name == "linear" and len(reads) >= 2 and reads[0].shape:
        data, weight = reads[0], reads[1]
        return data, weight, weight.shape[-1], data.shape[-1], "in_features"
    if op.name in CONVOLUTIONS and len(reads) >= 2:
        data, weight = reads[0], reads[1]
        groups = _groups(op)
        channels = -(len(weight.shape) - 1)
        if len(data.shape) < len(weight.shape) - 1:
            return None
        expected = weight.shape[0] if "transpose" in op.name else weight.shape[1] * groups
        return data, weight, expected, data.shape[channels], "in_channels"
    if op.name == "multi_head_attention_forward" and reads[0].shape:
        weights = [v for v in reads if v.source == "parameter" and len(v.shape) == 2]
        if weights:
            return reads[0], weights[0], weights[0].shape[1], reads[0].shape[-1], "embed_dim"
    if op.name in CELLS and reads and reads[0].shape:
        weights = [v for v in reads if v.source == "parameter" and len(v.shape) == 2]
        if weights:
            return reads[0], weights[0], weights[0].shape[1], reads[0].shape[-1], "input_size"
    if op.name in NORMS and len(reads) >= 2:
        data = reads[0]
        weights = [v for v in reads[1:] if v.source in ("parameter", "buffer") and v.shape]
        if weights:
            weight = weights[0]
            axis = -1 if op.name == "layer_norm" else min(1, len(data.shape) - 1)
            parameter = "normalized_shape" if op.name == "layer_norm" else "num_features"
            return data, weight, weight.shape[-1], data.shape[axis], parameter
    return None


def _groups(op: Op) -> int:
    groups = op.kwargs.get("groups")
    position = 7 if "transpose" in op.name else 6
    if groups is None and len(op.args) > position and "transpose" not in op.name:
        groups = op.args[position]
    return int(groups) if isinstance(groups, int) else 1


def sender_of(flow: Flow, value: Value) -> tuple[str, Span | None]:
    """The layer (else the operation) a value came from, past reshapes and joins."""
    while value.op is not None:
        op = value.op
        if flow.layer(op):
            return path_of(op) or op.name, op.span
        parents = flow.parents(value)
        if op.name in JOINS or not parents or (len(parents) > 1 and op.name not in RESHAPES):
            return op.name, op.span
        value = parents[0]
    return {"input": "the input", "condition": "the condition"}.get(value.source, value.name), None


_SIZES = (
    "shape", "size", "dimension", "must match", "expected input", "channels", "invalid for",
    "broadcast",
)  # fmt: skip


def _is_shape_error(op: Op, mismatch: Mismatch | None) -> bool:
    """Whether the operation failed because sizes do not fit (and nothing else)."""
    if not isinstance(op.error, RuntimeError | ValueError | IndexError | AssertionError):
        return False
    if mismatch is not None:
        return mismatch.expected != mismatch.arrived
    text = str(op.error).lower()
    return any(word in text for word in _SIZES)
