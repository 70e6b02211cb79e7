"""Where the report goes: one examination feeds every format, file and summary asked for."""

from __future__ import annotations

import importlib
import os
import shutil
import stat
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from .config import ConfigError
from .finding import Report, exit_code
from .spelling import did_you_mean

FORMATS = ("text", "concise", "json", "html", "sarif", "markdown", "github", "junit")
FOR_TERMINALS = ("text", "concise")  # in the encoding of the terminal; all others in UTF-8


def reporting(command: Any) -> Any:
    """The options that say in which form the report is shown and where it goes."""
    for option in (
        click.option("-v", "--verbose", is_flag=True, help="Add passed and skipped rules."),
        click.option("-q", "--quiet", is_flag=True, help="Only the findings and the verdict."),
        click.option("--color", type=click.Choice(["auto", "always", "never"]), default="auto"),
        click.option("--exit-zero", is_flag=True, help="Exit 0 in spite of findings."),
        click.option("--statistics", is_flag=True, help="Count the findings of each rule."),
        click.option("--github-summary", is_flag=True,
                     help="Append the report to $GITHUB_STEP_SUMMARY."),
        click.option("--output", "outputs", multiple=True, metavar="FORMAT=PATH",
                     help="Write the report to a file as well, in any format; repeatable."),
        click.option("--format", "form", type=click.Choice(FORMATS), default="text",
                     show_default=True, help="What is written to stdout."),
    ):  # fmt: skip
        command = option(command)
    return command


@dataclass(frozen=True, slots=True)
class Outputs:
    """What was asked for. Made before the examination starts, so that bad paths fail at once."""

    form: str
    files: tuple[tuple[str, Path], ...]
    summary: Path | None
    statistics: bool
    exit_zero: bool
    color: str
    verbose: bool
    quiet: bool

    @classmethod
    def of(cls, options: dict[str, Any]) -> Outputs:
        """Take the options of `reporting` out of `options`. Raises ConfigError for bad ones."""
        return cls(
            form=options.pop("form"),
            files=_files(options.pop("outputs")),
            summary=_summary() if options.pop("github_summary") else None,
            **{k: options.pop(k) for k in ("statistics", "exit_zero", "color", "verbose", "quiet")},
        )

    def load(self) -> None:
        """Import what the formats need, while the examination runs."""
        for form in self._forms():
            _format(form)

    def deliver(self, reports: Report | Sequence[Report]) -> None:
        """Write everything that was asked for."""
        self.keep(reports)
        if self.form == "text":
            said = _format("text")(
                reports,
                width=min(width(), 120),
                color=_coloured(self.color),
                verbose=self.verbose,
                quiet=self.quiet,
                ascii=not speaks_unicode(),
                statistics=self.statistics,
            )
        else:
            said = self._render(self.form, reports)
        write(said, utf8=self.form not in FOR_TERMINALS)

    def keep(self, reports: Report | Sequence[Report]) -> None:
        """Write the files and the summary, not stdout."""
        for form, path in self.files:
            replace_file(path, self._render(form, reports))
        if self.summary is not None:
            data = self._render("markdown", reports).encode("utf-8", "backslashreplace")
            with self.summary.open("ab") as file:
                file.write(data)

    def stopped(self, report: Report) -> None:
        """Tell all but people, who are told on stderr, that a target could not be examined."""
        if self.form in FOR_TERMINALS:
            self.keep(report)
        else:
            self.deliver(report)

    def exit_code(self, reports: Report | Sequence[Report]) -> int:
        """0, 1 or 2; findings count for nothing with `--exit-zero`."""
        code = exit_code(reports)
        return 0 if self.exit_zero and code == 1 else code

    def _forms(self) -> Iterable[str]:
        return (self.form, *(f for f, _ in self.files), *(["markdown"] if self.summary else []))

    def _render(self, form: str, reports: Report | Sequence[Report]) -> str:
        counted = {"statistics": self.statistics} if form in FOR_TERMINALS else {}
        said: str = _format(form)(reports, **counted)
        return said


