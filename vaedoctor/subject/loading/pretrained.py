"""Weights that the code would download: they stay as they were made, and the report says so.

A perceptual loss takes VGG from the net. Half a gigabyte tells an examination nothing that random
weights of the same network do not; what has been downloaded before is read as ever.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ...spelling import listed


class Pretrained:
    """The weights that were asked for in vain."""

    def __init__(self) -> None:
        self._names: dict[str, None] = {}

    @contextmanager
    def in_force(self) -> Iterator[None]:
        """Inside, `torch.hub` downloads nothing, and no weights load into a network as none."""
        download, load = torch.hub.download_url_to_file, nn.Module.load_state_dict

        def instead(url: str, dst: str, *args: Any, **kwargs: Any) -> None:
            self._names[Path(url).name] = None
            torch.save({}, dst)

        def loading(
            module: nn.Module, state_dict: Mapping[str, Any], *args: Any, **kwargs: Any
        ) -> Any:
            if self._names and not state_dict:
                return nn.modules.module._IncompatibleKeys([], [])
            return load(module, state_dict, *args, **kwargs)

        changed: Any = nn.Module  # mypy keeps methods from being assigned
        torch.hub.download_url_to_file, changed.load_state_dict = instead, loading
        try:
            yield
        finally:
            torch.hub.download_url_to_file, changed.load_state_dict = download, load

    def note(self) -> str:
        """What is said in the report; nothing where nothing was asked for."""
        if not self._names:
            return ""
        return f"not downloaded, so random: the weights {listed([f'`{n}`' for n in self._names])}"
