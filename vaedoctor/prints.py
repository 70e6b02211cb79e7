"""What the user's code prints while it is examined: every line once, and not more than a few.

A step is repeated some fifty times, and what `forward` prints would bury the report.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

MOST = 20  # lines


class _Ledger:
    """The lines that both streams have shown, and how many they have not."""

    def __init__(self) -> None:
        self.shown: set[str] = set()
        self.dropped = 0

    def takes(self, line: str) -> bool:
        if line in self.shown or len(self.shown) >= MOST:
            self.dropped += 1
            return False
        self.shown.add(line)
        return True


class _Sparing:
    """A text stream that passes on what the ledger takes, line by line."""

    def __init__(self, stream: Any, ledger: _Ledger) -> None:
        self._stream = stream
        self._ledger = ledger
        self._begun = ""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        *lines, self._begun = (self._begun + text).split("\n")
        for line in lines:
            if self._ledger.takes(line):
                self._stream.write(line + "\n")
                self._stream.flush()
        return len(text)

    def writelines(self, lines: Any) -> None:
        for line in lines:
            self.write(line)

    def end(self) -> None:
        if self._begun:
            self.write("\n")


def spared() -> Callable[[], None]:
    """Pass on little of what is printed from here on; what is returned says how much was not."""
    ledger, streams = _Ledger(), (sys.stdout, sys.stderr)
    sparing = [_Sparing(stream, ledger) for stream in streams]
    sys.stdout, sys.stderr = sparing

    def told() -> None:
        for stream in sparing:
            stream.end()
        sys.stdout, sys.stderr = streams
        if ledger.dropped:
            more = "line" if ledger.dropped == 1 else "lines"
            sys.stderr.write(f"({ledger.dropped} more {more} that your code printed)\n")

    return told
