"""`vaedoctor init`: a commented `[tool.vaedoctor]` for the models of a project."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .config import ConfigError
from .project import FILE, split_target
from .report.plain import place, plain
from .scan import Found, scan

_GENERAL = """\
[tool.vaedoctor]
# `vaedoctor check` without a target and `pytest --vaedoctor` examine the models listed below.
# select = ["ALL"]        # rules to judge: codes, prefixes (VAE3), names
# ignore = ["VAE109"]     # rules to leave out
# fail-on = "error"       # the weakest finding that fails: note, warning or error
# seed = 0
# timeout = 120           # seconds for one model
# baseline = "known.json" # a report whose findings are known

# [tool.vaedoctor.severity]
# VAE201 = "error"        # note, warning, error or ignore

# A target takes, beside `model`:
# args = { latent_dim = 16 }     # arguments of the constructor
# batch = "data.py:one_batch"    # a function, a shape such as "8x784", or a file
# objective = "loss_function"    # a function or method of the file
# conditions = [1]               # items of the batch that are conditions or masks
# beta = 4.0                     # the KL weight that is intended
# checkpoint = "last.pt"         # weights to load
"""
_EXAMPLE = """\
# [[tool.vaedoctor.targets]]
# model = "mymodel.py:VAE"
"""


@dataclass(frozen=True, slots=True)
class Section:
    """What to write, where, and how many models it lists; `whole` if the file had none yet."""

    file: Path
    text: str
    listed: int
    whole: bool


def section(folder: Path) -> Section:
    """The section for the models below the nearest pyproject.toml, else below the folder.

    Raises `ConfigError` for a pyproject.toml that is no TOML.
    """
    file = _nearest(folder.resolve())
    data = _data(file)
    tool = data.get("tool", {})
    ours = tool.get("vaedoctor") if isinstance(tool, dict) else {}
    known = {split_target(m, file.parent) for m in _models(ours)}
    found = [f for f in scan(file.parent) if split_target(_model(f), file.parent) not in known]
    text = "\n".join(_entry(f) for f in found)
    if ours is None:
        text = f"{_GENERAL}\n{text or _EXAMPLE}"
    return Section(file, text, len(found), whole=ours is None)


def append(made: Section) -> None:
    """Write the section at the end of its file; nothing that is there changes.

    Raises `ConfigError` when the file could not be read afterwards, or cannot be written.
    """
    before = made.file.read_bytes() if made.file.exists() else b""
    newline = b"\r\n" if b"\r\n" in before else b"\n"
    gap = b"" if not before else b"\n" if before.endswith(b"\n") else b"\n\n"
    added = (gap + made.text.encode()).replace(b"\n", newline)
    try:
        tomllib.loads((before + added).decode("utf-8-sig"))
    except ValueError as error:
        raise ConfigError(
            f"`{place(str(made.file))}` has no room for a table at its end: {error}; "
            "`vaedoctor init --dry-run` prints what to add by hand"
        ) from None
    try:
        with made.file.open("ab") as file:
            file.write(added)
    except OSError as error:
        raise ConfigError(f"`{place(str(made.file))}` cannot be written: {error}") from None


def _nearest(folder: Path) -> Path:
    """The nearest pyproject.toml upward inside the repository, else the one to be made here."""
    for here in (folder, *folder.parents):
        if (here / FILE).is_file():
            return here / FILE
        if (here / ".git").exists():
            break
    return folder / FILE


def _data(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8-sig")) if file.exists() else {}
    except (OSError, ValueError) as error:
        raise ConfigError(f"`{place(str(file))}` cannot be read: {error}") from None


def _models(table: Any) -> Iterator[str]:
    targets = table.get("targets") if isinstance(table, dict) else None
    for target in targets if isinstance(targets, list) else ():
        if isinstance(target, dict) and isinstance(target.get("model"), str):
            yield target["model"]


def _entry(found: Found) -> str:
    lines = ["[[tool.vaedoctor.targets]]", f"model = {_string(_model(found))}"]
    if found.required:
        values = ", ".join(f"{name} = 16" for name in found.required)
        lines.append(f"# args = {{ {values} }}   # these have no default")
    return "\n".join(lines) + "\n"


def _model(found: Found) -> str:
    return f"{found.file}:{found.name}"


def _string(text: str) -> str:
    """A TOML string."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def told(made: Section, *, dry_run: bool) -> Iterable[str]:
    """What happened, for stderr."""
    models = "1 model" if made.listed == 1 else f"{made.listed} models"
    file = plain(place(str(made.file)))
    if not made.whole:
        yield f"{file} has a section [tool.vaedoctor] already; {models} that it does not list"
    elif dry_run:
        yield f"{models} found; this would go to the end of {file}"
    else:
        yield f"{models} found, written to the end of {file}"
    if made.listed:
        yield "next: vaedoctor check"
