"""What code does with a value it is given."""

from __future__ import annotations

import inspect
from dataclasses import dataclass, field
from typing import Any


@dataclass(eq=False, slots=True)
class Use:
    """What is done with one value.

    `attributes` and `keys` hold what is read from it (integer keys are positions), `fallbacks` the
    values the code itself falls back to, `items` the use of an element, `count` into how many it is
    unpacked, `equals` the constants it is compared with, `names` the parameters it is passed to,
    `methods` those of its methods that are called; a `part` is put into an `nn.Sequential`, and
    what `may_lack` is read with `.get(key, None)`, and what is `tested` by `key in cfg`; `kinds` is
    what `isinstance` is asked about, and `results` what is done with what methods return; what
    `repeats` is how often a loop runs.
    """

    attributes: dict[str, Use] = field(default_factory=dict)
    keys: dict[Any, Use] = field(default_factory=dict)
    fallback: Any = inspect.Parameter.empty
    may_lack: bool = False
    tested: bool = False
    items: Use | None = None
    count: int | None = None
    mapping: bool = False
    sized: bool = False
    called: int | None = None
    equals: list[Any] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    methods: list[str] = field(default_factory=list)
    part: bool = False
    of_torch: bool = False
    number: bool = False
    repeats: bool = False
    text: bool = False
    kinds: list[type] = field(default_factory=list)
    results: dict[str, Use] = field(default_factory=dict)

    def attribute(self, name: str) -> Use:
        """The use of an attribute."""
        return self.attributes.setdefault(name, Use())

    def key(self, key: Any) -> Use:
        """The use of the value under a key."""
        return self.keys.setdefault(key, Use())

    def result(self, method: str) -> Use:
        """The use of what a method returns."""
        return self.results.setdefault(method, Use())

    def element(self) -> Use:
        """The use of an element."""
        if self.items is None:
            self.items = Use()
        return self.items

    @property
    def said(self) -> bool:
        """Whether anything at all is known."""
        return bool(
            self.attributes or self.keys or self.items or self.mapping or self.sized
            or self.equals or self.names or self.methods or self.of_torch or self.number
            or self.part
        ) or self.called is not None  # fmt: skip
