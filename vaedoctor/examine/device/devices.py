"""Device requests in calls: what was asked for, and whether the source spells it out."""

from __future__ import annotations

import ast
import linecache
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ...finding import Span
from ..code.listing import functions_in, text_of, tree_of
from ..code.places import Frame
from ..runs.flow import JOINS

Ask = str | int | torch.device | Tensor

_NAMES = re.compile(r"(cpu|cuda|mps|xpu|hpu|npu|xla)(:\d+)?")
_MOVES = frozenset("to cuda cpu xpu type".split())
_TENSOR_TYPE = re.compile(r"torch\.(?:(\w+)\.)?(\w+Tensor)")

_GOES_SOMEWHERE = re.compile(
    r"cuda|\bmps\b|\bxpu\b|\bxla\b|\.to\(|torch\.device\(|default_d|accelerat|lightning|fabric|"
    r"double|float64|half|float16|autocast",
    re.IGNORECASE,
)

FREE = frozenset(
    "to copy_ type_as expand_as view_as reshape_as set_ tensor as_tensor asarray __set__ size "
    "_pack_padded_sequence _pad_packed_sequence broadcast_tensors align_tensors tensor_split "
    "is_same_size is_set_to resize_as_ ctc_loss Parameter".split()
)
"""Operations that take operands from several devices: they copy, or read sizes alone."""

RECURRENT = frozenset("lstm gru rnn_tanh rnn_relu".split())
"""Operations whose packed batch sizes live on the CPU."""

_INDEXED = frozenset(["__getitem__", "__setitem__", "index_put_", "index_put"])


@dataclass(frozen=True, slots=True)
class Call:
    """A call without its device request, and the request."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    ask: Ask | None = None


def without_request(
    name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any], world: torch.device
) -> Call:
    """Take the device out of a call; what remains runs on `world`."""
    rest = dict(kwargs)
    if name in ("cuda", "xpu", "cpu"):
        given = rest.get("device", args[1] if len(args) > 1 else None)
        return Call((args[0], world), {}, name if given is None else given)
    if name == "type" and len(args) > 1:
        return _typed(args, rest)
    if name == "type_as":
        return Call(args, rest, args[1])
    if name == "to":
        other = rest.get("other")
        ask = rest.pop("device", other)
        plain = list(args)
        for i, item in enumerate(plain[1:], start=1):
            if isinstance(item, Tensor):
                ask = item
            elif isinstance(item, (str, torch.device)) or _is_index(item, i):
                ask, plain[i] = item, world
        if ask is not None and ask is not other and not isinstance(ask, Tensor):
            rest |= {} if any(item is world for item in plain[1:]) else {"device": world}
        return Call(tuple(plain), rest, ask)
    if rest.get("device") is not None:
        ask, rest["device"] = rest["device"], world
        return Call(args, rest, ask)
    return Call(args, rest)


def _is_index(item: object, position: int) -> bool:
    return position == 1 and isinstance(item, int) and not isinstance(item, bool)


def _typed(args: tuple[Any, ...], rest: dict[str, Any]) -> Call:
    """`x.type("torch.cuda.FloatTensor")` asks for a device by the tensor type's name."""
    wanted = args[1]
    if isinstance(wanted, torch.dtype):
        return Call(args, rest)
    name = wanted if isinstance(wanted, str) else f"{wanted.__module__}.{wanted.__name__}"
    found = _TENSOR_TYPE.fullmatch(name)
    if found is None:
        return Call(args, rest)
    return Call((args[0], f"torch.{found[2]}", *args[2:]), rest, found[1] or "cpu")


