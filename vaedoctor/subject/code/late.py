"""Counts and weights that grow while a model trains, as they are late in training."""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable
from functools import lru_cache
from typing import Any

Operation = Callable[[Any, Any], Any]

EPOCHS, STEPS = 101, 10_007
"""Behind the usual warm-ups, and no multiple of the usual intervals."""


def _here(operation: Operation) -> Operation:
    return lambda self, other: operation(self.count, _number(other))


def _there(operation: Operation) -> Operation:
    return lambda self, other: operation(_number(other), self.count)


class Late:
    """A number of steps or epochs that nobody tells; as an index the last: `betas[epoch]`."""

    def __init__(self, count: int = STEPS) -> None:
        self.count = count

    __add__, __radd__ = _here(operator.add), _there(operator.add)
    __sub__, __rsub__ = _here(operator.sub), _there(operator.sub)
    __mul__, __rmul__ = _here(operator.mul), _there(operator.mul)
    __truediv__, __rtruediv__ = _here(operator.truediv), _there(operator.truediv)
    __floordiv__, __rfloordiv__ = _here(operator.floordiv), _there(operator.floordiv)
    __mod__, __rmod__ = _here(operator.mod), _there(operator.mod)
    __pow__, __rpow__ = _here(operator.pow), _there(operator.pow)
    __lt__, __le__ = _here(operator.lt), _here(operator.le)
    __gt__, __ge__ = _here(operator.gt), _here(operator.ge)

    def __eq__(self, other: object) -> bool:
        return bool(self.count == _number(other))

    def __hash__(self) -> int:
        return hash(self.count)

    def __neg__(self) -> int:
        return -self.count

    def __index__(self) -> int:
        return -1

    def __int__(self) -> int:
        return self.count

    def __float__(self) -> float:
        return float(self.count)

    def __format__(self, spec: str) -> str:
        return format(self.count, spec)


def _number(other: Any) -> Any:
    return other.count if isinstance(other, Late) else other


@lru_cache(maxsize=64)
def growing(tree: ast.Module) -> frozenset[str]:
    """The names that begin with 0 and are raised: `beta += 0.01`, `beta = min(1, beta + 0.01)`."""
    zero, raised = set[str](), set[str]()
    for node in ast.walk(tree):
        match node:
            case ast.Assign([ast.Name(id=name)], ast.Constant(value=0)):
                zero.add(name)
            case ast.AugAssign(ast.Name(id=name), ast.Add()):
                raised.add(name)
            case ast.Assign([ast.Name(id=name)], value):
                sums = (n for n in ast.walk(value) if isinstance(n, ast.BinOp))
                sides = [s for n in sums if isinstance(n.op, ast.Add) for s in (n.left, n.right)]
                if any(isinstance(s, ast.Name) and s.id == name for s in sides):
                    raised.add(name)
    return frozenset(zero & raised)
