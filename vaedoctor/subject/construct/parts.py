"""A part that nobody gave, written out: it returns what the model unpacks, under the same names.

`mu, std = self.encoder(x)` and `out["mean"]` say what an encoder gives. Its class is executed from
the text that the factory prints, so that what was examined is what can be pasted.
"""

from __future__ import annotations

import ast
import inspect
import re
import types
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ..trials.slots import Group
from ..trials.trial import Trial
from ..trials.witness import user_frame
from .making import WRITTEN, Call
from .tables import is_table, tables_in

Values = dict[str, Any]
Returned = str | Group  # a name for one tensor, or what holds several
_UNPACKED = re.compile(r"(?:not enough|too many) values to unpack \(expected (\d+)")
_POSITIVE = re.compile(r"(?<!log)(?<!log_)(sig|std|var|scale|sd(?!\w)|stddev|dispersion)", re.I)


def written(name: str, returned: Returned, values: Mapping[str, Any], base: type | None) -> Call:
    """A part that gives what `returned` says, each tensor by a layer from `wide` to `narrow`."""
    title = "".join(w.capitalize() for w in name.split("_") if w) or "Part"
    text = _text(title, returned, base)
    scope = {"nn": nn, "torch": torch, "SimpleNamespace": types.SimpleNamespace}
    scope |= {"__name__": WRITTEN} | ({base.__name__: base} if base is not None else {})
    exec(compile(text, f"<{title}>", "exec", dont_inherit=True), scope)
    kind: Any = scope[title]
    kind.text, kind.returned, kind.base, kind.part = text, returned, base, name
    return Call(kind, {"wide": values["wide"], "narrow": values["narrow"]})


def gives(made: Mapping[str, Any]) -> list[str]:
    """What the parts that were written here return, to be said in a report."""
    kinds = [v.thing for v in made.values() if isinstance(v, Call) and is_written(v.thing)]
    tables = [f"`{n}` stands in for a data set" for n in tables_in(made)]
    returns = [str(k.text).rpartition("return ")[2].strip() for k in kinds]  # type: ignore[attr-defined]
    said = [f"`{k.__name__}` returns `{r}`" for k, r in zip(kinds, returns, strict=True)]
    return [*said, *tables]


def is_written(thing: Any) -> bool:
    """Whether a class was written here."""
    return isinstance(thing, type) and "returned" in vars(thing)


def stands_in(values: Any) -> bool:
    """Whether a layer of torch's stands in the place of a part among made-up values."""
    if is_table(values):
        return True
    if isinstance(values, Call):
        plain = values.thing in (nn.Linear, nn.Embedding) or is_written(values.thing)
        return plain or stands_in(dict(values.values))
    if isinstance(values, Mapping):
        return any(map(stands_in, values.values()))
    return isinstance(values, list | tuple) and any(map(stands_in, values))


def holds_written(value: Any) -> bool:
    """Whether a class that was written here is among made-up values."""
    if isinstance(value, Call):
        return is_written(value.thing) or any(map(holds_written, value.values.values()))
    inside = value.values() if isinstance(value, dict) else value
    return isinstance(value, dict | list | tuple) and any(map(holds_written, inside))


def _text(title: str, returned: Returned, base: type | None) -> str:
    names = dict.fromkeys(_leaves(returned))
    inherits = base.__name__ if base is not None else "nn.Module"
    plain = base is None or not inspect.signature(base).parameters
    start = "super().__init__()" if plain else "nn.Module.__init__(self)"
    layers = [f"        self.to_{n} = nn.Linear(wide, narrow)" for n in names]
    given = _expression(returned)
    lines = [f"class {title}({inherits}):", "    def __init__(self, wide, narrow):"]
    lines += [f"        {start}", *layers, "", "    def forward(self, x, *others):"]
    return "\n".join([*lines, f"        return {given}", ""])


def _leaves(returned: Returned) -> Iterator[str]:
    if isinstance(returned, str):
        yield returned
    else:
        for inner in returned.entries.values():
            yield from _leaves(inner)  # type: ignore[arg-type]


def _expression(returned: Returned) -> str:
    if isinstance(returned, str):
        made = f"self.to_{returned}(x)"
        return f"nn.functional.softplus({made})" if _POSITIVE.search(returned) else made
    inside = {k: _expression(v) for k, v in returned.entries.items()}  # type: ignore[arg-type]
    if returned.kind == "dict":
        return "{" + ", ".join(f"{k!r}: {v}" for k, v in inside.items()) + "}"
    if returned.kind == "object":
        return f"SimpleNamespace({', '.join(f'{k}={v}' for k, v in inside.items())})"
    return f"({', '.join(inside.values())}{',' * (len(inside) == 1)})"


def returning(made: Mapping[str, Any], trial: Trial) -> Values | None:
    """The made-up values with a part that returns what the model asked of it, if it did."""
    for call in reversed(trial.calls):
        for name, value in made.items():
            if isinstance(value, Call) and _is(call.module, value):
                asked = _asked(_returned(value), trial.error)
                if asked is None:
                    continue
                base = getattr(value.thing, "base", None)
                return {**made, name: written(name, asked, _fitting(name, value, made), base)}
    return None


