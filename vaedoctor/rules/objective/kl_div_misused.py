"""VAE719."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ...finding import Finding, Severity, Verified
from ...rule import Unavailable, rule

if TYPE_CHECKING:
    from ...examine.examination import Examination


@rule("VAE719", Severity.ERROR, before=("VAE702", "VAE711", "VAE704"))
def kl_div_misused(examination: Examination) -> Iterator[Finding | Verified]:
    """`F.kl_div` gets probabilities for logarithms, or divides by the wrong axis.

    ## What it checks
    The operands of every `F.kl_div`: whether they sum to 1 along an axis, before or after `exp`,
    against what the function expects and `log_target` says. A logarithm of a probability is never
    above 0. With `reduction="batchmean"` the first axis has to be the batch's; where it holds n
    variables of each row, and the KL weighs just n times less than a summed reconstruction, that
    is a warning.

    ## Why it matters
    `F.kl_div` computes `target * (log(target) - input)` and trusts its input to be a logarithm.
    Fed probabilities it returns a number that may be negative and is no divergence.

    ## How to fix
    `F.kl_div(F.log_softmax(logits, -1), target, reduction="batchmean")`; for a target given as
    logarithms add `log_target=True`.

    ## False alarms
    Operands of which neither is a distribution, or that never exceed 0, are not judged, nor is the
    order of the two distributions. A mean over a row's variables is fine beside a reconstruction
    that is a mean as well, or with a weight that makes up for it.
    """
    if examination.recording.error is not None:
        raise Unavailable("the training step raises before it can be measured")
    if all(op.name != "kl_div" for op in examination.recording.ops):
        raise Unavailable("`F.kl_div` is not called")
    found = False
    for m in examination.kl_div_misuses:
        found = True
        yield Finding(
            m.what,
            help=m.cure,
            at=m.op.span,
            measured={"measured": m.value},
            causes=frozenset({"kl", f"op:{m.op.index}"}),
        )
    for op, entries in examination.merged_rows:
        found = True
        yield Finding(
            f"`batchmean` divides by {entries} times the rows: it takes each row's {entries} "
            "variables for rows",
            help='divide the sum by the batch size instead: `reduction="sum"`',
            at=op.span,
            measured={"variables of a row": entries},
            severity=Severity.WARNING,
            causes=frozenset({"kl", f"op:{op.index}"}),
        )
    if not found:
        yield Verified("`F.kl_div` gets what it expects")
