"""VAE604."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ...finding import Finding, Severity
from ...rule import rule

if TYPE_CHECKING:
    from ...examine.examination import Examination

LIMIT = 2.0**23  # inverse float32 rounding unit (IEEE 754)


@rule("VAE604", Severity.WARNING)
def gradient_exploding(examination: Examination) -> Iterator[Finding]:
    """The gradient grows beyond bounds between the decoder and the encoder.

    ## What it checks
    The ratio of gradient norm to weight norm in every layer. Reported where the encoder's median
    exceeds the decoder's by more than the inverse rounding unit of float32, 2^23.

    ## Why it matters
    Each badly scaled layer multiplies the gradient by a factor above 1 (Pascanu et al. 2013). One
    step with a common learning rate then throws the first layers away.

    ## How to fix
    Initialise with a variance that matches the layer's width, normalise, and clip gradients.

    ## False alarms
    The limit is far beyond what ordinary depth, width or loss scale gives.

    ## References
    Pascanu, Mikolov and Bengio, On the difficulty of training recurrent neural networks, 2013,
    section 2. IEEE 754 binary32 for the limit.
    """
    scale = examination.gradient_scale
    if scale.ratio > LIMIT:
        yield Finding(
            f"the gradient grows by {scale.ratio:.1e} from decoder to encoder",
            help="match the initialisation to the layer's width, normalise, and clip gradients",
            at=scale.at,
            measured={"encoder": scale.encoder, "decoder": scale.decoder, "ratio": scale.ratio},
            notes=(f"largest at `{scale.largest}`",),
            causes=frozenset({"scale"}),
        )
