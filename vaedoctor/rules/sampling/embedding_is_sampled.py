"""VAE312."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ...finding import Finding, Severity, Verified
from ...rule import rule

if TYPE_CHECKING:
    from ...examine.examination import Examination


@rule("VAE312", Severity.NOTE)
def embedding_is_sampled(examination: Examination) -> Iterator[Finding | Verified]:
    """A method that embeds returns a random draw in evaluation mode.

    ## What it checks
    `encode`, `embed`, `predict`, `transform` and their kin are called twice on the same input in
    evaluation mode, from the same state and with two seeds. The note is given when everything they
    return differs.

    ## Why it matters
    Embeddings then carry the posterior's noise: nearest neighbours, metrics and plots change from
    call to call.

    ## How to fix
    Return the location, and sample in `forward`.

    ## False alarms
    A draw is wanted where the codes train another model (latent diffusion), hence a *note*. A
    method that returns the location beside the draw is not reported.
    """
    found = examination.embeddings
    noisy = [e for e in found if e.difference > 0]
    for embedding in noisy:
        yield Finding(
            f"`{embedding.name}` returns a draw in evaluation mode: two calls differ",
            help="return the location, and sample in `forward`",
            at=embedding.at,
            measured={"largest difference": embedding.difference, "drawn by": embedding.draw},
            causes=frozenset({f"embedding:{embedding.name}"}),
        )
    if not noisy:
        names = ", ".join(f"`{e.name}`" for e in found)
        yield Verified(f"two calls of {names} agree", {"largest difference": 0.0})
