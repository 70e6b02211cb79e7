"""The pulls on latents that are not plainly Gaussian, and on those beside the decoder."""

from __future__ import annotations

import itertools
from contextlib import suppress
from functools import cached_property

from torch import Tensor

from ..rule import Unavailable
from .anatomy import hierarchy
from .anatomy.latents import Latent, same_posterior
from .examined_sampling import ExaminedSampling
from .objective import correlated, discrete, divergence, laplace

MOST_LATENTS = 3  # of a hierarchy or sequence: the KL of the first and the last is isolated


class ExaminedFamilies(ExaminedSampling):
    """The KLs of categories, Laplace and correlated latents, and of upper ones."""

    @cached_property
    def _discrete(self) -> list[discrete.DiscreteKL]:
        """The isolated KL of the first categorical latents."""
        found: list[discrete.DiscreteKL] = []
        for latent in self.anatomy.sampled:
            known = any(same_posterior(d.latent, latent) for d in found)
            if (
                known
                or len(found) == MOST_LATENTS
                or not discrete.is_discrete(self.anatomy, latent)
            ):
                continue
            with suppress(Unavailable):
                found.append(self._discrete_kl(latent))
        return found

    @property
    def misaligned(self) -> list[discrete.DiscreteKL]:
        """KLs whose categories are not on the axis on which the sample's are."""
        judged = self.loss_depends and not self.composed
        return [d for d in self._discrete if d.kind == "across"] if judged else []

    @cached_property
    def laplaces(self) -> list[laplace.LaplaceKL]:
        """The isolated KL of the first Laplace latents."""
        found: list[laplace.LaplaceKL] = []
        for latent in self.anatomy.sampled if self.loss_depends and not self.composed else ():
            known = any(same_posterior(d.latent, latent) for d in found)
            if known or len(found) == MOST_LATENTS or not laplace.is_laplace(latent):
                continue
            with suppress(Unavailable):
                run = (self.subject, self.anatomy, latent, self.seed, self._rewind)
                found.append(laplace.laplace_kl(*run))
        return found

    @cached_property
    def matrices(self) -> list[correlated.MatrixKL]:
        """The isolated KL of the first latents whose scale is a matrix."""
        found: list[correlated.MatrixKL] = []
        for latent in self.anatomy.sampled if self.loss_depends and not self.composed else ():
            known = any(same_posterior(d.latent, latent) for d in found)
            if known or len(found) == MOST_LATENTS or not correlated.is_correlated(latent):
                continue
            with suppress(Unavailable):
                run = (self.subject, self.anatomy, latent, self.seed, self._rewind)
                found.append(correlated.matrix_kl(*run))
        return found

    @cached_property
    def upper_pulls(self) -> list[divergence.Divergence]:
        """The isolated KL of upper latents that feed the prior of another alone."""
        found: list[divergence.Divergence] = []
        for latent in [] if self.composed or not self.loss_depends else self._uppers:
            with suppress(Unavailable):
                run = (self.subject, self.anatomy, latent, self.seed, self._rewind)
                found.append(divergence.isolate(*run))
        return found

    @property
    def _uppers(self) -> list[Latent]:
        known: list[Latent] = []
        for latent in hierarchy.uppers(self.anatomy):
            if not any(same_posterior(x, latent) for x in known) and len(known) < MOST_LATENTS:
                known.append(latent)
        return known

    def _discrete_kl(self, latent: Latent) -> discrete.DiscreteKL:
        run = (self.subject, self.anatomy, latent, self.seed, self._rewind)
        return discrete.discrete_kl(*run)

    @cached_property
    def undrawn(self) -> discrete.DiscreteKL | None:
        """Probabilities that the decoder takes though the loss holds their KL; None if none."""
        if self.composed or not self.loss_depends:
            return None
        for latent in itertools.islice(discrete.softmaxes_decoded(self.anatomy), 2):
            with suppress(Unavailable):
                found = self._discrete_kl(latent)
                if found.standard:
                    return found
        return None

    @property
    def loss_depends(self) -> bool:
        """Whether the user's loss depends on any parameter."""
        return isinstance(self.loss, Tensor) and self.loss.grad_fn is not None
