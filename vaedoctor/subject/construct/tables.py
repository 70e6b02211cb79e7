"""An object in the place of a data set, written out: what the constructor asks of it, it gives.

`dataset.num_users` is a size, `ids, ratings, _ = dataset.history()` are tensors where the code
moves them to a device. The class is executed from the text that the factory prints.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from ..code.uses import Use
from .making import WRITTEN, Call, expression

_DATA = re.compile(r"((.*_)?(data|data_?sets?|data_?module|data_?loader|loader|corpus|adata))")
_OF_A_TENSOR = {
    *("to", "float", "long", "cuda", "cpu", "view", "size", "dim", "detach", "clone", "numpy"),
    *("shape", "device", "dtype", "unsqueeze", "reshape", "flatten", "t", "sum", "mean", "max"),
}
_TENSOR = "torch.zeros(8, 8, dtype=torch.long)"


def is_of_data(name: str) -> bool:
    """Whether a parameter's name says that it is a data set."""
    return _DATA.fullmatch(name.lower()) is not None


def table(name: str, use: Use, choices: Callable[[str, Use], list[Any]]) -> Call:
    """An object with the attributes and the methods that are read of a data set."""
    title = "".join(w.capitalize() for w in name.split("_") if w)
    lines = [f"class {title}:"]
    for attribute, read in use.attributes.items():
        lines.append(f"    {attribute} = {_given(attribute, read, choices)}")
    for method in dict.fromkeys(use.methods):
        given = _given(method, use.results.get(method, Use()), choices)
        lines += ["", f"    def {method}(self, *args, **kwargs):", f"        return {given}"]
    text = "\n".join([*lines, ""]).replace(":\n\n", ":\n", 1)
    text = f"import torch\n\n{text}" if "torch." in text else text
    scope: dict[str, Any] = {"__name__": WRITTEN}
    exec(compile(text, f"<{title}>", "exec", dont_inherit=True), scope)
    kind: Any = scope[title]
    kind.text, kind.base = text, None
    return Call(kind, {})


def tables_in(made: Mapping[str, Any]) -> list[str]:
    """The names of the classes that stand in for data sets."""
    return [v.thing.__name__ for v in made.values() if is_table(v)]


def is_table(value: Any) -> bool:
    """Whether a made-up value stands in for a data set."""
    kind = value.thing if isinstance(value, Call) else None
    return getattr(kind, "__module__", "") == WRITTEN and "returned" not in vars(kind or object)


def _given(name: str, use: Use, choices: Callable[[str, Use], list[Any]]) -> str:
    """What an attribute holds or a method returns, as Python."""
    if {*use.attributes, *use.methods} & _OF_A_TENSOR:
        return _TENSOR
    if use.count is not None:
        parts = [_given(name, use.keys.get(i, Use()), choices) for i in range(use.count)]
        return f"({', '.join(_TENSOR if _TENSOR in parts else p for p in parts)},)"
    options = choices(name, use)
    return expression(options[0]) if options else "None"