def _fitting(name: str, value: Call, made: Mapping[str, Any]) -> Mapping[str, Any]:
    """The sizes of a part; what an encoder gives is as wide as what the decoder takes."""
    decoders = [n for n in made if n.lower().startswith(("dec", "gen"))]
    others = [v for n in decoders if n != name and isinstance(v := made[n], Call)]
    plain = [v for v in others if v.thing is nn.Linear or is_written(v.thing)]
    if not plain or not name.lower().startswith(("enc", "inf")):
        return _sizes(value)
    return {**_sizes(value), "narrow": _sizes(plain[0])["wide"]}


def inheriting_part(made: Mapping[str, Any], error: BaseException) -> Iterator[Values]:
    """The made-up values with a part of the class that the constructor asks for."""
    for name, value in made.items():
        if isinstance(value, Call) and (value.thing is nn.Linear or is_written(value.thing)):
            for base in _classes_said(error):
                if isinstance(value.thing, type) and not issubclass(value.thing, base):
                    yield {**made, name: written(name, _returned(value), _sizes(value), base)}


def _classes_said(error: BaseException) -> list[type]:
    """The module classes that an exception names, or the check that raised it."""
    found: dict[type, None] = {}
    trace = error.__traceback__
    while trace is not None:
        names = trace.tb_frame.f_globals
        for word in re.findall(r"\w+", str(error)):
            kind = names.get(word)
            if isinstance(kind, type) and issubclass(kind, nn.Module) and kind is not nn.Module:
                found[kind] = None
        trace = trace.tb_next
    return [k for k in found if not k.__module__.startswith("torch.")]


def _is(module: nn.Module, value: Call) -> bool:
    """Whether a module was made by a call: by its class and its sizes."""
    if value.thing is nn.Linear and type(module) is nn.Linear:
        return all(getattr(module, k) == v for k, v in value.values.items())
    return is_written(value.thing) and type(module) is value.thing


def _returned(value: Call) -> Returned:
    given: Returned = getattr(value.thing, "returned", "out")
    return given


def _sizes(value: Call) -> Mapping[str, Any]:
    if value.thing is nn.Linear:
        return {"wide": value.values["in_features"], "narrow": value.values["out_features"]}
    return value.values


def _asked(returned: Returned, error: BaseException | None) -> Any:
    """What was returned, changed to what the line that raised wants of it."""
    frame = user_frame(error)
    if frame is None:
        return None
    for node in _nodes(frame[1]):
        if not _holds(node, returned, frame[0].f_locals):
            continue
        match node:
            case ast.Assign(targets=[ast.Tuple(elts=names)], value=value) if isinstance(
                error, ValueError
            ) and _UNPACKED.search(str(error)):
                entries: dict[int, Any] = {i: _identifier(n, i) for i, n in enumerate(names)}
                return _placed(returned, _keys(value), Group("tuple", entries))
            case ast.Subscript(value=value, slice=ast.Constant(value=str(key))) if isinstance(
                error, KeyError | IndexError | TypeError
            ):
                if isinstance(error, KeyError) and error.args[:1] != (key,):
                    continue
                leaf = re.sub(r"\W", "_", key)
                return _placed(returned, (*_keys(value), key), leaf, "dict")
            case ast.Attribute(value=value, attr=attr) if (
                isinstance(error, AttributeError)
                and error.name == attr
                and isinstance(error.obj, Tensor | types.SimpleNamespace)
            ):
                return _placed(returned, (*_keys(value), attr), attr, "object")
    return None


def _holds(node: ast.AST, returned: Returned, names: Mapping[str, Any]) -> bool:
    """Whether the name that is read, if one is, holds what a part returned."""
    root = getattr(node, "value", None)
    while isinstance(root, ast.Subscript | ast.Attribute):
        root = root.value
    value = names.get(root.id) if isinstance(root, ast.Name) and root.id != "self" else None
    keys = set(vars(value)) if isinstance(value, types.SimpleNamespace) else None
    keys = set(value) if isinstance(value, dict) else keys
    if keys is not None:
        return isinstance(returned, Group) and set(returned.entries) == keys
    return not isinstance(value, Tensor) or isinstance(returned, str)


def _placed(held: Any, keys: tuple[str, ...], new: Any, kind: str = "dict") -> Any:
    """What is held with something new under keys; a tensor that is asked for one becomes a dict."""
    if not keys:
        return new
    entries = dict(held.entries) if isinstance(held, Group) else {}
    inside = held.kind if isinstance(held, Group) else kind
    entries[keys[0]] = _placed(entries.get(keys[0]), keys[1:], new, kind)
    return Group(inside, entries)


def _keys(node: ast.expr) -> tuple[str, ...]:
    """The keys by which a value is read from what a part returned: `out["mean"]`."""
    match node:
        case ast.Subscript(value=value, slice=ast.Constant(value=str(key))):
            return (*_keys(value), key)
        case ast.Attribute(value=ast.Name(id=name), attr=attr) if name != "self":
            return (attr,)
    return ()


def _identifier(node: ast.expr, index: int) -> str:
    name = node.id if isinstance(node, ast.Name) else getattr(node, "attr", "")
    return name if name.strip("_") else f"out_{index}"


def _nodes(line: str) -> Iterator[ast.AST]:
    try:
        yield from ast.walk(ast.parse(line.rstrip(":")))
    except SyntaxError:
        return
