"""Examine the model itself and leave no trace: a snapshot, and its restoration whatever happens.

A deep copy fails on models that keep graph tensors on `self` and can silently measure another
model (a closure still holds the original's parameters), so the original is examined and restored.
"""

from __future__ import annotations

import ast
import collections
import ctypes
import functools
import inspect
import random
import sys
import types
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import chain
from operator import attrgetter, is_
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

_OPAQUE = (type, types.ModuleType, types.BuiltinFunctionType, torch.dtype, torch.device, ast.AST)
_MUTABLE = (list, dict, set, collections.deque)
_RESTORED = (*_MUTABLE, nn.Module)
_LEFT_ALONE = (
    *(Tensor, tuple, frozenset, types.FunctionType, types.MethodType, torch.optim.Optimizer),
    *_OPAQUE,
)
_HOOKS = ("_backward_hooks", "_post_accumulate_grad_hooks")
_ATOMS = (type(None), str, bytes, int, float)
_MOST = 100_000


def reachable(root: object) -> Iterator[object]:
    """Every object a model can reach through attributes, containers and closures.

    Modules hidden in plain lists, tensors kept as attributes and helper objects are met too;
    of torch's own objects only distributions are entered.
    """
    seen: set[int] = set()
    waiting = [root]
    while waiting and len(seen) < _MOST:
        thing = waiting.pop()
        if id(thing) in seen or isinstance(thing, _ATOMS):
            continue
        seen.add(id(thing))
        yield thing
        waiting.extend(_inside(thing))


def _inside(thing: object) -> Iterable[Any]:
    kind: Any = type(thing)
    return _way_into(kind)(thing)


@functools.lru_cache(maxsize=1 << 10)
def _way_into(kind: type[Any]) -> Callable[[Any], Iterable[Any]]:
    """How to list what an object of a class holds."""
    if issubclass(kind, Tensor):
        return _nothing
    if issubclass(kind, dict):
        return dict.values
    if issubclass(kind, (list, tuple, set, frozenset, collections.deque)):
        return list
    if issubclass(kind, types.FunctionType):
        return _enclosed
    if issubclass(kind, types.MethodType):
        return lambda method: [method.__self__]
    if issubclass(kind, functools.partial):
        return lambda made: [made.func, made.args, made.keywords]
    if issubclass(kind, (*_OPAQUE, torch.optim.Optimizer)):
        return _nothing
    outside = not kind.__module__.startswith("torch.")
    if outside or issubclass(kind, (nn.Module, torch.distributions.Distribution)):
        return _attributes
    return _nothing


def _nothing(thing: object) -> Iterable[Any]:
    return ()


def _enclosed(function: types.FunctionType) -> Iterable[Any]:
    return [c.cell_contents for c in function.__closure__ or () if _filled(c)]


def _attributes(thing: object) -> Iterable[Any]:
    kind: Any = type(thing)
    held = [getattr(thing, s, None) for s in _slots_of(kind)]
    return [*held, *getattr(thing, "__dict__", {}).values()]


@functools.lru_cache(maxsize=1 << 10)
def _slots_of(kind: type[Any]) -> tuple[str, ...]:
    slots = [s for base in kind.__mro__ for s in getattr(base, "__slots__", ())]
    return tuple(s for s in slots if not s.startswith("__"))


def _filled(cell: types.CellType) -> bool:
    try:
        cell.cell_contents  # noqa: B018
    except ValueError:
        return False
    return True


