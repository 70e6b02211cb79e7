"""What the user's code changes in the process while it loads, put back as it was."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress


@contextmanager
def unchanged_process(argv: str) -> Iterator[None]:
    """No arguments and no bytecode inside; outside the process as it was.

    Working folder, `sys.argv`, `sys.path`, `sys.meta_path`, the environment and the warning
    filters are restored; what is imported from the user's folders is `project.Project`'s to remove.
    """
    folder, environment = os.getcwd(), dict(os.environ)
    before = sys.dont_write_bytecode, sys.argv, sys.path, list(sys.path), list(sys.meta_path)
    sys.dont_write_bytecode, sys.argv = True, [argv]
    with warnings.catch_warnings():
        try:
            yield
        finally:
            sys.dont_write_bytecode, sys.argv, sys.path = before[:3]
            sys.path[:], sys.meta_path[:] = before[3:]
            if dict(os.environ) != environment:
                os.environ.clear()
                os.environ.update(environment)
            with suppress(OSError):
                os.chdir(folder)
