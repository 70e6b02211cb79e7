"""VAE302."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ...finding import Finding, Severity, Verified
from ...rule import Unavailable, rule

if TYPE_CHECKING:
    from ...examine.examination import Examination


@rule("VAE302", Severity.ERROR, before=("VAE601", "VAE602", "VAE202", "VAE204", "VAE309"))
def sample_not_reparameterized(examination: Examination) -> Iterator[Finding | Verified]:
    """No gradient flows from the sample back to the posterior's parameters.

    ## What it checks
    The value with which the sample enters the decoder is differentiated at the sampler's location
    and scale. None, or exactly 0 although the sample depends on them, means that an operation in
    between cut the graph; it is named: `.sample()`, `.detach()`, `.data`, `torch.no_grad()`, a
    round trip through Python or NumPy, or a draw such as `torch.normal(mu, std)` whose gradient
    exists and is 0.

    ## Why it matters
    The reconstruction then teaches the encoder nothing; only the KL moves it, towards the prior,
    and the latent carries no information. No error is raised.

    ## How to fix
    Use the reparameterisation trick: `z = mu + std * torch.randn_like(std)`, or `.rsample()`.

    ## False alarms
    Frozen encoders are skipped. Where only the scale gets no gradient it is a warning, and so it
    is for discrete latents (Bernoulli, categorical), unless a term of the loss scores the draw or
    the reconstruction teaches their logits on another way. A term may score a Dirichlet, beta or
    gamma draw, too, which is not judged then.

    ## References
    Kingma and Welling, Auto-Encoding Variational Bayes, 2014, section 2.4.
    """
    judged = [r for r in examination.reparameterizations if r.judged]
    if not judged:
        examination.require_latents()
        raise Unavailable("no latent whose draw can be reparameterised carries a gradient")
    reported: set[str] = set()
    for r in judged:
        if r.passes:
            continue
        cut = r.cut
        cause = cut.cause if cut else f"latent:{r.latent.z.index}"
        if cause in reported:
            continue
        reported.add(cause)
        only_scale = r.loc is not None and r.loc.value == "nonzero"
        lost = "the scale" if only_scale else "the location"
        if not only_scale and r.scale is not None and r.loc is not None:
            lost = "location and scale"
        by = f"{cut.label} cuts" if cut else "the sampler cuts"
        lost, draw = (
            f"{lost} of the posterior",
            "`mu + std * torch.randn_like(std)` or `.rsample()`",
        )
        if r.relaxed:
            lost, draw = "the logits", "`F.gumbel_softmax(logits, tau, hard=True)`, not detached"
        elif r.implicit:
            lost, draw = "the parameters of the posterior", "`.rsample()`, not detached"
        yield Finding(
            f"{by} the gradient from the sample to {lost}",
            help=f"sample with {draw}",
            at=cut.at if cut else r.latent.meeting.span,
            measured={
                "gradient at the location": str(r.loc.value) if r.loc else None,
                "gradient at the scale": str(r.scale.value) if r.scale else None,
            },
            severity=Severity.WARNING if only_scale or r.relaxed else Severity.ERROR,
            causes=frozenset({cause, cause.replace("cut:", "line:"), "latent", *r.layers}),
        )
    if not reported:
        yield Verified(
            "the gradient passes the sample to location and scale", {"latents": len(judged)}
        )