class _TensorState:
    """Value, storage, gradient slot, flag and class of one leaf tensor."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor
        self.kind = type(tensor)
        self.requires_grad = tensor.requires_grad
        self.grad = tensor.grad
        self.hooks = {name: _copied(getattr(tensor, name, None)) for name in _HOOKS}
        self.raw = tensor.data
        self.uninitialized = is_lazy(tensor)
        self.value = None if self.uninitialized else tensor.detach().clone()
        self.at = 0 if self.uninitialized else self.raw.data_ptr()
        self.plain = self.value is not None and _plain(self.raw) and _plain(self.value)

    def restore(self) -> None:
        tensor = self.tensor
        if self.uninitialized:
            if type(tensor) is not self.kind:
                tensor.data = self.raw
                tensor.__class__ = self.kind
        else:
            if tensor.data_ptr() != self.at or tensor.shape != self.raw.shape:
                tensor.data = self.raw
            # Copy only what changed: a needless write would spoil a graph the user still holds.
            if self._changed():
                self.raw.copy_(self.value)  # type: ignore[arg-type]
        if tensor.is_leaf:
            if tensor.requires_grad != self.requires_grad:
                tensor.requires_grad_(self.requires_grad)
            tensor.grad = self.grad
        for name, then in self.hooks.items():
            now = getattr(tensor, name, None)
            if now is not None and now != then:
                now.clear()  # the engine reads this very dictionary
                now.update(then or {})
                setattr(tensor, name, None if then is None else now)

    def _changed(self) -> bool:
        assert self.value is not None
        if self.plain and _memcmp is not None:
            return bool(_memcmp(self.at, self.value.data_ptr(), self.value.nbytes))
        return not self.raw.is_meta and not same_bits(self.raw, self.value)


def _copied(hooks: Any) -> Any:
    return None if hooks is None else hooks.copy()


class Contents:
    """What every module, helper object and container among some objects holds, by identity.

    Experiments ask after every run whether anything is otherwise, nearly always in vain: one pass
    in C over all of them answers that.
    """

    def __init__(self, things: Iterable[object]) -> None:
        self._owners = [t for t in things if _is_plain_state(t)]
        self._kinds = [*map(type, self._owners)]
        self._objects = [t for t in self._owners if not isinstance(t, _MUTABLE)]
        self._attributes = [*map(_ATTRIBUTES, self._objects)]
        containers: list[Any] = [t for t in self._owners if isinstance(t, _MUTABLE)]
        self._dicts = [*self._attributes, *(c for c in containers if isinstance(c, dict))]
        self._others = [c for c in containers if not isinstance(c, dict)]
        self._sizes = self._now()
        self._held = [*self._identities()]
        self._modes = [
            (vars(t), vars(t)["training"]) for t in self._objects if "training" in vars(t)
        ]
        self._copies = [c.copy() for c in (*self._dicts, *self._others)]

    def _now(self) -> list[int]:
        return [*map(len, self._dicts), *map(len, self._others)]

    def _identities(self) -> Iterator[object]:
        keys, values = map(dict.keys, self._dicts), map(dict.values, self._dicts)
        return chain.from_iterable(chain(keys, values, self._others))

    def same(self) -> bool:
        """Whether each still has its class and holds the same objects in the same order."""
        return (
            all(map(is_, map(type, self._owners), self._kinds))
            and all(map(is_, map(_ATTRIBUTES, self._objects), self._attributes))
            and self._now() == self._sizes
            and all(map(is_, self._identities(), self._held))
        )

    def restore(self) -> None:
        """Put classes, attributes and contents back."""
        for attributes, training in self._modes:  # what most runs change, and nothing else
            attributes["training"] = training
        if self.same():
            return
        for thing, kind in zip(self._owners, self._kinds, strict=True):
            if type(thing) is not kind:
                thing.__class__ = kind
        for thing, attributes in zip(self._objects, self._attributes, strict=True):
            if thing.__dict__ is not attributes:
                object.__setattr__(thing, "__dict__", attributes)
        for content, copy in zip((*self._dicts, *self._others), self._copies, strict=True):
            if len(content) == len(copy) and _alike(content, copy):
                continue
            content.clear()
            if isinstance(content, (list, collections.deque)):
                content.extend(copy)
            else:
                content.update(copy)


_ATTRIBUTES = attrgetter("__dict__")


def _alike(content: Any, copy: Any) -> bool:
    """Whether two containers of one size hold the same objects in the same order."""
    if isinstance(content, set):
        return set(map(id, content)) == set(map(id, copy))
    if isinstance(content, dict) and not all(map(is_, dict.values(content), dict.values(copy))):
        return False
    return all(map(is_, content, copy))


def _find_memcmp() -> Callable[[int, int, int], int] | None:
    """C's comparison of memory, seven times as fast as `torch.equal`, where it can be had."""
    try:
        found = ctypes.pythonapi.memcmp
    except AttributeError:
        return None
    found.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t]
    found.restype = ctypes.c_int
    return found


_memcmp = _find_memcmp()


def _plain(tensor: Tensor) -> bool:
    """Whether the elements lie side by side in this process's memory."""
    strided = tensor.layout is torch.strided and tensor.device.type == "cpu"
    return strided and tensor.is_contiguous() and not tensor.is_conj() and not tensor.is_neg()


