"""What tensors, objects and containers hold, kept so that it can be put back bit for bit."""

from __future__ import annotations

import collections
import ctypes
import types
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from operator import attrgetter, is_
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from .reachable import OPAQUE

_MUTABLE = (list, dict, set, collections.deque)
_RESTORED = (*_MUTABLE, nn.Module)
_LEFT_ALONE = (
    *(Tensor, tuple, frozenset, types.FunctionType, types.MethodType, torch.optim.Optimizer),
    *OPAQUE,
)
_HOOKS = ("_backward_hooks", "_post_accumulate_grad_hooks")


class TensorState:
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
        """Put it back, where it is otherwise."""
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
