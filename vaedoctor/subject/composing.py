"""A forward pass composed from a model's own parts: encoder, sampler, decoder; guide and model."""

from __future__ import annotations

import ast
import functools
import inspect
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor, nn

from .code.callees import tree_of
from .trials.trial import leaves

_LATENT = re.compile(r"z\w?|z_\w+|latents?|codes?|latent_\w+|sample|hidden_code", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class EncodeDecode:
    """The names of the parts that a step is composed from; `sample` may be missing."""

    encode: str
    sample: str
    decode: str
    assembled: ClassVar[bool] = True

    def fitting(
        self, model: nn.Module, args: Any, kwargs: Any, plan: int | None = None
    ) -> tuple[int, str, Any]:
        """Run the parts: which way from encoder to decoder fits, its name, and what is returned.

        Raises what the first way raised where none fits, or `plan` where one is given.
        """
        sample = getattr(model, self.sample) if self.sample else None
        decode = getattr(model, self.decode)
        encode = getattr(model, self.encode)
        own = len(_parameters(encode)) if _further(encode, decode) else None
        encoded = encode(*args[:own], **kwargs)
        named = _optional(decode, {**dict(zip(_names(encode), args, strict=False)), **kwargs})
        refused: Exception | None = None
        for i, (name, draw) in enumerate(_draws(encoded, sample)):
            if plan is not None and i != plan:
                continue
            try:
                z, extra = draw()
                made = _decoded(decode, z, args, named)
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

        encode, decode = getattr(model, self.encode), getattr(model, self.decode)
        taken = [*_parameters(encode), *_further(encode, decode)]
        forward.__signature__ = inspect.Signature(taken)  # type: ignore[attr-defined]
        return forward


def _decoded(
    decode: Callable[..., Any], z: Any, args: tuple[Any, ...], named: Mapping[str, Any]
) -> Any:
    """What the decoder makes of a sample, which a name may say to be its second argument.

    Before it stands what is to come out, as a decoder of tokens is given: `decoder(tokens, z)`.
    """
    asked = _names(decode)[:2]
    if len(asked) == 2 and not _LATENT.fullmatch(asked[0]) and _LATENT.fullmatch(asked[1]):
        return decode(args[0], z, *_conditions(decode, args[1:])[1:], **named)
    return decode(z, *_conditions(decode, args[1:]), **named)


def _parameters(part: Callable[..., Any]) -> list[inspect.Parameter]:
    bare = part.forward if isinstance(part, nn.Module) else part
    try:
        found = list(inspect.signature(bare).parameters.values())
    except (TypeError, ValueError):
        return []
    open_ = all(p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD) for p in found)
    inner = _handed_on(bare) if found and open_ else None
    return found if inner is None else _parameters(inner)


def _handed_on(method: Any) -> nn.Module | None:
    """The part that a method hands all of its arguments to: `self.encoder(*args, **kwargs)`."""
    tree = tree_of(getattr(method, "__func__", method))
    for node in ast.walk(tree) if tree is not None else ():
        match node:
            case ast.Call(func=ast.Attribute(ast.Name("self"), attr), args=[ast.Starred(), *_]):
                part = getattr(method.__self__, attr, None)
                return part if isinstance(part, nn.Module) else None
    return None


def _needed(decode: Callable[..., Any]) -> list[inspect.Parameter]:
    """What the decoder asks for beside the latent."""
    wanted = _parameters(decode)[1:]
    return [p for p in wanted if p.default is p.empty and p.kind is p.POSITIONAL_OR_KEYWORD]


def _further(encode: Callable[..., Any], decode: Callable[..., Any]) -> list[inspect.Parameter]:
    """What the decoder asks for and the encoder is not given: a condition of its own."""
    own = _parameters(encode)
    if any(p.kind is not p.POSITIONAL_OR_KEYWORD or p.default is not p.empty for p in own):
        return []
    names = {p.name for p in own}
    return [p for p in _needed(decode)[len(own[1:]) :] if p.name not in names]


def _conditions(decode: Callable[..., Any], others: tuple[Any, ...]) -> tuple[Any, ...]:
    """What else the decoder asks for: the conditions that the encoder was given, and its own."""
    return others[: len(_needed(decode))]


def _names(part: Callable[..., Any]) -> list[str]:
    return [p.name for p in _parameters(part)]


def _optional(decode: Callable[..., Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """What the encoder was given under a name that the decoder may be given too: `y=None`."""
    may = [p.name for p in _parameters(decode)[1:] if p.default is not p.empty]
    return {name: given[name] for name in may if name in given}


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
    """Whether a model has Pyro's `model` and `guide` as methods; as parts, and no forward pass."""
    bare = getattr(type(model), "forward", None) in (nn.Module.forward, None)
    holder = model if bare else type(model)
    pair = all(callable(getattr(holder, n, None)) for n in ("model", "guide"))
    return pair and "pyro" in sys.modules


@dataclass(frozen=True, slots=True)
class GuideModel:
    """A forward pass through a pair of `guide` and `model`."""

    assembled: ClassVar[bool] = True

    def forward(self, model: Any, plan: int | None) -> Callable[..., Any]:
        """It returns every site: a latent's sample, an observed one's mean."""
        return _traced(model)


class Parts(Protocol):
    """What a forward pass is made of; `assembled` says that vaedoctor put it together."""

    assembled: ClassVar[bool]

    def forward(self, model: Any, plan: int | None) -> Callable[..., Any]:
        """The forward pass."""


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
                _refuse_unlike(site)
                found[site["name"]] = site["fn"].mean if site["is_observed"] else site["value"]
        return found

    forward.__signature__ = inspect.signature(model.guide)  # type: ignore[attr-defined]
    return forward


def _refuse_unlike(site: dict[str, Any]) -> None:
    """Let an observed site whose data do not have the size of its event raise as in the loss."""
    event = tuple(getattr(site["fn"], "event_shape", ()))
    value = site["value"]
    if site["is_observed"] and event and tuple(value.shape[-len(event) :]) != event:
        site["fn"].log_prob(value)


def pyro_loss(model: Any, *args: Any, **kwargs: Any) -> Tensor:
    """The negative ELBO of a pair of `model` and `guide`, as Pyro's own `Trace_ELBO` takes it."""
    elbo = sys.modules["pyro"].infer.Trace_ELBO()
    loss: Tensor = elbo.differentiable_loss(model.model, model.guide, *args, **kwargs)
    return loss
