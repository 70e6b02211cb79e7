"""Jupyter notebooks as Python text, and the way back from a line to its cell.

Inside, a notebook is one file: its code cells joined, magics blanked, no line shifted within a
cell. For people a place in it is `notebook.ipynb:cell 3:12:5`: cells count from 1, markdown
included, lines count from 1 inside the cell. `raw_line` gives the line of the JSON file itself.
"""

from __future__ import annotations

import ast
import bisect
import functools
import io
import json
import linecache
import re
import tokenize
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from json.decoder import JSONDecoder, scanstring  # type: ignore[attr-defined]
from json.scanner import py_make_scanner  # type: ignore[attr-defined]
from pathlib import Path
from typing import Any

SUFFIX = ".ipynb"

_CELL = re.compile(r"(.*\.ipynb):cell (\d+)")
_MAGIC = re.compile(r"\s*(?:[%!?]|(?:pip3?|conda|mamba|apt|apt-get|cd|ls)\s+[\w./~-])")
_HELP = re.compile(r"\s*[\w.\[\]'\"]+\?{1,2}\s*(?:#.*)?$")
_ASSIGNED = re.compile(r"(\s*[\w.,\s\[\]'\"]+?=\s*)(?:%|!).*$")
# Of these the cell is still Python; of any other `%%magic` it is not.
_PYTHON_MAGICS = {"time", "timeit", "capture", "prun", "python", "python3", "memit", "mprun"}
_IN_PYTHON = {"", "python", "python2", "python3", "ipython", "ipython3", "xpython", "xeus-python"}


class NotebookError(ValueError):
    """The file is no notebook of Python that can be read; the message says why."""

    def __init__(self, message: str, next_step: str = "open it in Jupyter and save it") -> None:
        super().__init__(message)
        self.next_step = next_step


@dataclass(frozen=True, slots=True)
class Cell:
    """One code cell: its number, its first line in the joined text, its own lines as written."""

    number: int
    first: int
    lines: tuple[str, ...]
    raw: tuple[int, ...]
    error: SyntaxError | None = None


@dataclass(frozen=True, slots=True)
class Notebook:
    """The code of a notebook as one text, and its cells."""

    text: str
    cells: tuple[Cell, ...]

    def cell_at(self, line: int) -> tuple[Cell, int] | None:
        """The cell that a line of the joined text is in, and the line inside it."""
        for cell in reversed(self.cells):
            if line >= cell.first:
                return cell, line - cell.first + 1
        return None


def is_notebook(file: str) -> bool:
    """Whether a file name is a notebook's."""
    return file.endswith(SUFFIX)


def read_notebook(path: Path) -> Notebook:
    """Read a notebook of format 2 to 4; raises `NotebookError`."""
    try:
        raw = path.read_text(encoding="utf-8-sig")
        content = _located_json(raw)
    except UnicodeDecodeError as error:
        raise NotebookError(f"it is not text: {error}") from None
    except json.JSONDecodeError as error:
        if not raw.strip():
            raise NotebookError("it is empty") from None
        what = "it holds git's conflict markers" if "\n<<<<<<<" in raw else f"{error.msg}"
        raise NotebookError(f"{what} (line {error.lineno}), so it is not JSON") from None
    except RecursionError:
        raise NotebookError("it is nested too deeply to be a notebook") from None
    language = _language(content)
    if language not in _IN_PYTHON:
        raise NotebookError(
            f"its language is {language!r}, not Python",
            "vaedoctor check notebook.ipynb   (one with a Python kernel)",
        )
    return _joined(list(_code_cells(content)), raw)


def place_in(file: str, line: int) -> tuple[str, int]:
    """For people: `notebook.ipynb:cell 3` and the line in the cell; any other file as it is."""
    found = _notebook(file).cell_at(line) if is_notebook(file) else None
    return (file, line) if found is None else (f"{file}:cell {found[0].number}", found[1])


def source_line(file: str, line: int) -> str:
    """A line as it is written in a file, or in a cell: `notebook.ipynb:cell 3`."""
    cell = _cell(file)
    if cell is None:
        return linecache.getline(file, line)
    return cell.lines[line - 1] if 0 < line <= len(cell.lines) else ""


def raw_line(file: str, line: int) -> tuple[str, int]:
    """Where a line of `notebook.ipynb:cell 3` stands in the JSON; any other place as it is."""
    cell, match = _cell(file), _CELL.fullmatch(file)
    if cell is None or match is None:
        return file, line
    return match[1], cell.raw[min(max(line, 1), len(cell.raw)) - 1]


def joined_text(file: str) -> str:
    """The notebook's code as one text; empty if it cannot be read."""
    return _notebook(file).text


def _cell(file: str) -> Cell | None:
    match = _CELL.fullmatch(file)
    if match is None:
        return None
    number = int(match[2])
    return next((c for c in _notebook(match[1]).cells if c.number == number), None)


def _notebook(file: str) -> Notebook:
    try:
        changed = Path(file).stat().st_mtime_ns
    except OSError:
        return Notebook("", ())
    return _read_once(file, changed)


@functools.lru_cache(maxsize=8)
def _read_once(file: str, changed: int) -> Notebook:
    try:
        return read_notebook(Path(file))
    except (NotebookError, OSError):
        return Notebook("", ())


class _Located(str):
    """A string of a JSON file that knows where it starts."""

    __slots__ = ("at",)
    at: int


