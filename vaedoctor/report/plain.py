"""What comes from the user, made safe to print; numbers and places, made short."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

from ..finding import Number

# Control characters, those that reorder, hide or break lines, and those that no XML holds: a name
# must not move the cursor or look like another.
UNSAFE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u2069"
    "\ufeff\ufff9-\ufffb\ufffe\uffff\ud800-\udfff\U000e0000-\U000e007f]"
)

_COMMAND = re.compile(r"^\s*::", re.MULTILINE)

_ASCII = str.maketrans(
    {
        "→": "->",
        "×": "x",
        "·": "|",
        "…": "...",
        "✓": "+",
        "✗": "x",
        "☠": "*",
        "²": "^2",
        "≥": ">=",
        "≤": "<=",
        "σ": "sigma",
        "μ": "mu",
        "ε": "eps",
        "≠": "!=",
        "\u2018": "'",
        "\u2019": "'",
        "\u2013": "-",
        "\u2014": "-",
    }
)


def plain(text: str, *, lines: bool = False) -> str:
    """The text with every control character visible; line breaks stay only if `lines`.

    GitHub Actions finds no command in it: no line starts with `::`, none holds `##[`.
    """
    text = text.replace("\r\n", "\n").replace("\t", "    ").replace("##[", "##\\[")
    text = UNSAFE.sub(lambda m: m[0].encode("unicode_escape").decode(), text)
    return _COMMAND.sub(r"\\::", text) if lines else text.replace("\n", "\\n")


def ascii_only(text: str) -> str:
    """The text for a terminal that can show nothing but ASCII."""
    return text.translate(_ASCII).encode("ascii", "backslashreplace").decode()


def number(value: Number) -> str:
    """A measured value with three significant digits."""
    if isinstance(value, list):
        shown = ", ".join(number(v) for v in value[:8])
        return f"[{shown}, … ({len(value)})]" if len(value) > 8 else f"[{shown}]"
    if isinstance(value, bool) or not isinstance(value, float):
        return "none" if value is None else plain(str(value))
    if value == 0 or not 1e-4 <= abs(value) < 1e6:
        return f"{value:.3g}"
    # Not `.3g` alone: 1230 reads better than 1.23e+03.
    return f"{float(f'{value:.3g}'):.10g}"


def measured(values: Mapping[str, Number]) -> str:
    """Measured numbers with their names."""
    return ", ".join(f"{plain(k)} = {number(v)}" for k, v in values.items())


def place(file: str) -> str:
    """A path as short as it can be: relative to the working folder when it is inside."""
    try:
        inside = os.path.relpath(os.path.realpath(file), os.path.realpath(os.getcwd()))
    except (OSError, ValueError):
        return plain(file)
    return plain(file if inside.startswith("..") or file.startswith("<") else inside)


def place_of_target(target: str) -> str:
    """`folder/mymodel.py:VAE` with the path made short."""
    file, colon, name = target.rpartition(":")
    return (
        f"{place(file)}:{plain(name)}"
        if colon and file.endswith((".py", ".ipynb"))
        else plain(target)
    )
