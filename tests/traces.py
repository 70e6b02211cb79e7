"""A second, independent account of everything a check-up must leave as it was."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

HOOKS = (
    "_forward_hooks",
    "_forward_pre_hooks",
    "_backward_hooks",
    "_backward_pre_hooks",
    "_state_dict_hooks",
    "_state_dict_pre_hooks",
    "_load_state_dict_pre_hooks",
    "_load_state_dict_post_hooks",
)


def bits(tensor: Tensor) -> bytes:
    """The tensor's content, so that NaN equals itself and -0.0 differs from 0.0."""
    return tensor.detach().contiguous().cpu().reshape(-1).view(torch.uint8).numpy().tobytes()


def photograph(model: nn.Module, *others: Tensor) -> dict[str, Any]:
    """Everything about the model, the tensors beside it and the process, as comparable values."""
    seen: dict[str, Any] = {}
    for path, module in model.named_modules():
        seen[f"{path}: class"] = type(module)
        seen[f"{path}: training"] = module.training
        seen[f"{path}: attributes"] = _attributes(module)
        seen[f"{path}: hooks"] = {name: list(getattr(module, name, ())) for name in HOOKS}
        seen[f"{path}: tensors"] = [*module._parameters, "|", *module._buffers]
        seen[f"{path}: children"] = {k: id(m) for k, m in module._modules.items()}
    tensors = [*model.named_parameters(), *model.named_buffers()]
    tensors += [(f"other {i}", t) for i, t in enumerate(others)]
    for name, tensor in tensors:
        seen[name] = _tensor(tensor)
    return seen | _process()


def _tensor(tensor: Tensor) -> tuple[Any, ...]:
    if isinstance(tensor, nn.parameter.UninitializedTensorMixin):
        return type(tensor), id(tensor)
    return (
        type(tensor),
        id(tensor),
        tensor.data_ptr(),
        tuple(tensor.shape),
        tensor.dtype,
        tensor.requires_grad,
        bits(tensor),
        _gradient(tensor),
        list(tensor._backward_hooks or ()),
        list(getattr(tensor, "_post_accumulate_grad_hooks", None) or ()),
    )


def _gradient(tensor: Tensor) -> tuple[int, bytes] | None:
    if not tensor.is_leaf or tensor.grad is None:
        return None
    return id(tensor.grad), bits(tensor.grad)


def _attributes(module: nn.Module) -> dict[str, Any]:
    return {k: _value(v) for k, v in vars(module).items() if k not in HOOKS}


def _value(value: Any) -> Any:
    """Identity of what an attribute holds, and one level of what a container in it holds."""
    if isinstance(value, Tensor):
        return _tensor(value)
    if isinstance(value, Mapping):
        return id(value), {k: id(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return id(value), [id(v) for v in value]
    if isinstance(value, bool | int | float | str):
        return value
    return id(value)


def _process() -> dict[str, Any]:
    name, keys, *rest = np.random.get_state()
    return {
        "torch generator": bits(torch.get_rng_state()),
        "numpy generator": (name, keys.tobytes(), *rest),
        "python generator": random.getstate(),
        "grad mode": torch.is_grad_enabled(),
        "inference mode": torch.is_inference_mode_enabled(),
        "default dtype": torch.get_default_dtype(),
        "anomaly mode": torch.is_anomaly_enabled(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "threads": torch.get_num_threads(),
        "function modes": torch.overrides._get_current_function_mode_stack(),
        "global hooks": [
            list(getattr(nn.modules.module, name))
            for name in ("_global_forward_hooks", "_global_forward_pre_hooks")
        ],
    }


def differences(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """What changed, by name."""
    return sorted(k for k in before.keys() | after.keys() if before.get(k) != after.get(k))
