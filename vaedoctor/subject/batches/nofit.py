"""No made-up batch fits: what is said, with the lines to edit for a batch of one's own."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import TargetError, summary
from ..trials.trial import Trial, forward_parameters
from .guess import Made


class NotGuessed(TargetError):
    """No made-up input fits; `trial` is the one that came furthest, if any was made."""

    trial: Trial | None = None


def _nearest(made: Made | None, parameters: list[inspect.Parameter]) -> dict[str, str]:
    """What the try that came furthest gave to each parameter, as an expression to be edited."""
    given: dict[str, Any] = {}
    if made is not None:
        names = [p.name for p in parameters]
        given = dict(zip(names, made.args, strict=False)) | dict(made.kwargs)
    needed = [p.name for p in parameters if p.default is p.empty or p.name in given] or ["x"]
    return {n: _expression(given.get(n, ...)) for n in needed}


def _expression(value: Any) -> str:
    match value:
        case Tensor() if value.dtype is torch.bool:
            return f"torch.ones({_sides(value)}, dtype=torch.bool)"
        case Tensor() if value.dim() and not value.is_floating_point() and value.numel():
            return f"torch.randint({int(value.max()) + 1}, ({_sides(value)},))"
        case Tensor() if value.dim() > 1:
            return f"torch.rand({_sides(value)})"
        case torch.device():
            return f'torch.device("{value}")'
        case bool() | int() | float() | str() | None:
            return repr(value)
        case dict() if value:
            entries = (f"        {k!r}: {_expression(v)}," for k, v in value.items())
            return "\n".join(["{", *entries, "    }"])
        case list() | tuple() if value:
            inside = ", ".join(map(_expression, value))
            return f"[{inside}]" if isinstance(value, list) else f"({inside},)"
    return "torch.rand(16, 784)"


def _sides(value: Tensor) -> str:
    return ", ".join(map(str, value.shape))


def no_guess(model: nn.Module, target: str, made: Made | None) -> NotGuessed:
    """The refusal of a model, with what came furthest as the lines to begin with."""
    parameters = [p for p in forward_parameters(model) if p.kind is not p.VAR_POSITIONAL]
    names = ", ".join(p.name for p in parameters)
    command = f"vaedoctor check {target or 'mymodel.py:VAE'}"
    tried = ""
    if made is not None and made.trial.error is not None:
        tried = f"; the nearest try ({made.origin}) raised {summary(made.trial.error)}"
    lines = [f"{command} --input 16x784"] if len(parameters) < 2 else []
    shown = _nearest(made, parameters)
    alone = len(shown) == 1
    given = ", ".join(f"{e}  # {n}" if alone else n for n, e in shown.items())
    rows = [] if alone else [f"    {n} = {e}" for n, e in shown.items()]
    refused = NotGuessed(
        f"the input of `{type(model).__name__}.forward({names})` cannot be guessed{tried}",
        next_step="\n".join(
            [
                *lines,
                f"{command} --input data.py:one_batch",
                "",
                "where data.py says what forward takes:",
                "",
                "import torch",
                "",
                "def one_batch():",
                *rows,
                f"    return {given}",
            ]
        ),
    )
    refused.trial = None if made is None else made.trial
    return refused
