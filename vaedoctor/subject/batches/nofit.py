"""No made-up batch fits: what is said, with the lines to edit for a batch of one's own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from ..construct.spelled import as_function
from ..errors import TargetError, summary, user_traceback
from ..subject import Batch
from ..trials.trial import Trial, forward_parameters
from .fitting import blamed_for
from .guess import Made


class NotGuessed(TargetError):
    """No made-up input fits; `trial` is the one that came furthest, if any was made.

    `lines` are a function with what it was given, `shape` a command that names a shape instead.
    """

    trial: Trial | None = None
    lines: tuple[str, ...] = ()
    shape: str = ""


def no_guess(model: nn.Module, target: str, made: Made | None) -> NotGuessed:
    """The refusal of a model, with what came furthest as the lines to begin with."""
    parameters = [p for p in forward_parameters(model) if p.kind is not p.VAR_POSITIONAL]
    names = ", ".join(p.name for p in parameters)
    command = f"vaedoctor check {target or 'mymodel.py:VAE'}"
    tried, args, kwargs = "", *((made.args, made.kwargs) if made is not None else ((), {}))
    if made is not None and made.trial.error is not None:
        tried = f"; the nearest try ({made.origin}) raised {summary(made.trial.error)}"
    shown = f"{command} --input {_shape(args if tried else ())}" if len(parameters) < 2 else ""
    lines = as_function(model, args, kwargs, made.blamed if made is not None else ())
    refused = NotGuessed(
        f"the input of `{type(model).__name__}.forward({names})` cannot be guessed{tried}",
        next_step=_next(shown, command, lines, here=bool(tried)),
    )
    refused.trial, refused.lines = None if made is None else made.trial, tuple(lines)
    refused.shape = shown
    return refused


def refused_by(
    model: nn.Module, target: str, batch: Batch, error: BaseException, seed: int
) -> TargetError:
    """What is said where a forward pass raises on a batch that was made up, and may be right to."""
    lines = as_function(
        model, batch.args, batch.kwargs, blamed_for(model, batch.args, batch.kwargs, seed)
    )
    return TargetError(
        f"`{type(model).__name__}` does not run on the input that was made up ({batch.origin}): "
        f"{summary(error)}",
        traceback=user_traceback(error),
        next_step=_next("", f"vaedoctor check {target or 'mymodel.py:VAE'}", lines, here=True),
    )


def _next(shape: str, command: str, lines: Sequence[str], *, here: bool) -> str:
    tried = ", here as in that try:" if here else ":"
    said = f"where data.py says what forward takes{tried}"
    return "\n".join(
        [*([shape] if shape else []), f"{command} --input data.py:one_batch", "", said, "", *lines]
    )


def _shape(args: tuple[Any, ...]) -> str:
    """The shape of the nearest try, as the option takes it."""
    first = args[0] if args and isinstance(args[0], Tensor) and args[0].dim() else None
    return "16x784" if first is None else "x".join(map(str, first.shape))
