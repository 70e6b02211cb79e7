"""The defaults of a command line: what `argparse` gives when nothing is typed."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def no_argument_required() -> Iterator[None]:
    """Inside, a parser that is asked for `sys.argv` answers with the defaults.

    What is required becomes optional: the first choice, or None. No parser ends the program.
    """
    genuine = argparse.ArgumentParser.parse_known_args

    def lenient(
        self: argparse.ArgumentParser, args: Any = None, namespace: Any = None, **more: Any
    ) -> Any:
        if args:
            return genuine(self, args, namespace, **more)
        groups: list[Any] = [g for g in self._mutually_exclusive_groups if g.required]
        required: list[Any] = [a for a in self._actions if a.required]
        for action in required:
            if action.default is None and action.choices:
                action.default = next(iter(action.choices))
        try:
            for thing in (*required, *groups):
                thing.required = False
            return genuine(self, [], namespace, **more)
        finally:
            for thing in (*required, *groups):
                thing.required = True

    argparse.ArgumentParser.parse_known_args = lenient  # type: ignore[method-assign]
    try:
        yield
    finally:
        argparse.ArgumentParser.parse_known_args = genuine  # type: ignore[method-assign]


def flags_parsed() -> None:
    """Let absl's flags, if there are any, answer with their defaults."""
    absl = sys.modules.get("absl.flags")
    if absl is not None and hasattr(absl, "FLAGS"):
        absl.FLAGS.mark_as_parsed()


def defaults(calls: Iterable[tuple[list[Any], dict[str, Any]]]) -> argparse.Namespace:
    """What a parser with these `add_argument` calls gives when nothing is typed.

    A call that `argparse` refuses (an option twice, in two parsers of one file) is left out.
    """
    parser = argparse.ArgumentParser(add_help=False)
    for args, kwargs in calls:
        try:
            parser.add_argument(*args, **kwargs)
        except Exception:
            continue
    try:
        with no_argument_required():
            return parser.parse_known_args(None)[0]
    except (SystemExit, argparse.ArgumentError):
        return argparse.Namespace()