def stray_operands(
    name: str, args: tuple[Any, ...], operands: list[Tensor], places: list[torch.device]
) -> list[int]:
    """Positions of the operands that a real accelerator would refuse beside the others.

    The rules of ATen's `TensorIterator`: a 0-d CPU tensor may stand beside any device, nothing
    else may. Indices may stay on the CPU, a slice assignment copies.
    """
    if len(set(places)) < 2 or name in FREE or name.endswith("_like") or name.startswith("new"):
        return []
    if name in _INDEXED:
        return _stray_index(name, args, operands, places)
    exempt = name not in JOINS  # a join takes no scalar from elsewhere
    moved = next((p for p, t in zip(places, operands, strict=True) if p.type != "cpu"), None)
    return [
        i
        for i, (place, operand) in enumerate(zip(places, operands, strict=True))
        if place != moved
        and not (exempt and operand.dim() == 0 and place.type == "cpu")
        and not (name in RECURRENT and not operand.is_floating_point())
    ]


def _stray_index(
    name: str, args: tuple[Any, ...], operands: list[Tensor], places: list[torch.device]
) -> list[int]:
    home = places[0]
    written = args[-1] if name != "__getitem__" and isinstance(args[-1], Tensor) else None
    advanced = any(t.dim() > 0 for t in operands[1:] if t is not written and t is not operands[0])
    found = []
    for i, (place, operand) in enumerate(zip(places, operands, strict=True)):
        if i == 0 or place == home or operand.dim() == 0:
            continue
        copied = operand is written and not advanced and name == "__setitem__"
        if not copied and (operand is written or place.type != "cpu"):
            found.append(0 if home.type == "cpu" else i)
    return found


# -- the source ------------------------------------------------------------------------------


def spelled_out_in(frames: Sequence[Frame]) -> bool:
    """Whether the innermost call names its device itself, or the call that hands it down."""
    for frame in frames:
        if spelled_out(frame.span):
            return True
        if not _handed_down(frame):
            return False
    return False


def _handed_down(frame: Frame) -> bool:
    """Whether the device of the running call is a parameter of the function it is written in."""
    node = _call_at(frame.span)
    if node is None:
        return False
    method = node.func.attr if isinstance(node.func, ast.Attribute) else ""
    code = frame.code
    parameters = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
    asked = _device_arguments(node, method)
    return any(isinstance(e, ast.Name) and e.id in parameters for e in asked)


def spelled_out(span: Span | None) -> bool:
    """Whether the call at a place names its device itself, as a literal.

    A variable counts where everything assigned to it in the same function (an attribute: in the
    same class) is a literal. `"cuda" if torch.cuda.is_available() else "cpu"` is none.
    """
    node = _call_at(span)
    if node is None or span is None:
        return False
    method = node.func.attr if isinstance(node.func, ast.Attribute) else ""
    if method in ("cuda", "cpu", "xpu") and not node.args and not node.keywords:
        return True
    return any(_literal(e, span) for e in _device_arguments(node, method))


def _call_at(span: Span | None) -> ast.Call | None:
    try:
        node = ast.parse(text_of(span).strip(), mode="eval").body
    except SyntaxError:
        return None
    return node if isinstance(node, ast.Call) else None


def _device_arguments(node: ast.Call, method: str) -> Iterator[ast.expr]:
    yield from (k.value for k in node.keywords if k.arg == "device")
    if method in _MOVES:
        yield from node.args


def _literal(node: ast.expr, span: Span) -> bool:
    if isinstance(node, ast.Constant):
        named = isinstance(node.value, str) and (
            _NAMES.fullmatch(node.value) or _TENSOR_TYPE.fullmatch(node.value)
        )
        return bool(named) or (isinstance(node.value, int) and not isinstance(node.value, bool))
    if isinstance(node, ast.Call) and node.args:
        function = getattr(node.func, "attr", getattr(node.func, "id", ""))
        return function == "device" and _literal(node.args[0], span)
    if isinstance(node, ast.Attribute) and node.attr.endswith("Tensor"):
        return True
    assigned = list(_assigned(node, span))
    return bool(assigned) and all(_literal(value, span) for value in assigned)


