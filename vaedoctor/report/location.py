"""Where a finding is, for formats that point into a repository: every finding has a place."""

from __future__ import annotations

import os
from pathlib import Path

from ..finding import Finding, Report, Span


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
