"""Classes alone, as they lie in somebody's file; each shows one thing that kept it unexamined."""

from .arguments import ARGUMENTS
from .data import DATA
from .parts import PARTS

ALONE = {**ARGUMENTS, **PARTS, **DATA}

__all__ = ["ALONE"]