def _assigned(node: ast.expr, span: Span) -> Iterator[ast.expr]:
    """What is assigned to a local name in its function, to an attribute in its class."""
    if isinstance(node, ast.Name):
        inside = [m for m in functions_in(span.file) if m.lines[0] <= span.line <= m.lines[1]]
        scope: ast.AST | None = max(inside, key=lambda m: m.lines[0]).node if inside else None
    elif isinstance(node, ast.Attribute) and getattr(node.value, "id", "") == "self":
        classes = [n for n in ast.walk(tree_of(span.file)) if isinstance(n, ast.ClassDef)]
        around = [n for n in classes if n.lineno <= span.line <= (n.end_lineno or n.lineno)]
        scope = max(around, key=lambda n: n.lineno, default=None)
    else:
        return
    for found in ast.walk(scope) if scope is not None else ():
        targets = found.targets if isinstance(found, ast.Assign) else []
        for target in targets:
            same = (
                target.id == node.id
                if isinstance(target, ast.Name) and isinstance(node, ast.Name)
                else isinstance(target, ast.Attribute)
                and isinstance(node, ast.Attribute)
                and target.attr == node.attr
            )
            if same and isinstance(found, ast.Assign):
                yield found.value


def names_a_device(span: Span | None) -> bool:
    """Whether a statement says where its tensor goes: `.to(device)`, `device=…`, `.cuda()`."""
    return bool(re.search(r"\bdevice\b|\bDEVICE\b|\.to\(|\.cuda\(", text_of(span)))


def stays_by_design(span: Span | None) -> bool:
    """Whether a place is in a script that neither moves nor casts things.

    That is outside its classes, and outside the functions that those call.
    """
    if span is None or _GOES_SOMEWHERE.search("".join(linecache.getlines(span.file))):
        return False
    tree = tree_of(span.file)
    functions = {n.name: n for n in tree.body if isinstance(n, ast.FunctionDef)}
    inner: list[ast.ClassDef | ast.FunctionDef] = [
        n for n in ast.walk(tree) if isinstance(n, ast.ClassDef)
    ]
    for node in inner:  # grows by what is called
        named = {n.id for n in ast.walk(node) if isinstance(n, ast.Name)}
        inner.extend(functions.pop(name) for name in sorted(named & functions.keys()))
    return not any(n.lineno <= span.line <= (n.end_lineno or n.lineno) for n in inner)


def moved_if_told(span: Span | None) -> bool:
    """Whether the code moves what a place makes where a flag says so: `if args.cuda: u = u.cuda()`.

    A guard that asks a tensor or torch is true on the pretended machine. What a script asked when
    it was loaded is a flag by then, which the real machine answers otherwise.
    """
    if span is None:
        return False
    around = [m for m in functions_in(span.file) if m.lines[0] <= span.line <= m.lines[1]]
    if not around:
        return False
    function = max(around, key=lambda m: m.lines[0]).node
    made = {n for s in ast.walk(function) if _within(span, s) for n in _names_given(s)}
    for node in ast.walk(function):
        match node:
            case ast.If(body=body, orelse=orelse):
                branches = [body, orelse]
                inside = [any(_within(span, s) for s in branch) for branch in branches]
                if any(inside):
                    other = branches[inside.index(False)] if not all(inside) else []
                    if made & {n for s in other if _moves(s) for n in _names_given(s)}:
                        return True
                elif node.lineno > span.line:
                    moved = {n for s in body if _moves(s) for n in _names_given(s)}
                    if made & moved:
                        return True
            case ast.Assign(value=ast.IfExp(body=one, orelse=other)):
                later = node.lineno > span.line and bool(made & _names_given(node))
                if (later or _within(span, node)) and _moves(one) is not _moves(other):
                    return True
    return False


def _within(span: Span, node: ast.AST) -> bool:
    first, last = getattr(node, "lineno", 0), getattr(node, "end_lineno", 0) or 0
    return first <= span.line <= last


def _names_given(node: ast.AST) -> set[str]:
    targets = node.targets if isinstance(node, ast.Assign) else []
    return {n.id for t in targets for n in ast.walk(t) if isinstance(n, ast.Name)}


def _moves(node: ast.AST) -> bool:
    return any(
        isinstance(n, ast.Attribute) and n.attr in ("cuda", "to", "xpu") for n in ast.walk(node)
    )