def write(text: str, *, utf8: bool = False) -> None:
    """Write to stdout; in an encoding that lacks a character, its nearest ASCII."""
    encoding = "utf-8" if utf8 else getattr(sys.stdout, "encoding", None) or "utf-8"
    if not utf8 and not speaks_unicode():
        from .report.plain import ascii_only

        text = ascii_only(text)
    click.echo(text.encode(encoding, "backslashreplace"), nl=False)


def progress(said: str) -> None:
    """Replace the last line of a terminal's stderr by what is being done; elsewhere nothing."""
    if sys.stderr.isatty():
        from .report.plain import plain

        click.echo(f"\r\x1b[2K{plain(said)[: width() - 1]}", nl=False, err=True)


def width() -> int:
    """The terminal's columns."""
    return shutil.get_terminal_size((80, 24)).columns


def speaks_unicode() -> bool:
    """Whether stdout can show every character."""
    return (getattr(sys.stdout, "encoding", None) or "").lower().replace("-", "") == "utf8"


def replace_file(path: Path, text: str) -> None:
    """Write a file all at once: who reads it sees the old content or the new, never half."""
    data = text.encode("utf-8", "backslashreplace")
    if _is_stream(path):
        path.write_bytes(data)
        return
    path = path.resolve()  # a link stays a link
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        unfinished.write_bytes(data)
        if path.exists():
            unfinished.chmod(stat.S_IMODE(path.stat().st_mode))
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def _is_stream(path: Path) -> bool:
    """Whether a path is written to and not replaced: /dev/stdout, a pipe."""
    return path.absolute().parts[:2] in (("/", "dev"), ("/", "proc")) or (
        path.exists() and not path.is_file()
    )


def _format(form: str) -> Any:
    return getattr(importlib.import_module(f"{__package__}.report.as_{form}"), f"as_{form}")


def _files(words: Iterable[str]) -> tuple[tuple[str, Path], ...]:
    """The `FORMAT=PATH` words, each of which can be written."""
    found: list[tuple[str, Path]] = []
    for word in words:
        form, equals, name = word.partition("=")
        if not equals or not name:
            raise ConfigError(f"`--output {word}` is not FORMAT=PATH, as in `sarif=report.sarif`")
        if form not in FORMATS:
            hint = did_you_mean(form, FORMATS) or f"; the formats are {', '.join(FORMATS)}"
            raise ConfigError(f"`--output {word}`: `{form}` is no format{hint}")
        path = Path(name)
        _require_writable(path, f"--output {word}")
        if path.resolve() in (p.resolve() for _, p in found):
            raise ConfigError(f"`--output {word}`: another format goes to the same file")
        found.append((form, path))
    return tuple(found)


def _require_writable(path: Path, option: str) -> None:
    """Try what `replace_file` will do. Raises ConfigError where it would fail."""
    try:
        folder = path.resolve().parent
        if path.is_dir():
            raise ConfigError(f"`{option}`: `{path}` is a folder; name a file in it")
        if not folder.is_dir():
            raise ConfigError(f"`{option}`: the folder `{folder}` does not exist; make it first")
        if path.exists():
            with path.open("ab"):
                pass
        if not _is_stream(path):
            trial = folder / f".{path.name}.{os.getpid()}.part"
            trial.write_bytes(b"")
            trial.unlink()
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise ConfigError(f"`{option}` cannot be written: {why}") from None


def _summary() -> Path:
    name = os.environ.get("GITHUB_STEP_SUMMARY")
    if not name:
        raise ConfigError(
            "`--github-summary` needs the variable GITHUB_STEP_SUMMARY, which GitHub Actions "
            "sets; elsewhere use `--output markdown=PATH`"
        )
    _require_writable(Path(name), "--github-summary")
    return Path(name)


def _coloured(when: str) -> bool:
    if when != "auto":
        return when == "always"
    from rich.console import Console

    console = Console()  # obeys NO_COLOR, FORCE_COLOR and TERM
    return console.is_terminal and console.color_system is not None and not console.no_color
