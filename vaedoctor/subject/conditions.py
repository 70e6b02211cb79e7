"""The arguments of forward beside the data: labels, conditions, masks, lengths, time steps."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .source import function_tree
from .trial import forward_parameters

_CONDITION = re.compile(
    r"(y|c|l|cls|s|a|u|t)|.*(label|cond|class|attr|target|onehot|one_hot|ctx|context|category|domain).*"
)
_SIZE_NAMES = re.compile(
    r"(n|num|k)?_?(class|classes|labels?|cond\w*|conditions?|categories|attrs?|attributes|y|c)"
    r"(_?(dim|dims|size|num|features|d))?|n_?class(es)?|(label|cond|class|y|c|context|attr)\w*_?(dim|size)"
)
_USUAL_SIZES = (10, 5, 3, 2)


@dataclass(frozen=True, slots=True)
class Extra:
    """One argument of forward beside the data, and how to make values for it."""

    name: str
    required: bool
    index_first: bool
    sizes: tuple[int, ...]
    default: Any = None

    def options(self, x: Tensor) -> list[Any]:
        """Values worth trying next to x, the likeliest first."""
        b, name = x.shape[0], self.name.lower()
        if "mask" in name or "valid" in name:
            return [torch.ones(x.shape[:2], dtype=torch.bool), torch.ones_like(x)]
        if "length" in name or name in {"lens", "seq_len"}:
            return [torch.full((b,), x.shape[1] if x.dim() > 1 else 1)]
        if re.fullmatch(r"beta|temp|temperature|tau|alpha|kl_weight|.*_weight|scale", name):
            return [1.0]
        if re.fullmatch(
            r"epoch|step|iteration|iter|global_step|batch_idx|n_samples?|k|num_samples", name
        ):
            return [1]
        if re.fullmatch(r"t|timesteps?|time", name):
            return [torch.arange(b) % 5, torch.linspace(0, 1, b).to(x.dtype)]
        if isinstance(self.default, bool) or re.fullmatch(
            r"(is|use|return|with)_.*|sample|train(ing)?", name
        ):
            return [True]
        made = [o for k in self.sizes for o in self._conditions(x, b, k)]
        return made if _CONDITION.fullmatch(name) else [torch.rand_like(x.to(_real(x))), *made]

    def _conditions(self, x: Tensor, rows: int, k: int) -> list[Tensor]:
        index = (torch.arange(rows) % k).to(x.device)
        one_hot = F.one_hot(index, k).to(_real(x))
        return [index, one_hot] if self.index_first else [one_hot, index]


def extras_of(model: nn.Module, sizes: list[int]) -> list[Extra]:
    """The arguments after the first; those with a default only where they look like conditions."""
    names = forward_parameters(model)
    index_first = _takes_indices(model)
    found = []
    for p in names[1:]:
        if p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD):
            continue
        required = p.default is p.empty
        if required or (p.default is None and _CONDITION.fullmatch(p.name.lower())):
            found.append(Extra(p.name, required, index_first, tuple(sizes), p.default))
    return found


def condition_sizes(model: nn.Module, hints: Mapping[str, Any]) -> list[int]:
    """How many classes a condition may have: told by names first, then embeddings, then usual."""
    told = [
        v
        for k, v in hints.items()
        if isinstance(v, int)
        and not isinstance(v, bool)
        and v > 0
        and _SIZE_NAMES.fullmatch(k.lower())
    ]
    tables = [m.num_embeddings for m in model.modules() if isinstance(m, nn.Embedding)]
    return list(dict.fromkeys((*told, *tables, *(() if told else _USUAL_SIZES))))


def packing_of(
    model: nn.Module, x: Tensor, extras: Mapping[str, Any], sizes: list[int]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """X and its companions as forward wants them: one by one, in a dict, or in a tuple."""
    parameters = forward_parameters(model)
    first = parameters[0] if parameters else None
    keys, count = _unpacked(model, first)
    if keys:
        return ({k: _item(k, i, x, sizes) for i, k in enumerate(keys)},), dict(extras)
    if count > 1:
        return (tuple(_item("y" if i else "x", i, x, sizes) for i in range(count)),), dict(extras)
    if first is not None and first.kind is inspect.Parameter.KEYWORD_ONLY:
        return (), {first.name: x, **extras}
    positional = [p.name for p in parameters[1:] if p.kind is p.POSITIONAL_ONLY]
    args = (x, *(extras[n] for n in positional if n in extras))
    ordered = list(extras)
    if ordered == [p.name for p in parameters[1 : 1 + len(ordered)]] and not positional:
        return (x, *extras.values()), {}
    return args, {k: v for k, v in extras.items() if k not in positional}


def _item(name: str, index: int, x: Tensor, sizes: list[int]) -> Any:
    if index == 0:
        return x
    return Extra(name, True, True, tuple(sizes)).options(x)[0]


def _unpacked(model: nn.Module, first: inspect.Parameter | None) -> tuple[list[str], int]:
    """String keys forward reads from its first argument, or how many parts it unpacks it into."""
    tree = function_tree(type(model).forward) if first is not None else None
    if tree is None or first is None:
        return [], 0
    keys: dict[str, None] = {}
    for node in ast.walk(tree):
        match node:
            case ast.Subscript(value=ast.Name(id=name), slice=ast.Constant(value=str(key))):
                if name == first.name and isinstance(node.ctx, ast.Load):
                    keys[key] = None
            case ast.Assign(targets=[ast.Tuple(elts=parts)], value=ast.Name(id=name)):
                if name == first.name:
                    return [], len(parts)
    return list(keys), 0


def _takes_indices(model: nn.Module) -> bool:
    if any(isinstance(m, nn.Embedding) for m in model.modules()):
        return True
    tree = function_tree(type(model).forward)
    return tree is not None and "one_hot" in ast.dump(tree)


def _real(x: Tensor) -> torch.dtype:
    return x.dtype if x.is_floating_point() else torch.get_default_dtype()
