"""VAE604."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ...finding import Finding, Severity
from ...plot import gradient_plot
from ...rule import rule

if TYPE_CHECKING:
    from ...examine.examination import Examination

LIMIT = 2.0**14  # inverse of the smallest normal float16 (Micikevicius et al. 2018)


@rule("VAE604", Severity.WARNING)
def gradient_exploding(examination: Examination) -> Iterator[Finding]:
    """The gradient grows beyond bounds between the decoder and the encoder.

    ## What it checks
    The ratio of gradient norm to weight norm in every layer. Reported where the encoder's median
    exceeds the decoder's largest more than 2^14 times, the inverse of the smallest normal float16;
    or where the gradient of the reconstruction does between the decoder's last layer and the
    sample.

    ## Why it matters
    Each badly scaled layer multiplies the gradient by a factor above 1 (Pascanu et al. 2013). One
    step with a common learning rate then throws the first layers away.

    ## How to fix
    Initialise with a variance that matches the layer's width, normalise, and clip gradients.

    ## False alarms
    The limit is far beyond what ordinary depth, width or loss scale gives. Branches of the decoder
    that begin near 0, or in which the gradient fades (VAE603), do not make the encoder's large.

    ## References
    Pascanu, Mikolov and Bengio, On the difficulty of training recurrent neural networks, 2013,
    section 2. Micikevicius et al., Mixed Precision Training, 2018, section 3, for the limit.
    """
    scale = examination.gradient_scale
    if scale.grown > LIMIT:
        place = examination.steepest
        yield Finding(
            f"the gradient grows by {scale.grown:.1e} from decoder to encoder",
            help="match the initialisation to the layer's width, normalise, and clip gradients",
            at=examination.built_at(place.grows_at, place.grows_in),
            measured={"encoder": scale.encoder, "decoder": scale.strongest, "ratio": scale.grown},
            notes=(f"largest at `{scale.largest}`",),
            causes=frozenset({"scale"}),
            plots=(gradient_plot(scale.by_layer),),
        )
    elif scale.growth > LIMIT:
        place = examination.steepest_decoding
        yield Finding(
            f"the gradient grows by {scale.growth:.1e} on its way back through the decoder",
            help="match the initialisation to the layer's width, normalise, and clip gradients",
            at=examination.built_at(place.grows_at, place.grows_in),
            measured={"sample / last layer": scale.growth},
            causes=frozenset({"scale"}),
            plots=(gradient_plot(scale.by_layer),),
        )
