"""A virtual accelerator: parameters, buffers and the batch pretend to have moved.

Everything runs on the real device with real values. What `tensor.device` answers is the pretence,
a device that a call asks for is taken out of the call and remembered for its result, and an
operation that a real accelerator would refuse (operands on two devices) is noted, and goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ...finding import Span
from ...subject.code.cuda import answering, was_moved
from ...subject.subject import Subject
from ..runs.edits import Edits
from ..runs.flow import PAIRWISE
from ..runs.ledger import storage_of
from ..runs.recorder import Recorder
from ..runs.recording import Op, Recording, Value, operands, tensors_in
from ..runs.step import run_recorded
from .devices import Ask, spelled_out_in, stray_operands, without_request

CUDA = torch.device("cuda", 0)
CPU = torch.device("cpu")
OTHER = torch.device("xpu", 0)  # an accelerator on which `torch.cuda` is not there
_MOVES_WITH = frozenset(["parameter", "buffer", "input", "condition"])
_TO_NUMPY = frozenset(["numpy", "__array__"])
_ASKED = frozenset(["is_cuda", "is_cpu", "is_xpu", "is_mps"])


@dataclass(frozen=True, slots=True)
class Mixing:
    """An operation that a real accelerator refuses, and the operand that is elsewhere.

    `stayed` is None where nothing stayed: `numpy()` of a tensor that has moved, or a generator.
    """

    operation: str
    op: Op
    stayed: Value | None
    why: str = "devices"


@dataclass(frozen=True, slots=True)
class Literal:
    """A call that names its device itself, and was executed."""

    device: str
    span: Span


@dataclass(slots=True)
class Pretence:
    """One pretended run: what was refused, and where every value was."""

    home: torch.device
    recording: Recording
    mixings: tuple[Mixing, ...]
    literals: tuple[Literal, ...]
    places: Mapping[int, torch.device]
    literal_values: frozenset[int]
    follows: Mapping[int, Tensor]

    def stayed(self, value: Value) -> bool:
        """Whether a value was not at home."""
        return self.places.get(id(value.tensor), self.home) != self.home


def pretend(
    subject: Subject,
    seed: int,
    *,
    home: torch.device = CUDA,
    run: Callable[[nn.Module], Any] | None = None,
    batch: Any = None,
    train: bool = True,
) -> Pretence:
    """Run the step (or `run`) once as if the model and its batch had moved to `home`."""
    made: list[Accelerator] = []

    def recorder(*given: Any) -> Accelerator:
        made.append(Accelerator(*given, home=home, new=home if subject.made_there else CPU))
        return made[0]

    with _machine(home):
        recording = run_recorded(
            subject, seed=seed, train=train, batch=batch, kind=recorder, run=run
        )
    (player,) = made
    return Pretence(
        home,
        recording,
        tuple(player.mixings()),
        tuple(player.literals),
        player.places,
        frozenset(player.named_here),
        player.follows,
    )


class _Generator(torch.Generator):
    """A generator that remembers the device it was asked for."""

    asked: Any = None

    def __new__(cls, device: Any = "cpu") -> _Generator:
        made: _Generator = super().__new__(cls, "cpu")  # type: ignore[call-arg]
        made.asked = device
        return made

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        return torch.device(self.asked)


@contextmanager
def _machine(home: torch.device) -> Iterator[None]:
    """Let guards such as `if torch.cuda.is_available():` see the pretended machine."""
    there = home.type == "cuda"
    played: list[tuple[Any, str, Any]] = [
        (torch.cuda, "is_available", lambda: there),
        (torch.cuda, "device_count", lambda: int(there)),
        (torch.cuda, "current_device", lambda: 0),
        (torch, "Generator", _Generator),
    ]
    with answering(played):
        yield


class Accelerator(Recorder):
    """A recorder under which what has moved says so, and what mixes devices is noted."""

    def __init__(
        self,
        model: nn.Module,
        named: Mapping[int, tuple[str, str]],
        paths: Mapping[int, str],
        edits: Edits | None = None,
        *,
        home: torch.device = CUDA,
        new: torch.device = CPU,
    ) -> None:
        super().__init__(model, named, paths, edits)
        self.home = home
        self.new = new  # where a tensor is made of which nothing says where
        self.places: dict[int, torch.device] = {}
        self.literals: list[Literal] = []
        self.named_here: set[int] = set()
        self.follows: dict[int, Tensor] = {}
        self._kept: list[Tensor] = []  # an id holds only while its tensor lives
        self._answers: dict[int, tuple[torch.device, Tensor]] = {}
        self._noted: list[tuple[str, int, Tensor | None, str]] = []
        first = next(model.parameters(), None)
        self._named = named
        self._world = first.device if first is not None else torch.device("cpu")

    def mixings(self) -> Iterator[Mixing]:
        """What was refused, with the operations as they were recorded."""
        recording = self.recording
        for name, index, tensor, why in self._noted:
            if index >= len(recording.ops):
                continue
            op = recording.ops[index]
            stayed = next((v for v in (*op.reads, *op.shapes) if v.tensor is tensor), None)
            if tensor is None or stayed is not None:
                yield Mixing(name, op, stayed, why)

    # -- playing the part ------------------------------------------------------------------

    def _execute(self, func: Any, name: str, args: tuple[Any, ...], kwargs: Any) -> Any:
        if name in ("__get__", "__set__"):
            return self._attribute(func, name, args, kwargs)
        if name == "get_device":
            at = self._where(args[0])
            return -1 if at.type == "cpu" else at.index
        if name == "type" and len(args) == 1 and not kwargs:
            kind = self._where(args[0]).type
            return func(*args).replace("torch.", "torch." if kind == "cpu" else f"torch.{kind}.")
        if name == "pin_memory":
            return args[0]
        given = operands(args, kwargs)
        places = [self._where(t) for t in given]
        call = without_request(name, args, kwargs, self._world)
        place = self._answered(call.ask)
        followed = self._followed(call.ask)
        literal = place is not None and followed is None
        self._note(name, args, kwargs, given, places, place)
        func = torch.Tensor.to if name in ("cuda", "xpu", "cpu") else func
        out = func(*call.args, **call.kwargs)
        result = place or self._common(name, args, given, places)
        same = bool(args) and isinstance(out, Tensor) and out is args[0]
        if place is not None and same and place != places[0]:
            out = out.clone()  # where a device changes, a real move copies
        for i, tensor in enumerate(tensors_in(out)):
            if any(tensor is t for t in given):
                continue
            own = places[i] if name in PAIRWISE and i < len(places) else result
            if name == "_pack_padded_sequence" and not tensor.is_floating_point():
                own = torch.device("cpu")
            self._put(tensor, own)
            if literal and own != self.home:
                self.named_here.add(id(tensor))
            elif followed is not None:
                self.follows[id(tensor)] = followed
        return out

    def _attribute(self, func: Any, name: str, args: tuple[Any, ...], kwargs: Any) -> Any:
        attribute = getattr(getattr(func, "__self__", None), "__name__", "")
        if name == "__get__" and attribute == "device":
            place = self._where(args[0])
            return place if place == self.home else self._answer(place, args[0])
        if name == "__get__" and attribute in _ASKED:
            return self._where(args[0]).type == attribute.removeprefix("is_")
        out = func(*args, **kwargs)
        if name == "__set__" and attribute == "data":
            self._put(args[0], self._where(args[1]))
        elif isinstance(out, Tensor) and out is not args[0]:
            self._put(out, self._where(args[0]))
        return out

    def _where(self, tensor: Tensor) -> torch.device:
        known = self.places.get(id(tensor))
        if known is not None:
            return known
        source, _ = self._named.get(id(tensor), ("constant", ""))
        storage = self._ledger.at(storage_of(tensor))
        relative = next((v for v in storage if id(v.tensor) in self.places), None)
        if source in _MOVES_WITH or was_moved(tensor):
            place = self.home
        elif relative is not None and source == "constant":
            place = self.places[id(relative.tensor)]
        else:  # a result of something out of sight has a graph; a constant has none
            place = self.home if tensor.grad_fn is not None else torch.device("cpu")
        return self._put(tensor, place)

    def _put(self, tensor: Tensor, place: torch.device) -> torch.device:
        self.places[id(tensor)] = place
        self._kept.append(tensor)
        return place

    def _answered(self, ask: Ask | None) -> torch.device | None:
        """The device that a request means; None where nothing is asked for.

        `device="cpu"` in a variable is whatever the user's machine offers: it was set on this
        machine, and moves along. Spelled out in the call, it is the CPU.
        """
        if ask is None:
            return None
        if isinstance(ask, Tensor):
            return self._where(ask)
        followed = self._followed(ask)
        if followed is not None:
            return self._where(followed)
        wanted = torch.device(self.home.type, ask) if isinstance(ask, int) else torch.device(ask)
        if ask is self.home or wanted.type == "meta":
            return wanted
        span, frames = self._place()
        literal = spelled_out_in(frames)
        if literal and span is not None:
            self.literals.append(Literal(str(wanted), span))
        if wanted.type == "cpu":
            return wanted if literal else self.home
        if wanted.type == self.home.type and wanted.index is None:
            return self.home
        return wanted if literal else self.home

    def _answer(self, place: torch.device, tensor: Tensor) -> torch.device:
        """What a tensor that stayed says: a device object known again by its identity."""
        self._ledger.value(tensor)
        said = torch.device(str(place))
        self._answers[id(said)] = (said, tensor)
        return said

    def _followed(self, ask: Ask | None) -> Tensor | None:
        """The tensor whose device is asked for, as in `.to(other)` and `device=other.device`."""
        if isinstance(ask, Tensor):
            return ask
        return self._answers[id(ask)][1] if id(ask) in self._answers else None

    def _common(
        self, name: str, args: tuple[Any, ...], given: list[Tensor], places: list[torch.device]
    ) -> torch.device:
        """The device of a result: that of its operands, of the first where only sizes are read."""
        if name in ("tensor", "as_tensor", "asarray") and not isinstance(args[0], Tensor):
            return self.new
        if not given:
            return self.new if name != "from_numpy" else CPU
        if name.endswith("_like") or name.startswith("new") or name in ("expand_as", "view_as"):
            return places[0]
        sized = [p for p, t in zip(places, given, strict=True) if t.dim() > 0] or places
        return next((p for p in sized if p.type != "cpu"), sized[0])

    def _note(
        self,
        name: str,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        given: list[Tensor],
        places: list[torch.device],
        asked: torch.device | None,
    ) -> None:
        index = len(self.recording.ops)
        if name in _TO_NUMPY and places and places[0].type != "cpu":
            self._noted.append((name, index, None, "numpy"))
        for i in stray_operands(name, args, given, places):
            self._noted.append((name, index, given[i], "devices"))
        generator = kwargs.get("generator")
        if isinstance(generator, torch.Generator):
            made_at = asked or (places[0] if places else torch.device("cpu"))
            if torch.device(generator.device).type != made_at.type:
                self._noted.append((name, index, None, "generator"))