def same_bits(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors are equal bit for bit, NaN included."""
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    if a.layout is not torch.strided or a.is_complex() or a.is_quantized:
        return bool(torch.equal(a, b))
    return bool(torch.equal(a, b)) or (
        a.is_floating_point()
        and bool(((a == b) | ((a != a) & (b != b))).all())
        and bool(torch.equal(torch.signbit(a), torch.signbit(b)))
    )


def _is_plain_state(thing: object) -> bool:
    if isinstance(thing, _RESTORED):
        return True
    if isinstance(thing, _LEFT_ALONE):
        return False
    # An alias such as `list[int]` lends its class's dict, which is none to be restored.
    own = isinstance(getattr(thing, "__dict__", None), dict)
    return own and not type(thing).__module__.startswith("torch.")


def seed_everything(seed: int) -> None:
    """Seed torch, Python and (where it is loaded) NumPy."""
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.manual_seed(seed)
    else:  # `torch.manual_seed` formats a traceback for a device that is not there
        torch.default_generator.manual_seed(seed)
    random.seed(seed)
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed(seed % 2**32)


def set_mode(model: nn.Module, training: bool) -> None:
    """Training or evaluation mode; a `train` of the user's that takes data is not called."""
    modules = list(model.modules())
    kinds = set(map(type, modules))
    if all(map(_plain_switch, kinds)) and not any("train" in vars(m) for m in modules):
        for module in modules:  # as torch would, in a tenth of the time
            vars(module)["training"] = training
    elif all(map(_switches, kinds)):
        model.train(training)
    else:
        for module in modules:
            module.training = training


def _plain_switch(kind: type[nn.Module]) -> bool:
    """Whether the mode of a class's modules is an attribute like any other."""
    own = kind.train is nn.Module.train and kind.__setattr__ is nn.Module.__setattr__
    return own and not hasattr(kind, "training")


def _switches(kind: type[nn.Module]) -> bool:
    """Whether a class's `train` sets the mode, as `nn.Module.train` and those that extend it do."""
    if kind.train is nn.Module.train:
        return True
    try:
        _, *parameters = inspect.signature(kind.train).parameters.values()
    except (TypeError, ValueError):
        return False
    first = parameters[0] if parameters else None
    return first is not None and (first.name == "mode" or isinstance(first.default, bool))


def versions_kept(model: nn.Module) -> Callable[[], None]:
    """A function that sets autograd's edit counts of parameters and buffers back to those of now.

    A graph refuses to be asked once a table that it saved is updated in place, as every further
    training step of a model with moving averages does. After a rewind the values are those of the
    start again, and the graph of the step that is kept may be asked.
    """
    guard = getattr(torch.autograd.grad_mode, "_unsafe_preserve_version_counter", None)
    held = [t for t in (*model.parameters(), *model.buffers()) if not t.is_inference()]
    kept = [guard(t) for t in held if not is_lazy(t)] if guard is not None else []

    def put_back() -> None:
        for one in kept:
            one.__exit__(None, None, None)

    return put_back


@contextmanager
def generators_restored() -> Iterator[None]:
    """Put every random generator back: torch's on each device, NumPy's, Python's."""
    cpu, python = torch.get_rng_state(), random.getstate()
    numpy = sys.modules.get("numpy")
    legacy = numpy.random.get_state() if numpy else None
    started = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    cuda = torch.cuda.get_rng_state_all() if started else None
    try:
        yield
    finally:
        torch.set_rng_state(cpu)
        random.setstate(python)
        if numpy is not None and legacy is not None:
            numpy.random.set_state(legacy)
        if cuda is not None:
            torch.cuda.set_rng_state_all(cuda)


@contextmanager
def _switches_restored() -> Iterator[None]:
    grad, dtype = torch.is_grad_enabled(), torch.get_default_dtype()
    anomaly = torch.is_anomaly_enabled()
    check_nan = torch.is_anomaly_check_nan_enabled()
    deterministic = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    try:
        yield
    finally:
        torch.set_grad_enabled(grad)
        torch.set_default_dtype(dtype)
        torch.autograd.set_detect_anomaly(anomaly, check_nan)
        now = torch.are_deterministic_algorithms_enabled()
        if (now, torch.is_deterministic_algorithms_warn_only_enabled()) != (
            deterministic,
            warn_only,
        ):  # the call imports torch's compiler: only when needed
            torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)


@contextmanager
def _uncompiled() -> Iterator[None]:
    """Run the user's own code where a function or layer was compiled, so that it can be recorded.

    torch imports its compiler (a second) only where something was compiled.
    """
    if "torch._dynamo" not in sys.modules:
        yield
        return
    with warnings.catch_warnings(), torch.compiler.set_stance("force_eager"):
        warnings.filterwarnings("ignore", message="Using `torch.compile.module.` when there are")
        yield


@contextmanager
def leaves_no_trace(*roots: object) -> Iterator[Callable[[], None]]:
    """Restore the model bit for bit on leaving, also when it raises.

    Covers parameters and buffers (value, storage, `.grad`, `requires_grad`), train/eval flags,
    hooks, attributes of every module and helper object, lists and dicts they hold, every random
    generator, grad mode, default dtype and anomaly mode. Gradients are hidden while inside, so
    that a backward pass of the user's own code cannot add to them. Yields a function that rewinds
    to the snapshot between two experiments.
    """
    things = list(reachable(roots))
    tensors = [_TensorState(t) for t in things if isinstance(t, Tensor) and t.is_leaf]
    contents = Contents(things)

    def restore() -> None:
        contents.restore()
        for state in tensors:
            state.restore()

    def hide_gradients() -> None:
        for state in tensors:
            state.tensor.grad = None

    def rewind() -> None:
        restore()
        hide_gradients()

    with generators_restored(), _switches_restored(), _uncompiled():
        try:
            hide_gradients()
            yield rewind
        finally:
            restore()
