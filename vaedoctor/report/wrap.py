"""Lines of at most a width, with their styles."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator

from rich.text import Text


def wrap(
    said: str, width: int, *, first: str = "", rest: str = "", style: str = ""
) -> Iterator[Text]:
    """A text in lines: `first` goes before the first, the others are indented like `rest`."""
    text = Text(f"{first}{said}", style=style)
    yield from hang(text, width, indent=len(rest))


def hang(text: Text, width: int, *, indent: int) -> Iterator[Text]:
    """The text in lines of at most `width`, all but the first indented."""
    if text.cell_len <= width:
        yield text
        return
    # Positions come from textwrap, which measures characters; the styles stay on their places.
    lines = textwrap.wrap(
        text.plain,
        width,
        subsequent_indent=" " * indent,
        break_long_words=False,
        break_on_hyphens=False,
        drop_whitespace=True,
    )
    at = 0
    for i, line in enumerate(lines):
        words = line.removeprefix(" " * indent) if i else line
        at = text.plain.index(words, at)
        part = text[at : at + len(words)]
        at += len(words)
        yield Text(" " * indent).append_text(part) if i else part
