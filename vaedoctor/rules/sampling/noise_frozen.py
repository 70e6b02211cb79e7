"""VAE306."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ...finding import Finding, Severity, Verified
from ...rule import rule

if TYPE_CHECKING:
    from ...examine.examination import Examination


@rule("VAE306", Severity.ERROR, before=("VAE301", "VAE401", "VAE108", "VAE202", "VAE505"))
def noise_frozen(examination: Examination) -> Iterator[Finding | Verified]:
    """Two training steps draw the same noise.

    ## What it checks
    Two steps in train mode with all generators running on: whether a latent's noise is bit-equal
    in both (a seed is set inside), or whether a constant tensor with the look of a draw is
    multiplied with one head and added to the other (noise cached in `__init__`).

    ## Why it matters
    With frozen noise the sample is a deterministic function of x: the model is an autoencoder
    that has learned to undo one fixed perturbation, and the KL regularises nothing.

    ## How to fix
    Draw inside `forward`, and set seeds only once at the start of the program.

    ## False alarms
    Evaluation with fixed noise is not looked at: both steps run in train mode.
    """
    frozen = examination.frozen_noise
    for noise in frozen:
        yield Finding(
            f"`{noise.name}` is a cached constant in the place of fresh noise"
            if noise.cached
            else f"`{noise.name}` draws the same noise in two training steps",
            help=(
                "draw the noise in `forward`: `torch.randn_like(std)`"
                if noise.cached
                else "remove the seed that is set inside the forward pass"
            ),
            at=noise.at,
            measured={"equal numbers": noise.numbers, "steps compared": 2},
            causes=frozenset({"latent", f"state:{noise.attribute}"}),
        )
    if not frozen:
        examination.require_latents()
        yield Verified("two training steps draw different noise")
