"""Record one run: every tensor operation, what it read, what it made, and the user's line.

A `TorchFunctionMode` sees the user's own calls under their public names. Values and shapes flow
apart: `randn_like(std)` reads only the *shape* of `std`, so its result does not depend on it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules import module as module_hooks
from torch.overrides import TorchFunctionMode

from ...finding import Span
from ..code.places import Frame, user_frames
from .direct import around_forward
from .edits import Edits, by_operation, edited
from .ledger import Ledger, wraps
from .recording import (
    DRAWS,
    ESCAPES,
    Call,
    GradSwitch,
    Op,
    Recording,
    Value,
    operands,
    tensors_in,
)

SHAPE_ONLY = frozenset(
    "randn_like rand_like randint_like zeros_like ones_like empty_like full_like new "
    "new_empty new_zeros new_ones new_full new_empty_strided normal_ uniform_ exponential_ "
    "log_normal_ cauchy_ geometric_ random_ zero_ fill_ resize_ dim numel size".split()
)
"""Operations whose result depends on the shape of their tensor input, never on its values."""

LIKE_SECOND = frozenset("expand_as view_as reshape_as type_as to".split())
"""Operations that take only shape or type from their second tensor."""

_OVERWRITING = frozenset(["bernoulli_", "copy_"])

_SPECIAL = {"__pow__": "pow", "__rsub__": "rsub", "__matmul__": "matmul", "__rmatmul__": "matmul"}


@dataclass(slots=True)
class _Reading:
    """What an operation is about to read, and the version of every tensor it was given."""

    values: tuple[Value, ...]
    shapes: tuple[Value, ...]
    tensors: list[Tensor]
    versions: list[int]


class Recorder(TorchFunctionMode):
    """Records the operations of one run of `model`; `edits` replace what an operation returns.

    Edits are the way to pin a latent or to force a head without knowing any name.
    """

    def __init__(
        self,
        model: nn.Module,
        named: Mapping[int, tuple[str, str]],
        paths: Mapping[int, str],
        edits: Edits | None = None,
    ) -> None:
        super().__init__()
        self.recording = Recording()
        self._model = model
        self._edits = by_operation(edits or {})
        self._paths = paths
        self._stack: list[Call] = []
        self._given = False
        self._ledger = Ledger(self.recording, named, self._unseen)
        self._paused = False
        self._met: dict[int, Frame] = {}

    def __enter__(self) -> Recorder:
        before = module_hooks.register_module_forward_pre_hook(self._enter_module)
        after = module_hooks.register_module_forward_hook(self._leave_module, always_call=True)
        self._hooks = (before, after)
        self._direct = around_forward(self._model, self._pass)
        self._direct.__enter__()
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        super().__exit__(kind, error, trace)  # type: ignore[no-untyped-call]
        self._direct.__exit__(None, None, None)
        for hook in self._hooks:
            hook.remove()
        self._stack.clear()
        self._ledger.close()

    # -- modules ---------------------------------------------------------------------------

    def _enter_module(self, module: nn.Module, args: Any) -> None:
        if self._paused or _level() is not None:
            return
        self._paused = True  # our own work: unrecorded, and a bug in it never reaches the run
        try:
            span, _ = self._place()
            call = Call(
                module,
                self._paths.get(id(module), ""),
                self._stack[-1] if self._stack else None,
                span,
                len(self.recording.ops),
                tuple([self._ledger.value(t) for t in tensors_in(args)]),
            )
            self._stack.append(call)
            self.recording.calls.append(call)
        except Exception as bug:
            self.recording.fault = self.recording.fault or bug
        finally:
            self._paused = False

    def _leave_module(self, module: nn.Module, args: Any, output: Any) -> None:
        if self._paused or _level() is not None:
            return
        self._paused = True
        try:
            while self._stack:
                call = self._stack.pop()
                call.last = len(self.recording.ops)
                if call.module is module:
                    call.output = output
                    call.outputs = tuple([self._ledger.value(t) for t in tensors_in(output)])
                    raised = output is None and sys.exc_info()[1] is not None
                    if module is self._model and not self._stack and not raised:
                        self._returned(call)
                    return
        except Exception as bug:
            self.recording.fault = self.recording.fault or bug
        finally:
            self._paused = False

    def _pass(self, run: Callable[[], Any], args: tuple[Any, ...]) -> Any:
        """A forward pass of the model: as a module's call, also where it is none."""
        if any(call.module is self._model for call in self._stack):
            return run()
        self._enter_module(self._model, args)
        output = None
        try:
            output = run()
            return output
        finally:
            self._leave_module(self._model, args, output)

    def _returned(self, call: Call) -> None:
        """Keep the last output of the model; one that was given the batch before any other.

        An adversarial loss runs the model on its own fakes as well.
        """
        given = any(v.source == "input" for v in call.inputs)
        if given or not self._given:
            self._given = given
            self.recording.output = call.output
            self.recording.forward_end = call.last

    # -- operations ------------------------------------------------------------------------

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if self._paused or _level() is not None:
            return func(*args, **kwargs)
        self.recording.turns += 1
        name = getattr(func, "__name__", "")
        if name == "_set_grad_enabled":
            return self._switch(func, args)
        if name == "__get__":
            return self._property(func, args, kwargs)
        return self._operation(func, name, args, kwargs)

    def _switch(self, func: Any, args: tuple[Any, ...]) -> Any:
        self._paused = True
        try:
            span, frames = self._place()
            if frames:
                self.recording.switches.append(
                    GradSwitch(len(self.recording.ops), bool(args[0]), span)
                )
        finally:
            self._paused = False
        return func(*args)

    def _execute(self, func: Any, name: str, args: tuple[Any, ...], kwargs: Any) -> Any:
        """Run one operation; a recorder that plays a part answers in its place."""
        return func(*args, **kwargs)

    def _property(self, func: Any, args: tuple[Any, ...], kwargs: Any) -> Any:
        out = self._execute(func, "__get__", args, kwargs)
        if isinstance(out, Tensor) and out is not args[0]:
            owner = getattr(func, "__self__", None)
            name = getattr(owner, "__name__", "property")
            if name in ("grad", "_grad"):
                return out
            return self._record(name, args, kwargs, out, self._read(name, args, kwargs))
        return out

    def _operation(self, func: Any, name: str, args: tuple[Any, ...], kwargs: Any) -> Any:
        name = _SPECIAL.get(name, name)
        read = self._read(name, args, kwargs)
        self._paused = True  # torch's own inner calls are part of this operation
        try:
            out = self._execute(func, name, args, kwargs)
        except BaseException as error:
            self._op(name, args, kwargs, read).error = error
            raise
        finally:
            self._paused = False
        return self._record(name, args, kwargs, out, read)

    def _read(self, name: str, args: Any, kwargs: Any) -> _Reading:
        """The values an operation is about to read: before an in-place one changes them."""
        found: list[Value] = []
        self._paused = True
        try:
            found = [self._ledger.value(t) for t in operands(args, kwargs) if not wraps(t)]
        except Exception as bug:
            self.recording.fault = self.recording.fault or bug
        finally:
            self._paused = False
        tensors = [v.tensor for v in found]
        by_shape = slice(0, 0)
        if name in SHAPE_ONLY:
            by_shape = slice(0, len(found))
        elif name in LIKE_SECOND:
            by_shape = slice(1, len(found))
        elif name == "new_tensor" or (name in _OVERWRITING and len(found) > 1):
            by_shape = slice(0, 1)
        shapes = tuple(found[by_shape])
        del found[by_shape]
        return _Reading(tuple(found), shapes, tensors, _versions(tensors))

    def _unseen(self, name: str, reads: tuple[Value, ...]) -> Op:
        return self._op(name, (), {}, _Reading(reads, (), [], []))

    def _op(self, name: str, args: Any, kwargs: Any, read: _Reading) -> Op:
        span, frames = self._place()
        op = Op(
            index=len(self.recording.ops),
            name=name,
            reads=read.values,
            shapes=read.shapes,
            args=args,
            kwargs=kwargs,
            span=span,
            frames=frames,
            call=self._stack[-1] if self._stack else None,
            grad_mode=torch.is_grad_enabled(),
        )
        self.recording.ops.append(op)
        return op

    def _record(self, name: str, args: Any, kwargs: Any, out: Any, read: _Reading) -> Any:
        self._paused = True
        try:
            outs = [out] if isinstance(out, Tensor) else list(tensors_in(out))
            changed = _changed(read)
            if not outs and not changed and name not in ESCAPES:
                return out
            # `broadcast_tensors` and `contiguous` may hand back what they were given.
            given = {id(v.tensor) for v in read.values} - {id(t) for t in changed}
            fresh = [i for i, t in enumerate(outs) if id(t) not in given]
            if outs and not fresh and not changed:
                return out
            op = self._op(name, args, kwargs, read)
            op.turn = self.recording.turns
            op.inplace = bool(changed)
            for position, edit in self._edits.get(op.index, {}).items():
                if position < len(outs):
                    out, outs = edited(edit, out, outs, position, op.inplace)
            if name in DRAWS and outs:
                op.noise = outs[0].detach().clone()
            made = [self._ledger.new(outs[i], op) for i in fresh]
            op.positions = tuple(fresh)
            for t in changed:
                if not any(t is o for o in outs):
                    made.append(self._ledger.new(t, op))
                made.extend(self._ledger.aliases(t, op))
            op.makes = tuple(made)
        except Exception as bug:
            self.recording.fault = self.recording.fault or bug
        finally:
            self._paused = False
        return out

    # -- places ----------------------------------------------------------------------------

    def _place(self) -> tuple[Span | None, tuple[Frame, ...]]:
        frames = user_frames(sys._getframe(1))
        for frame in frames:
            if id(frame) not in self._met:  # a frame lives on: the hash of its code takes long
                self._met[id(frame)] = frame
                self.recording.functions.setdefault(frame.code, frame)
        return (frames[0].span if frames else None), frames


_level = torch._C._functorch.maybe_current_level
"""Whether a transform of `torch.func` runs: its tensors are wrappers that do not outlive it.

What comes out of it is then one operation, known by its graph.
"""


def _versions(tensors: list[Tensor]) -> list[int]:
    """How often each tensor was written to; -1 where inference mode does not count."""
    try:
        return [t._version for t in tensors]
    except RuntimeError:
        return [-1 if t.is_inference() else t._version for t in tensors]


def _changed(read: _Reading) -> list[Tensor]:
    """What an operation wrote to among what it was given."""
    now = _versions(read.tensors)
    if now == read.versions:
        return []
    pairs = zip(read.tensors, read.versions, now, strict=True)
    return [t for t, before, after in pairs if before != after]
