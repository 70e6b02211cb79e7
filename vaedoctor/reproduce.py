"""The command that examines a target again, as a report says it."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from typing import Any

_NAMED = ("input", "objective", "beta", "batch_size", "checkpoint")
_SWITCHES = ("exec", "hunt")


def command(request: Mapping[str, Any]) -> str:
    """`vaedoctor check …` with every option that differs from its default; always with the seed.

    Run where the first one ran, it examines the same model in the same way.
    """
    return shlex.join(["vaedoctor", "check", str(request["target"]), *_options(request)])


def _options(request: Mapping[str, Any]) -> Iterator[str]:
    for option, key in (("--arg", "args"), ("--call", "call")):
        for name, value in (request.get(key) or {}).items():
            yield from (option, f"{name}={value}")
    for key in _NAMED:
        if request.get(key) is not None:
            yield from (f"--{key.replace('_', '-')}", str(request[key]))
    for item in request.get("conditions") or ():
        yield from ("--condition", str(item))
    axis = request.get("batch_axis", 0)
    if axis != 0:
        yield from ("--batch-axis", "none" if axis is None else str(axis))
    yield from (f"--{key}" for key in _SWITCHES if request.get(key))
    for key in ("select", "ignore"):
        if request.get(key):
            yield from (f"--{key}", ",".join(request[key]))
    yield from ("--seed", str(request.get("seed", 0)))
