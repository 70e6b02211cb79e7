"""stub"""

from __future__ import annotations

from typing import Any


def find_objective(
    model: Any, batch: Any, given: Any, *, source: Any, namespace: Any, seed: int
) -> Any:
    return None, ()
