"""`[tool.vaedoctor]`: what a project says once, so that nobody has to type it."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from .config import ConfigError, select_rules
from .finding import Severity
from .keys import PROJECT, TARGET, Kind, Wrong
from .report.plain import place
from .spelling import did_you_mean

FILE = "pyproject.toml"
TABLE = "tool.vaedoctor"
IGNORE = "ignore"
LEVELS = (*map(str, Severity), IGNORE)

_HEADER = re.compile(r"\s*\[\[?\s*([^\[\]]+?)\s*\]\]?\s*(?:#.*)?$")
_KEY = re.compile(r"""\s*["']?([\w-]+)["']?\s*[.=]""")


@dataclass(frozen=True, slots=True)
class Target:
    """One model to examine, and how: an entry of `[[tool.vaedoctor.targets]]`.

    Paths are relative to the folder of the file that names them.
    """

    model: str
    args: Mapping[str, Any] = field(default_factory=dict)
    batch: str | None = None
    objective: str | None = None
    conditions: tuple[int | str, ...] = ()
    beta: float | None = None
    batch_size: int | None = None
    batch_axis: int | None = 0
    call: Mapping[str, Any] = field(default_factory=dict)
    checkpoint: str | None = None
    exec: bool = False

    def request(self) -> dict[str, Any]:
        """The target as the child process takes it."""
        return {
            "target": self.model,
            "args": spelled(self.args),
            "input": self.batch,
            "objective": self.objective,
            "conditions": list(self.conditions),
            "beta": self.beta,
            "batch_size": self.batch_size,
            "batch_axis": self.batch_axis,
            "call": spelled(self.call),
            "checkpoint": self.checkpoint,
            "exec": self.exec,
        }


@dataclass(frozen=True, slots=True)
class Project:
    """What `[tool.vaedoctor]` says; None where it says nothing. `file` is where it stands."""

    file: Path | None = None
    targets: tuple[Target, ...] = ()
    select: tuple[str, ...] | None = None
    ignore: tuple[str, ...] | None = None
    severity: Mapping[str, str] = field(default_factory=dict)
    fail_on: Severity | None = None
    seed: int | None = None
    timeout: float | None = None
    baseline: str | None = None

    @property
    def folder(self) -> Path:
        """Where the paths of the targets begin."""
        return self.file.parent if self.file else Path.cwd()

    def matching(self, target: str) -> tuple[Target, ...]:
        """The configured targets that `target`, as typed in the working folder, means.

        A file without a model's name means all the models of that file.
        """
        where, name = split_target(target, Path.cwd())
        known = ((split_target(t.model, self.folder), t) for t in self.targets)
        return tuple(
            t for (its, named), t in known if its == where and (not name or named in (name, ""))
        )


def find_project(start: Path, *, config: Path | None = None) -> Project:
    """The nearest `[tool.vaedoctor]` from `start` upward, or the one of the file `config`.

    Raises `ConfigError` for a file that cannot be read, unknown keys and wrong values.
    """
    if config is not None:
        project = _read(config.resolve())
        if project is None:
            raise ConfigError(f"`{place(str(config))}` has no table `[{TABLE}]`")
        return project
    for folder in (start.resolve(), *start.resolve().parents):
        file = folder / FILE
        if file.is_file() and (project := _read(file)) is not None:
            return project
    return Project()


def spelled(values: Mapping[str, Any]) -> dict[str, str]:
    """Values as one types them after `--arg NAME=`."""
    return {k: v if isinstance(v, str) else repr(v) for k, v in values.items()}


def split_target(target: str, folder: Path) -> tuple[str, str]:
    """Where a target lies (an absolute path, or a module's name) and which name it has there."""
    where, colon, name = target.rpartition(":")
    if not colon or "/" in name or "\\" in name or name.endswith((".py", ".ipynb")):
        where, name = target, ""
    if where.endswith((".py", ".ipynb")):
        where = str((folder / Path(where).expanduser()).resolve())
    return where, name


def _read(file: Path) -> Project | None:
    """What a file says to us, None without a table of ours."""
    try:
        text = file.read_text(encoding="utf-8-sig")
        data = tomllib.loads(text)
    except (OSError, ValueError) as error:
        raise ConfigError(f"`{place(str(file))}` cannot be read: {error}") from None
    tool = data.get("tool", {})
    if not isinstance(tool, dict) or "vaedoctor" not in tool:
        return None
    return _Reader(file, text).project(tool["vaedoctor"])


class _Reader:
    """From the plain data of one file to a `Project`; errors name the line."""

    def __init__(self, file: Path, text: str) -> None:
        self.file, self.text = file, text

    def project(self, table: Any) -> Project:
        if not isinstance(table, dict):
            self.refuse(f"`{TABLE}` takes a table", "tool", "vaedoctor")
        values = self.values(table, PROJECT, TABLE)
        entries = values.pop("targets", [])
        targets = tuple(self.target(entry, i) for i, entry in enumerate(entries))
        for key in ("select", "ignore"):
            if key in values:
                self.rules(values[key], TABLE, key)
        for selector, level in values.get("severity", {}).items():
            self.rules((selector,), f"{TABLE}.severity", selector)
            if level not in LEVELS:
                hint = f"{did_you_mean(level, LEVELS)}; the levels are {', '.join(LEVELS)}"
                self.refuse(f"`{level}` is no level{hint}", f"{TABLE}.severity", selector)
        return Project(self.file, targets, **values)

    def target(self, table: Mapping[str, Any], index: int) -> Target:
        name = f"{TABLE}.targets"
        if "model" not in table:
            self.refuse("a target needs `model`, such as `mymodel.py:VAE`", name, "", index)
        return Target(**self.values(table, TARGET, name, index))

    def values(
        self, table: Mapping[str, Any], kinds: Mapping[str, Kind], name: str, index: int = 0
    ) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, value in table.items():
            if key not in kinds:
                shown = f"[[{name}]]" if name.endswith(".targets") else f"[{name}]"
                hint = did_you_mean(key, kinds) or f"; the keys are {', '.join(kinds)}"
                self.refuse(f"`{shown}` has no key `{key}`{hint}", name, key, index)
            try:
                found[key.replace("-", "_")] = kinds[key](value)
            except Wrong as kind:
                self.refuse(f"`{key}` takes {kind}, not {_shown(value)}", name, key, index)
            except ConfigError as error:
                self.refuse(error.message, name, key, index)
        return found

    def rules(self, selectors: Iterable[str], table: str, key: str) -> None:
        try:
            select_rules(selectors)
        except ConfigError as error:
            self.refuse(error.message, table, key)

    def refuse(self, message: str, table: str, key: str, index: int = 0) -> NoReturn:
        line = _line(self.text, table, key, index)
        raise ConfigError(f"{place(str(self.file))}{f':{line}' if line else ''}: {message}")


def _line(text: str, table: str, key: str, index: int) -> int | None:
    """The line of a key, of the header of its table, or of the table written as a key."""
    header: int | None = None
    seen, inside = -1, False
    for number, line in enumerate(text.splitlines(), 1):
        if match := _HEADER.match(line):
            name = ".".join(part.strip().strip("\"'") for part in match[1].split("."))
            seen += name == table
            inside = name == table and seen == index
            header = number if inside else header
        elif inside and (match := _KEY.match(line)) and match[1] == key:
            return number
    above, _, last = table.rpartition(".")
    return header or (_line(text, above, last, 0) if above else None)


def _shown(value: Any) -> str:
    text = repr(value)
    return f"`{text if len(text) <= 40 else text[:39] + '…'}`"
