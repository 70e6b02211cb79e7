"""A function of the user's that makes the model, printed again as it stands, its places marked."""

from __future__ import annotations

import ast
from collections.abc import Callable, Sequence
from typing import Any

from ..code.signatures import name_of
from ..code.source import function_tree, source_of
from ..code.syntax import Function
from .making import MARK


def as_it_stands(thing: Callable[..., Any], place: str, batch: Sequence[str] = ()) -> str:
    """A function of the user's as it is, its arguments marked, and the batch it may need."""
    source, tree = source_of(thing), function_tree(thing)
    text = source.text if source is not None else ""
    own = next((s for s in ast.parse(text).body if getattr(s, "name", "") == "one_batch"), None)
    marked = _marked(text, tree)
    if tree is not None and MARK.strip() not in text:  # no file that was printed here
        marked = marked[tree.lineno - 1 : tree.end_lineno]
    elif batch and own is not None and any(_is_open(n) for n in ast.walk(own)):
        del marked[own.lineno - 1 : own.end_lineno]
        own = None
    again = f"vaedoctor check {place}:{name_of(thing)}"
    whole = f"{again} --input {place}:one_batch"
    imports, function = parted(batch if own is None else [])
    imports = [line for line in imports if line not in text.splitlines()]
    lines = [f"{place} as it stands, with the places to be corrected:", ""]
    lines += [*"\n".join([*imports, *marked]).rstrip().splitlines()]
    lines += ["", "", *function] if function else []
    ends = [whole] if function else [again]
    if own is not None:
        filled = not any(_is_open(n) for n in ast.walk(own))
        ends = [whole] if filled else [again, "", f"or with a batch of your own: {whole}"]
    return "\n".join([*lines, "", *ends])


def _is_open(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and node.value is ...


def _marked(text: str, tree: Function | None) -> list[str]:
    """The lines of a file, those that hold an argument of a call marked."""
    lines = text.rstrip().splitlines()
    calls = [n for n in ast.walk(tree) if isinstance(n, ast.Call)] if tree is not None else []
    for node in (a for c in calls for a in (*c.args, *c.keywords)):
        at: int = getattr(node, "end_lineno", None) or 0
        if 0 < at <= len(lines) and MARK.strip() not in lines[at - 1]:
            lines[at - 1] += f"  {MARK}your own"
    return lines


def parted(batch: Sequence[str]) -> tuple[list[str], list[str]]:
    """The imports of a function's lines, and the function."""
    at = next((i for i, line in enumerate(batch) if line.startswith("def ")), 0)
    return [line for line in batch[:at] if line], list(batch[at:])
