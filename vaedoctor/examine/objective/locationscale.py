"""What every pull on a latent with a location and a scale has in common."""

from __future__ import annotations

from ...finding import Number
from ..anatomy.latents import Latent


class LocationScale:
    """The base of measurements of one such latent, whose `units` are the elements of a row."""

    __slots__ = ()

    latent: Latent
    units: int

    @property
    def trained(self) -> bool:
        """Whether the posterior's parameters carry a gradient: a frozen encoder's do not."""
        made = (self.latent.loc, self.latent.scale)
        return any(v is not None and v.requires_grad for v in made)

    @property
    def averages(self) -> tuple[int, ...]:
        """Over how many units a mean may have been taken within a row."""
        return (self.units,)

    @property
    def reverse_evidence(self) -> dict[str, Number]:
        """The measurement behind `reversed`; empty where the order is not judged."""
        return {}
