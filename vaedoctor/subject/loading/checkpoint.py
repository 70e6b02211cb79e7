"""A trained model: the weights of a file, read without executing anything it holds."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from ..errors import TargetError, a_kind, summary

_INSIDE = ("state_dict", "model_state_dict", "model")  # where training scripts keep the weights
_WRAPPERS = ("module.", "_orig_mod.")  # DataParallel's and torch.compile's
_MOST = 4


def load_checkpoint(model: nn.Module, file: str) -> None:
    """Load a state_dict into the model. Raises `TargetError` when it cannot be read or fit."""
    state = _state(Path(file).expanduser())
    own = model.state_dict()
    for wrapper in (*_WRAPPERS, *_WRAPPERS):
        if not any(k.startswith(wrapper) for k in own):
            state = {k.removeprefix(wrapper): v for k, v in state.items()}
    wrong = _differences(own, state)
    if wrong:
        more = f" and {len(wrong) - _MOST} more" if len(wrong) > _MOST else ""
        raise TargetError(
            f"the checkpoint `{file}` does not fit the model: {'; '.join(wrong[:_MOST])}{more}",
            next_step="name the constructor arguments it was trained with: `--arg NAME=VALUE`",
        )
    try:
        model.load_state_dict(state)
    except Exception as error:
        raise TargetError(
            f"the checkpoint `{file}` does not fit the model: {summary(error)}",
            next_step="name the constructor arguments it was trained with: `--arg NAME=VALUE`",
        ) from None


def _state(path: Path) -> Mapping[str, Any]:
    if not path.is_file():
        raise TargetError(f"the checkpoint `{path}` does not exist", next_step=f"ls {path.parent}")
    try:
        held = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise TargetError(
            f"the checkpoint `{path}` cannot be read as plain weights: {summary(error)}",
            next_step="save it with `torch.save(model.state_dict(), path)`; nothing that could "
            "execute code is read",
        ) from None
    for key in _INSIDE:
        if isinstance(held, Mapping) and isinstance(held.get(key), Mapping):
            held = held[key]
            break
    if not isinstance(held, Mapping) or not all(isinstance(k, str) for k in held):
        raise TargetError(
            f"the checkpoint `{path}` holds {a_kind(held)}, not a state_dict",
            next_step="save it with `torch.save(model.state_dict(), path)`",
        )
    return held


def _differences(own: Mapping[str, Any], state: Mapping[str, Any]) -> list[str]:
    """How the weights of the file differ from those the model has, in names and shapes."""
    missing = [f"it lacks `{k}`" for k in own if k not in state]
    extra = [f"the model has no `{k}`" for k in state if k not in own]
    shapes = [
        f"`{k}` is {_shape(state[k])} in the file and {_shape(own[k])} in the model"
        for k in own
        if k in state and not is_lazy(own[k]) and _shape(state[k]) != _shape(own[k])
    ]
    return [*shapes, *missing, *extra]


def _shape(value: Any) -> str:
    return "×".join(map(str, value.shape)) or "a number" if isinstance(value, Tensor) else ""
