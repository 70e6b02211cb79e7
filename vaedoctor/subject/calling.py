"""How the model is called: keyword arguments for every call, or a forward pass composed from parts.

A model without `forward` gets one for the time of the examination, made from its own encoder,
sampler and decoder: which of them there are is told by their names, what they return and how they
fit together by trying. Nothing of it stays on the model.
"""

from __future__ import annotations

import ast
import functools
import inspect
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from torch import nn

from ..spelling import did_you_mean
from .code.source import is_library
from .composing import EncodeDecode, GuideModel, Parts, is_pyro_pair
from .construct.bases import only_raises
from .errors import TargetError
from .trials.trial import attempt

if TYPE_CHECKING:
    from .subject import Batch

_ENCODE = re.compile(
    r"encode(r|_x|_image|_input)?|enc|inference(_net\w*)?|infer|recognition(_\w+)?"
    r"|q(_net|net|_z(_given_x|_x)?)?|(get_)?posterior|get_(encoding|latents?|code)s?"
)
_SAMPLE = re.compile(
    r"_?(reparam\w*|sample(_z|_latents?|_gaussian|_posterior|_q|_from_q)?|sampling|sampler|rsample"
    r"|draw(_z)?|bottleneck|quanti[sz]er?|vq|vq_layer|codebook|z_sample)"
)
_DECODE = re.compile(
    r"decode(r|_z|_latents?)?|dec|generat(e|or|ive_net)|p(_net|net|_x(_given_z|_z)?)?|likelihood"
    r"|get_(decoding|reconstruction)s?"
)


@dataclass(frozen=True, slots=True)
class Calling:
    """Keyword arguments that every forward pass gets, and the forward pass where it is composed.

    `way` are the stations of a composed pass, shown in the report; `parts` make it, by the
    `plan`-th way to get from the encoder's output to the decoder (None until one has been tried).
    """

    kwargs: Mapping[str, Any] = field(default_factory=dict)
    parts: Parts | None = None
    plan: int | None = None
    way: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """One phrase for the report; empty for a plain call."""
        said = []
        if self.way and self.parts is not None and self.parts.assembled:
            said.append("composed: " + " → ".join(self.way))
        elif self.way:
            said.append(" → ".join(self.way))
        if self.kwargs:
            given = ", ".join(f"`{k}={v!r}`" for k, v in self.kwargs.items())
            said.append(f"called with {given}")
        return ", ".join(said)

    def __bool__(self) -> bool:
        return bool(self.kwargs) or self.parts is not None

    @contextmanager
    def on(self, model: nn.Module) -> Iterator[None]:
        """Let every call of `model` be made in this way; afterwards nothing of it is left."""
        if not self or "forward" in vars(model):
            yield
            return
        with ExitStack() as stack:
            if "pyro" in sys.modules:
                stack.enter_context(sys.modules["pyro"].get_param_store().scope())
            object.__setattr__(model, "forward", self._called(model))
            try:
                yield
            finally:
                object.__delattr__(model, "forward")

    def _called(self, model: nn.Module) -> Callable[..., Any]:
        plain = model.forward if self.parts is None else self.parts.forward(model, self.plan)
        return functools.partial(plain, **self.kwargs) if self.kwargs else plain

    def settled(self, model: nn.Module, batch: Batch, seed: int) -> Calling:
        """The same with the way from encoder to decoder that fits a batch.

        An experiment must not fall back to another one.
        """
        parts = self.parts
        if not isinstance(parts, EncodeDecode) or not batch.ran:
            return self
        trial = attempt(
            lambda: parts.fitting(model, batch.args, {**self.kwargs, **batch.kwargs}),
            model,
            seed=seed,
        )
        if not trial.ran:
            return self
        plan, name, _ = trial.value
        way = ("x", parts.encode, parts.sample if name == "own" else name, parts.decode)
        return replace(self, plan=plan, way=tuple(s for s in way if s))

    def rebuilding(
        self, rebuild: Callable[[int], nn.Module] | None
    ) -> Callable[[int], nn.Module] | None:
        """The maker of fresh instances, of which every one is called in this way."""
        if rebuild is None or not self:
            return rebuild

        def made(seed: int) -> nn.Module:
            model = rebuild(seed)
            object.__setattr__(model, "forward", self._called(model))
            return model

        return made


def calling_of(model: nn.Module, kwargs: Mapping[str, Any] | None = None) -> Calling:
    """How to call a model: with the arguments given, and through its parts where it must be."""
    given = dict(kwargs or {})
    if has_forward(model):
        _checked(model, given)
        return Calling(given)
    if is_pyro_pair(model):
        return Calling(given, GuideModel(), way=("x", "guide", "sample", "model"))
    encode, decode = _part(model, _ENCODE), _part(model, _DECODE)
    if not encode or not decode:
        return Calling(given)
    parts = EncodeDecode(encode, _part(model, _SAMPLE), decode)
    return Calling(given, parts, way=("x", encode, decode))


def typed_arguments(texts: Mapping[str, str]) -> dict[str, Any]:
    """The values of `--call name=value`: Python literals, and any other text as a string."""
    found: dict[str, Any] = {}
    for name, text in texts.items():
        try:
            found[name] = ast.literal_eval(text)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            found[name] = text
    return found


def _checked(model: nn.Module, given: dict[str, Any]) -> None:
    """Refuse an argument that forward does not take, before every trial fails because of it."""
    try:
        parameters = inspect.signature(model.forward).parameters
    except (TypeError, ValueError):
        return
    if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        return
    for name in given:
        if name not in parameters:
            kind = type(model).__name__
            known = ", ".join(parameters)
            raise TargetError(
                f"`{kind}.forward` has no argument `{name}`{did_you_mean(name, parameters)}",
                next_step=f"its arguments are: {known or 'none'}",
            )


def has_forward(model: nn.Module) -> bool:
    """Whether the class defines a `forward` that does more than raise."""
    forward = getattr(type(model), "forward", None)
    return forward not in (nn.Module.forward, None) and not only_raises(type(model), "forward")


def _part(model: nn.Module, pattern: re.Pattern[str]) -> str:
    """A method of the user's own whose name fits, or else a child module."""
    for kind in type(model).__mro__:
        if is_library(kind):
            break
        for name, thing in vars(kind).items():
            if pattern.fullmatch(name.lower()) and inspect.isroutine(thing):
                return name
    children = (n for n, _ in model.named_children())
    return next((n for n in children if pattern.fullmatch(n.lower())), "")
