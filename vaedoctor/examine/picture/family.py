"""To which family a model belongs, and how sure that is: each step an experiment or an identity.

The name is put together from what was found: the posterior that is sampled, the space it lives in,
how many latents there are and how they hang together, and the prior that the loss pulls them to.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ...rule import Unavailable
from ..anatomy import geometry, hierarchy, noises, priors
from ..anatomy.anatomy import Anatomy
from ..anatomy.latents import Latent
from . import bottleneck, codes

if TYPE_CHECKING:
    from ..examination import Examination

LEVELS = ("low", "medium", "high")
MOST_MEASURED = 3  # of a hierarchy or sequence: the noise of the first ones is measured


@dataclass(frozen=True, slots=True)
class Family:
    """What a model is (`name`), how sure that is, and what that rests on, a sentence each."""

    name: str
    confidence: str = "low"
    evidence: tuple[str, ...] = ()

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True, slots=True)
class Clue:
    """One thing found out: a part of the name, how sure it is, and what shows it."""

    name: str
    sure: str = "high"
    shown: str = ""


def identify(examination: Examination) -> Family:
    """The family of the examined model. Raises `Unavailable` where the step does not run."""
    anatomy = examination.anatomy
    if anatomy.latents:
        clues = list(_stochastic(examination))
    elif anatomy.quantizer is not None:
        clues = [Clue(*codes.quantized(anatomy))]
    elif anatomy.unsampled is not None:
        clues = [_never_sampled(anatomy)]
    else:
        clues = list(_deterministic(examination))
    name = ", ".join(c.name for c in clues if c.name)
    sure = min((c.sure for c in clues), key=LEVELS.index, default="low")
    return Family(name, sure, tuple(c.shown for c in clues if c.shown))


def _never_sampled(anatomy: Anatomy) -> Clue:
    pair = anatomy.unsampled
    assert pair is not None
    loc, scale = pair.loc_head.path, pair.scale_head.path
    heads = f"`{loc}` and `{scale}`" if loc and scale and loc != scale else "two"
    shown = f"{heads} are parallel heads, x_hat is computed from the first, and no noise is drawn"
    return Clue("gaussian (never sampled)", "medium", shown)


def _stochastic(examination: Examination) -> Iterator[Clue]:
    anatomy = examination.anatomy
    latents = anatomy.sampled or anatomy.latents
    space = geometry.space(examination, latents)
    if space is not None:
        yield Clue(*space)
    else:
        found = {c.name: c for c in _posteriors(examination, latents)}
        sure = min((c.sure for c in found.values()), key=LEVELS.index)
        shown = "; ".join(c.shown for c in found.values() if c.shown)
        structure = hierarchy.structure(anatomy, latents)
        word = structure[0] if structure is not None else ""
        name = f"{word} {' + '.join(sorted(found))}".strip()
        yield Clue(name, sure, shown)
        if structure is not None:
            yield Clue("", "high", structure[1])
    if not anatomy.sampled:
        yield Clue("", "medium", "the sample does not reach a reconstruction that was found")
    samples = hierarchy.samples(examination, latents)
    if samples is not None:
        yield Clue(*samples)
    prior = priors.prior(examination, latents)
    if prior is not None:
        yield Clue(*prior)


def _posteriors(examination: Examination, latents: list[Latent]) -> Iterator[Clue]:
    """The distribution of each latent; of many that are made alike, of the first few."""
    for latent in latents[:MOST_MEASURED]:
        discrete = codes.discrete(examination.anatomy, latent)
        if discrete is not None:
            yield Clue(*discrete)
            continue
        try:
            yield Clue(*noises.distribution(examination, latent))
        except Unavailable as why:
            sure = "medium" if latent.loc is None or latent.family == "implicit" else "high"
            yield Clue(latent.family, sure, str(why))


def _deterministic(examination: Examination) -> Iterator[Clue]:
    anatomy = examination.anatomy
    if anatomy.x_hat is None:
        yield Clue("none", "low", "no output stands for the input")
        return
    space = geometry.space(examination, [])
    if space is not None:
        yield Clue(*space)
        return
    other = bottleneck.unread_scale(anatomy)
    if other:
        shown = f"{other} also makes a scale that x_hat does not read, and no noise is drawn"
        yield Clue("gaussian (never sampled)", "medium", shown)
        return
    cut = bottleneck.code(anatomy)
    noisy = bool(anatomy.flow.noise[anatomy.x_hat.index])
    if noisy and bottleneck.noisy_code(anatomy, cut):
        shown = "noise reaches x_hat behind the encoder, but no location and scale meet it"
        yield Clue("implicit posterior", "low", shown)
        return
    if cut is None:
        yield Clue("none", "low", "x_hat depends on x around every layer: no code was found")
        return
    parts = f"x reaches x_hat through {cut.said} alone, and no noise is drawn behind the encoder"
    sure = "high" if cut.narrow else "medium"
    yield Clue("denoising autoencoder" if noisy else "autoencoder", sure, parts)
    matched = priors.matched(anatomy, cut.value)
    if matched is not None:
        yield Clue(*matched)
