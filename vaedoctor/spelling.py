"""Words in sentences: lists, and the known word that a mistyped one probably means."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from difflib import get_close_matches


def listed(words: Sequence[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`; did you mean ...?` when a known word is close, else nothing."""
    close = closest(word, known)
    return f"; did you mean `{close}`?" if close else ""


def closest(word: str, known: Iterable[str]) -> str | None:
    """The known word nearest to a mistyped one; case and `-` against `_` do not count."""
    spelled = {_folded(k): k for k in known}
    close = get_close_matches(_folded(word), spelled, n=1, cutoff=0.6)
    return spelled[close[0]] if close else None


def _folded(word: str) -> str:
    return word.lower().replace("_", "-")