def _located_json(raw: str) -> Any:
    def located(text: str, end: int, strict: bool = True) -> tuple[str, int]:
        value, after = scanstring(text, end, strict)
        found = _Located(value)
        found.at = end - 1
        return found, after

    decoder: Any = JSONDecoder()
    decoder.parse_string = located
    decoder.scan_once = py_make_scanner(decoder)
    return decoder.decode(raw)


def _language(content: Any) -> str:
    if not isinstance(content, Mapping) or not ({"cells", "worksheets"} & set(content)):
        raise NotebookError("it is JSON, but holds no cells")
    metadata = content.get("metadata")
    metadata = metadata if isinstance(metadata, Mapping) else {}
    for part, key in (("language_info", "name"), ("kernelspec", "language")):
        info = metadata.get(part)
        if isinstance(info, Mapping) and isinstance(info.get(key), str):
            return str(info[key]).lower()
    return ""


def _code_cells(content: Mapping[str, Any]) -> Iterator[tuple[int, list[_Located]]]:
    """(number, source) of each code cell, the source as the strings that the file holds."""
    cells = content.get("cells")
    if not isinstance(cells, list):
        sheets = content.get("worksheets")
        sheets = sheets if isinstance(sheets, list) else []
        cells = [c for s in sheets if isinstance(s, Mapping) for c in s.get("cells") or ()]
    for number, cell in enumerate(cells, start=1):
        if not isinstance(cell, Mapping) or cell.get("cell_type") != "code":
            continue
        if str(cell.get("language", "python")).lower() not in _IN_PYTHON:
            continue
        source = cell.get("source", cell.get("input"))
        parts = source if isinstance(source, list) else [source]
        yield number, [p for p in parts if isinstance(p, _Located)]


def _joined(cells: list[tuple[int, list[_Located]]], raw: str) -> Notebook:
    found: list[Cell] = []
    text: list[str] = []
    line_ends = [m.start() for m in re.finditer("\n", raw)]
    for number, parts in cells:
        lines, places = _lines(parts, line_ends)
        if not lines:
            continue
        python, error = _python(lines)
        found.append(Cell(number, len(text) + 1, tuple(lines), tuple(places), error))
        text += python
    return Notebook("".join(f"{line}\n" for line in text), tuple(found))


def _lines(parts: list[_Located], line_ends: list[int]) -> tuple[list[str], list[int]]:
    """The lines of a cell, and the line of the file that each stands on."""
    whole = "".join(parts)
    starts: list[tuple[int, int]] = []
    offset = 0
    for part in parts:
        starts.append((offset, bisect.bisect_left(line_ends, part.at) + 1))
        offset += len(part)
    lines = whole.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    if lines and not lines[-1]:
        lines.pop()
    places, at = [], 0
    for line in lines:
        places.append(next((row for begin, row in reversed(starts) if begin <= at), 1))
        at += len(line) + 1
    return lines, places


def _python(lines: list[str]) -> tuple[list[str], SyntaxError | None]:
    """The lines without magics; all blank, and the error, when what remains is not Python."""
    blank = [""] * len(lines)
    if any(line.strip() for line in lines):
        first = next(i for i, line in enumerate(lines) if line.strip())
        if lines[first].lstrip().startswith("%%"):
            magic = lines[first].lstrip()[2:].split(None, 1)
            if not magic or magic[0] not in _PYTHON_MAGICS:
                return blank, None
            lines = [*blank[: first + 1], *lines[first + 1 :]]
    if _error_of(lines) is not None:
        lines = _without_magics(lines)
        if (error := _error_of(lines)) is not None:
            return blank, error
    return lines, None


def _error_of(lines: list[str]) -> SyntaxError | None:
    """Why a cell is not Python; statement by statement, as IPython runs it.

    So `from __future__ import ...` may stand anywhere.
    """
    flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # invalid escapes
        try:
            text = "\n".join(lines)
            tree = compile(text, "<cell>", "exec", flags | ast.PyCF_ONLY_AST, dont_inherit=True)
            assert isinstance(tree, ast.Module)
            tree.body = [s for s in tree.body if getattr(s, "module", "") != "__future__"]
            compile(tree, "<cell>", "exec", flags, dont_inherit=True)
        except SyntaxError as error:
            return error
        except (ValueError, RecursionError, MemoryError) as error:  # a null character, a deep nest
            return SyntaxError(str(error))
    return None


def _without_magics(lines: list[str]) -> list[str]:
    kept: list[str] = []
    continues = False
    for line in lines:
        if continues:
            kept.append("")
        elif (shown := _replaced(line)) is not None and not _is_inside(kept):
            kept.append(shown)
        else:
            kept.append(line)
            continue
        continues = line.rstrip().endswith("\\")
    return kept


def _replaced(line: str) -> str | None:
    """What stands for a magic: `pass`, or None for what is assigned; None for a Python line."""
    indent = line[: len(line) - len(line.lstrip())]
    if _MAGIC.match(line) or _HELP.match(line):
        return f"{indent}pass"
    assigned = _ASSIGNED.fullmatch(line)
    return f"{assigned[1]}None" if assigned else None


def _is_inside(lines: list[str]) -> bool:
    """Whether the lines end in the middle of a bracket, a string or a continued line."""
    if lines and lines[-1].endswith("\\"):
        return True
    text = "\n".join(lines) + "\n"
    try:
        for _ in tokenize.generate_tokens(io.StringIO(text).readline):
            pass
    except tokenize.TokenError:
        return True
    except (SyntaxError, IndentationError):
        return False
    return False
