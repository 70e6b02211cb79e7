"""Who takes part in a step: the objects whose own methods run, and the user's functions that do."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from types import CodeType, FrameType
from typing import Any

from ...subject.subject import Subject
from ..code.places import is_user_file
from .step import runs_unrecorded


@dataclass(frozen=True, slots=True)
class Actors:
    """What ran in one step, in the order of the first call.

    Objects that the step makes for itself are none of them. `spaces` are the global names of the
    files whose functions ran, by file.
    """

    objects: dict[int, Any] = field(default_factory=dict)
    made: dict[int, Any] = field(default_factory=dict)
    functions: dict[CodeType, None] = field(default_factory=dict)
    spaces: dict[str, dict[str, Any]] = field(default_factory=dict)

    def enter(self, frame: FrameType, event: str, _: Any) -> None:
        """Note a function of the user's that is called."""
        code = frame.f_code
        if event != "call" or not is_user_file(code.co_filename):
            return
        if code not in self.functions:
            self.functions[code] = None
            if frame.f_globals.get("__file__") == code.co_filename:
                self.spaces[code.co_filename] = frame.f_globals
        if code.co_argcount and code.co_varnames[0] == "self":
            this = frame.f_locals.get("self")
            if code.co_name == "__init__":
                self.made[id(this)] = this
            elif id(this) not in self.made:
                self.objects[id(this)] = this


def actors(subject: Subject, seed: int, rewind: Callable[[], None]) -> Actors:
    """Run the step once more and watch who is called."""
    found, before = Actors(), sys.getprofile()
    try:
        sys.setprofile(found.enter)
        runs_unrecorded(subject, seed=seed)
    finally:
        sys.setprofile(before)
        rewind()
    return found
