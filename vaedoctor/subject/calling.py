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

import torch
from torch import Tensor, nn

from ..spelling import did_you_mean
from .errors import TargetError
from .source import is_library
from .trial import attempt, leaves

if TYPE_CHECKING:
    from .subject import Batch

_ENCODE = re.compile(
    r"encode(r|_x|_image|_input)?|enc|inference(_net\w*)?|infer|recognition(_\w+)?"
    r"|q(_net|net|_z(_given_x|_x)?)?|posterior|get_posterior"
)
_SAMPLE = re.compile(
    r"_?(reparam\w*|sample(_z|_latents?|_gaussian|_posterior|_q|_from_q)?|sampling|sampler|rsample"
    r"|draw(_z)?|bottleneck|quanti[sz]er?|vq|vq_layer|codebook|z_sample)"
)
_DECODE = re.compile(
    r"decode(r|_z|_latents?)?|dec|generat(e|or|ive_net)|p(_net|net|_x(_given_z|_z)?)?|likelihood"
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
        if self.way:
            said.append("composed: " + " → ".join(self.way))
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
    """Whether the class defines `forward`."""
    return getattr(type(model), "forward", None) not in (nn.Module.forward, None)


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


# -- composing -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class EncodeDecode:
    """The names of the parts that a step is composed from; `sample` may be missing."""

    encode: str
    sample: str
    decode: str

    def fitting(
        self, model: nn.Module, args: Any, kwargs: Any, plan: int | None = None
    ) -> tuple[int, str, Any]:
        """Run the parts: which way from encoder to decoder fits, its name, and what is returned.

        Raises what the first way raised where none fits, or `plan` where one is given.
        """
        sample = getattr(model, self.sample) if self.sample else None
        decode = getattr(model, self.decode)
        encoded = getattr(model, self.encode)(*args, **kwargs)
        refused: Exception | None = None
        for i, (name, draw) in enumerate(_draws(encoded, sample)):
            if plan is not None and i != plan:
                continue
            try:
                z, extra = draw()
                made = decode(z, *_conditions(decode, args[1:]))
            except Exception as error:
                if plan is not None:
                    raise
                refused = refused or error
                continue
            return i, name, (made, encoded, z, *extra)
        raise refused or TypeError(f"nothing that `{self.encode}` returns can be decoded")

    def forward(self, model: nn.Module, plan: int | None) -> Callable[..., Any]:
        """A forward pass that returns what the decoder, the encoder and the sampler return."""

        def forward(*args: Any, **kwargs: Any) -> Any:
            return self.fitting(model, args, kwargs, plan)[2]

        encode = getattr(model, self.encode)
        bare = encode.forward if isinstance(encode, nn.Module) else encode
        forward.__signature__ = inspect.signature(bare)  # type: ignore[attr-defined]
        return forward


def _conditions(decode: Callable[..., Any], others: tuple[Any, ...]) -> tuple[Any, ...]:
    """What else the decoder asks for: the conditions that the encoder was given."""
    bare = decode.forward if isinstance(decode, nn.Module) else decode
    try:
        wanted = list(inspect.signature(bare).parameters.values())[1:]
    except (TypeError, ValueError):
        return ()
    needed = sum(p.default is p.empty and p.kind is p.POSITIONAL_OR_KEYWORD for p in wanted)
    return others[:needed]


Draw = Callable[[], tuple[Any, tuple[Any, ...]]]


def _draws(encoded: Any, sample: Callable[..., Any] | None) -> Iterator[tuple[str, Draw]]:
    """The ways to get from the encoder's output to what the decoder takes, the likeliest first."""
    parts = _tensors(encoded)
    if sample is not None:
        for given in _arguments(encoded):
            yield "own", functools.partial(_by_own, sample, tuple(given))
    posterior = _distribution(encoded)
    if posterior is not None:
        yield "sample", lambda: (_drawn(posterior), ())
    if sample is None and len(parts) == 2 and parts[0].shape == parts[1].shape:
        mu, logvar = parts
        yield (
            "mu + exp(logvar / 2) * eps",
            lambda: (mu + torch.exp(0.5 * logvar) * torch.randn_like(logvar), ()),
        )
    for part in (encoded, *parts):
        yield "", functools.partial(_as_it_is, part)


def _as_it_is(z: Any) -> tuple[Any, tuple[Any, ...]]:
    return z, ()


def _arguments(encoded: Any) -> Iterator[list[Any]]:
    if isinstance(encoded, tuple | list):
        yield list(encoded)
        yield list(encoded[:2])
        yield list(encoded[-2:])
    yield [encoded]
    if isinstance(encoded, Mapping):
        yield list(encoded.values())


def _by_own(sample: Callable[..., Any], args: tuple[Any, ...]) -> tuple[Any, tuple[Any, ...]]:
    """The user's own sampler or quantiser; of several results the first is decoded."""
    made = sample(*args)
    if isinstance(made, tuple | list):
        tensors = [m for m in made if isinstance(m, Tensor)]
        wide = [m for m in tensors if m.dim() > 1 and m.is_floating_point()]
        return (wide or tensors)[0], tuple(m for m in made if m is not (wide or tensors)[0])
    return made, ()


def _tensors(encoded: Any) -> list[Tensor]:
    return [v for _, v in leaves(encoded) if isinstance(v, Tensor)]


def _distribution(encoded: Any) -> Any:
    """A posterior that knows how to sample, bare or inside the encoder's output."""
    inside = list(encoded) if isinstance(encoded, tuple | list) else []
    inside += [getattr(encoded, "latent_dist", None)]
    for thing in (encoded, *inside):
        able = callable(getattr(thing, "rsample", None)) or callable(getattr(thing, "sample", None))
        if able and not isinstance(thing, Tensor | nn.Module):
            return thing
    return None


def _drawn(posterior: Any) -> Any:
    bare = isinstance(posterior, torch.distributions.Distribution) and not posterior.has_rsample
    draw = posterior.sample if bare else getattr(posterior, "rsample", None) or posterior.sample
    return draw()


# -- pairs of model and guide -----------------------------------------------------------------


def is_pyro_pair(model: nn.Module) -> bool:
    """Whether a class has Pyro's `model` and `guide` in place of a forward pass."""
    pair = all(callable(getattr(type(model), n, None)) for n in ("model", "guide"))
    return pair and "pyro" in sys.modules


@dataclass(frozen=True, slots=True)
class GuideModel:
    """A forward pass through a pair of `guide` and `model`."""

    def forward(self, model: Any, plan: int | None) -> Callable[..., Any]:
        """It returns every site: a latent's sample, an observed one's mean."""
        return _traced(model)


Parts = EncodeDecode | GuideModel


def _traced(model: Any) -> Callable[..., Any]:
    poutine = sys.modules["pyro"].poutine

    def forward(*args: Any, **kwargs: Any) -> dict[str, Any]:
        guide = poutine.trace(model.guide).get_trace(*args, **kwargs)
        run = poutine.trace(poutine.replay(model.model, trace=guide)).get_trace(*args, **kwargs)
        sites = [s for s in run.nodes.values() if s["type"] == "sample" and s["name"][0] != "_"]
        found: dict[str, Any] = {}
        for site in sites:
            plate = type(site["fn"]).__name__ == "_Subsample"
            if not plate:
                found[site["name"]] = site["fn"].mean if site["is_observed"] else site["value"]
        return found

    forward.__signature__ = inspect.signature(model.guide)  # type: ignore[attr-defined]
    return forward


def pyro_loss(model: Any, *args: Any, **kwargs: Any) -> Tensor:
    """The negative ELBO of a pair of `model` and `guide`, as Pyro's own `Trace_ELBO` takes it."""
    elbo = sys.modules["pyro"].infer.Trace_ELBO()
    loss: Tensor = elbo.differentiable_loss(model.model, model.guide, *args, **kwargs)
    return loss
