"""VAE310."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ...finding import Finding, Severity, Verified
from ...rule import rule

if TYPE_CHECKING:
    from ...examine.examination import Examination


@rule("VAE310", Severity.WARNING, before=("VAE202",))
def noise_outside_torch(examination: Examination) -> Iterator[Finding | Verified]:
    """The latent's noise comes from NumPy or Python.

    ## What it checks
    The same step with the same torch seed but another NumPy and Python seed: a tensor that enters
    from outside, changes, and meets the posterior's parameters is noise that torch does not
    control.

    ## Why it matters
    `torch.manual_seed` does not reproduce it, it is made on the CPU and copied to the device in
    every step, and data-loader workers may repeat it.

    ## How to fix
    Draw with torch: `torch.randn_like(std)`.

    ## False alarms
    Seeded NumPy noise is legal where reproducibility is handled elsewhere, hence a warning.
    """
    outside = [x for x in examination.require_latents() if x.draw.origin != "torch"]
    for latent in outside:
        yield Finding(
            "the latent's noise is drawn outside torch: `torch.manual_seed` does not control it",
            help="draw it with torch: `torch.randn_like(std)`",
            at=examination.outside_at(latent),
            measured={"noise shape": list(latent.draw.value.shape)},
            causes=frozenset({f"latent:{latent.z.index}"}),
        )
    if not outside:
        yield Verified("`torch.manual_seed` controls the latent's noise")
