"""VQ103."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ...finding import Finding, Severity, Verified
from ...rule import Unavailable, rule

if TYPE_CHECKING:
    from ...examine.examination import Examination


@rule("VQ103", Severity.WARNING)
def commitment_on_wrong_side(examination: Examination) -> Iterator[Finding | Verified]:
    """The commitment weight sits on the codebook term.

    ## What it checks
    With the reconstruction's share taken away, the norm of the loss's gradient at the encoder's
    vectors over that at the codes: beta when right, 1/beta when the weight is on the wrong term.
    Of codebooks moved by averages, whether any term on codes and vectors moves the encoder.
    A gradient at the vectors that points straight to their codes is that of a squared distance
    with the sign turned: each step drives them apart.

    ## Why it matters
    With beta = 0.25 the encoder is held to its codes 16 times harder than meant, against the
    codebook's learning.

    ## How to fix
    Weight the term in which the *code* is detached: `beta * F.mse_loss(z_e, z_q.detach())`.

    ## False alarms
    Some published code keeps this order on purpose, hence a warning. Codebooks moved by averages
    have no codebook term and are skipped.
    """
    for book, op in examination.idle_commitments:
        yield Finding(
            "the commitment term gives the encoder no gradient, and averages move the codes",
            help="detach the code, not the encoder's vector: `F.mse_loss(z_e, z_q.detach())`",
            at=op.span,
            measured={"commitment gradient": 0.0},
            causes=book.causes,
        )
    turned = examination.turned_commitments
    for book, op, cosine in turned:
        yield Finding(
            "the loss pushes the encoder's vectors away from their codes",
            help="add the squared distance of vectors and codes to the loss, do not subtract it",
            at=op.span,
            measured={"cosine of the gradient with the way from code to vector": cosine},
            causes=book.causes,
        )
    measured = examination.codebook_weights
    if turned or (not measured and examination.idle_commitments):
        return
    if not measured:
        raise Unavailable("no codebook and commitment term to compare (averages, or none)")
    betas = examination.declared_betas
    wrong = 0
    for book, weight in measured[-1:]:  # no later residual look-up pulls at its vectors
        inverse = [b for b in betas if b not in (0.0, 1.0) and _near(weight.ratio * b, 1.0)]
        if not inverse or any(_near(weight.ratio, b) for b in betas):
            continue
        wrong += 1
        yield Finding(
            f"the commitment weight {inverse[0]:g} is on the codebook term",
            help="weight the other term: `beta * F.mse_loss(z_e, z_q.detach())`",
            at=examination.codebook_weighed_at(book, inverse[0]),
            measured={"commitment / codebook gradient": weight.ratio, "beta": inverse[0]},
            causes=book.causes,
        )
    if not wrong:
        yield Verified(
            "the commitment weight is on the encoder's side",
            {"commitment / codebook gradient": measured[0][1].ratio},
        )


def _near(a: float, b: float) -> bool:
    return abs(a - b) <= 0.01 * abs(b)
