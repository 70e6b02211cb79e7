"""What the user's code changes in the process while it loads, put back as it was."""

from __future__ import annotations

import os
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

from ..errors import OURS


@contextmanager
def unchanged_process(argv: str) -> Iterator[None]:
    """No arguments and no bytecode inside; outside the process as it was.

    Working folder, `sys.argv`, `sys.path`, `sys.meta_path`, the environment and the warning
    filters are restored; what is imported from the user's folders is `project.Project`'s to remove.
    What `torch.hub` downloads is kept for the time inside only.
    """
    folder, environment = os.getcwd(), dict(os.environ)
    before = sys.dont_write_bytecode, sys.argv, sys.path, list(sys.path), list(sys.meta_path)
    sys.dont_write_bytecode, sys.argv = True, [argv]
    with warnings.catch_warnings(), tempfile.TemporaryDirectory(prefix="vaedoctor-") as lent:
        try:
            warnings.showwarning = partial(_shown, warnings.showwarning)
            os.environ["TORCH_HOME"] = _as_it_is(_torch_home(), Path(lent))
            yield
        finally:
            sys.dont_write_bytecode, sys.argv, sys.path = before[:3]
            sys.path[:], sys.meta_path[:] = before[3:]
            if dict(os.environ) != environment:
                os.environ.clear()
                os.environ.update(environment)
            with suppress(OSError):
                os.chdir(folder)


def _shown(
    show: Callable[..., None],
    message: Warning | str,
    category: type[Warning],
    filename: str,
    *more: Any,
    **named: Any,
) -> None:
    """A warning of the user's code; without its place where that is the line that called it."""
    if OURS in Path(filename).parents:
        sys.stderr.write(f"{category.__name__}: {message}\n")
    else:
        show(message, category, filename, *more, **named)


def _torch_home() -> Path:
    """Where `torch.hub` keeps what it has downloaded, as torch itself finds it."""
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(os.environ.get("TORCH_HOME") or Path(cache) / "torch").expanduser()


def _as_it_is(home: Path, lent: Path) -> str:
    """A folder with all that is downloaded, to which more may be added without leaving a trace."""
    for inside in ("hub", "hub/checkpoints"):
        with suppress(OSError):
            for path in (home / inside).iterdir():
                (lent / inside).mkdir(parents=True, exist_ok=True)
                if path.name != "checkpoints":
                    (lent / inside / path.name).symlink_to(path.resolve())
    return str(lent)
