"""Where a finding is, for formats that point into a repository: every finding has a place."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path, PurePosixPath

from ..finding import Finding, Report, Span
from ..notebook import raw_line, source_line


def located(finding: Finding, report: Report) -> Span:
    """The finding's place; the first line of what was examined where it has none."""
    return finding.at or Span(target_file(report.target), 1)


def target_file(target: str) -> str:
    """The file of `folder/mymodel.py:VAE`; of a module `pkg.models:VAE` the file it would be."""
    file, colon, _ = target.rpartition(":")
    # A drive letter is no target: `C:\\mymodel.py`.
    file = file if colon and len(file) > 1 else target
    if "/" in file or os.sep in file or Path(file).suffix in (".py", ".ipynb"):
        return file
    return f"{file.replace('.', '/')}.py"


def shown_in(at: Span, report: Report) -> Span:
    """The place as a repository's page can show it: a relative path and a whole extent.

    A place outside the repository (an installed package) goes to the target's file, else to the
    project's configuration, else to the name that the target's file would have. A place in a
    notebook's cell is the line of the notebook's JSON that holds it.
    """
    file, line = raw_line(at.file, at.line)
    at = at if file == at.file else Span(file, line)
    root = repository()
    own = inside(at.file, root)
    if own is not None:
        return replace(extent(at), file=own)
    for file in (target_file(report.target), str(root / "pyproject.toml")):
        found = inside(file, root)
        if found is not None:
            return replace(extent(Span(file, 1)), file=found)
    parts = [
        p for p in PurePosixPath(Path(target_file(report.target)).as_posix()).parts if p != "/"
    ]
    named = "/".join(p for p in parts if p not in ("..", ".")) or "pyproject.toml"
    return Span(named, 1, 1, 1, 2)


def extent(at: Span) -> Span:
    """The place with an end that lies behind its start, in positive numbers."""
    line, col = max(at.line, 1), max(at.col, 1)
    if at.end_line > line and at.end_col >= 1:
        return replace(at, line=line, col=col)
    code = line_at(at)
    end = at.end_col if at.end_line in (0, line) and at.end_col > col else len(code) + 1
    return replace(at, line=line, col=col, end_line=line, end_col=max(end, col + 1))


def line_at(at: Span) -> str:
    """The source line of a place; empty where it cannot be read."""
    try:
        return source_line(at.file, at.line).rstrip("\n")
    except ValueError:  # no file has such a name
        return ""


def repository() -> Path:
    """The nearest folder upward that holds `.git`; the working folder where none does."""
    here = Path.cwd().resolve()
    return next((f for f in (here, *here.parents) if (f / ".git").exists()), here)


def inside(file: str, root: Path) -> str | None:
    """The path of a file as the repository names it, with forward slashes; None outside of it."""
    try:
        path = Path(os.path.realpath(file))
        return path.relative_to(root).as_posix() if path.is_file() else None
    except (OSError, ValueError):
        return None
