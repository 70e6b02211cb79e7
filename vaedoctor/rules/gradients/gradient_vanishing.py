"""VAE603."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ...finding import Finding, Severity, Verified
from ...plot import gradient_plot
from ...rule import rule

if TYPE_CHECKING:
    from ...examine.examination import Examination
    from ...examine.gradients.scale import GradientScale

LIMIT = 2.0**-23  # an update of this share of a weight is rounded away in float32
HALF = 2.0**-11  # and of this one in float16
NORMAL = 2.0**-14  # the smallest normal float16


@rule("VAE603", Severity.WARNING)
def gradient_vanishing(examination: Examination) -> Iterator[Finding | Verified]:
    """The gradient fades to nothing between the decoder and the encoder.

    ## What it checks
    The ratio of gradient norm to weight norm in every layer of encoder and decoder. Reported
    where the encoder's median is smaller than the decoder's by more than one rounding unit of
    float32, 2^-23; or by one of float16, 2^-11, while the encoder's smallest ratio is below 2^-23.
    And the gradient of the reconstruction between the decoder's end and the sample, where the KL's
    own may keep the encoder moving: reported where less than 2^-14 of its norm arrives, the
    smallest normal float16.

    ## Why it matters
    Through many saturating layers each step multiplies the gradient by a factor below 1 (Glorot
    and Bengio 2010). With a common learning rate the first layers do not move while the last ones
    train.

    ## How to fix
    Use ReLU-like activations, normalisation or residual connections, and an initialisation that
    keeps the variance (`nn.init.kaiming_normal_`).

    ## False alarms
    Ordinary depth is far from the limit: over the healthy fixtures the smallest ratio is 0.016,
    and 0.036 of the reconstruction's gradient arrive at the sample. A last layer that begins near 0
    is left out of the decoder, as it moves at once; skips carry the gradient past such branches.

    ## References
    Glorot and Bengio, Understanding the difficulty of training deep feedforward neural networks,
    2010, section 4. Micikevicius et al., Mixed Precision Training, 2018, section 3, for the
    limit.
    """
    scale = examination.gradient_scale
    faded = scale.ratio < LIMIT or (scale.ratio < HALF and scale.faintest < LIMIT)
    if faded:
        place = examination.steepest
        shrinks = 1 / max(scale.faintest, 1e-300)
        yield Finding(
            f"the gradient shrinks by {shrinks:.1e} from decoder to encoder",
            help="use non-saturating activations, normalisation or residual connections",
            at=examination.built_at(place.shrinks_at, place.shrinks_in),
            measured={
                "encoder": scale.encoder,
                "decoder": scale.decoder,
                "ratio": scale.ratio,
                "smallest": scale.least,
            },
            notes=(f"smallest at `{scale.smallest}`",),
            causes=frozenset({"scale"}),
            plots=(gradient_plot(scale.by_layer),),
        )
    elif 0 < scale.remains < NORMAL:
        yield _in_decoder(examination, scale)
    else:
        yield Verified("gradients reach the encoder", {"encoder / decoder": scale.ratio})


def _in_decoder(examination: Examination, scale: GradientScale) -> Finding:
    """A gradient that fades between x_hat and the sample, whatever the KL gives the encoder."""
    place = examination.steepest_decoding
    cure = "use non-saturating activations, normalisation or residual connections"
    if place.by_factor:
        cure = "leave out or raise the factor: what passes it backward is multiplied by it"
    return Finding(
        f"the reconstruction's gradient shrinks by {1 / scale.remains:.1e} on its way back "
        "through the decoder",
        help=cure,
        at=examination.built_at(place.shrinks_at, place.shrinks_in),
        measured={"sample / decoder's end": scale.remains},
        causes=frozenset({"scale"}),
        plots=(gradient_plot(scale.by_layer),),
    )
