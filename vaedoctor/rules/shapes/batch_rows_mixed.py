"""VAE504."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ...finding import Finding, Severity, Verified
from ...rule import rule

if TYPE_CHECKING:
    from ...examine.examination import Examination

_LAID_OUT = frozenset("view reshape unflatten flatten view_as reshape_as".split())
_IN_TIME = frozenset("lstm gru rnn_tanh rnn_relu multi_head_attention_forward".split())


@rule("VAE504", Severity.ERROR, before=("VAE505", "VAE503", "VAE403"))
def batch_rows_mixed(examination: Examination) -> Iterator[Finding | Verified]:
    """A row of the reconstruction depends on another row of the batch.

    ## What it checks
    In evaluation mode, the derivative of rows of x_hat at every row of x: it must be exactly 0 at
    all others. Where x is discrete, codes have no derivative or a condition or a mask comes along,
    one row is exchanged for another and no other row of x_hat may move. The finding is at the
    operation after which a row's numbers lie no more in its row. In the loss, whether a softmax
    over the batch is summed over its other axis, as classes are.

    ## Why it matters
    The result for one sample then depends on what else is in the batch: losses look right, and a
    single sample is reconstructed differently than in training.

    ## How to fix
    Use `permute` where axes are to be exchanged (`view` only regroups numbers), give recurrent
    layers and attention `batch_first=True`, and let no mean run over axis 0.

    ## False alarms
    Batch normalisation is looked at with running averages; batch statistics kept in evaluation
    mode, kernels between rows and one unbatched sequence are a *warning*, and so is a class of a
    library whose arguments were made up, as one of them may ask for a mean over rows. Where rows
    are nodes of a graph declare `batch_axis=None`, where steps come first `batch_axis=1`.
    """
    for made in examination.normalised_over_rows:
        yield Finding(
            f"`{made.op.name}` makes probabilities over the {made.rows} rows of the batch, which "
            "the loss takes for those of a row's classes",
            help="normalise over the classes: `dim=-1`",
            at=made.op.span,
            measured={"sum over a row": made.total},
            severity=Severity.WARNING,
            causes=frozenset({"rows"}),
        )
    found = examination.isolation
    if not found.mixed and examination.normalised_over_rows:
        return
    if not found.mixed:
        how = "derivative" if found.exact else "change"
        yield Verified("rows of a batch do not know each other", {f"{how} across rows": 0.0})
        return
    op = found.op
    untold = (
        examination.subject.untold and op is not None and op.name not in {*_LAID_OUT, *_IN_TIME}
    )
    meant = found.statistics or found.intended or untold
    yield Finding(
        f"row {found.row} of x_hat depends on row {found.source} of the batch",
        help=_cure(op.name if op is not None else ""),
        at=op.span if op is not None else None,
        measured={
            f"d x_hat[{found.row}] / d x[{found.source}]": found.off,
            f"d x_hat[{found.row}] / d x[{found.row}]": found.own,
        }
        if found.exact
        else {f"x_hat[{found.row}] moves": found.off, f"x_hat[{found.source}] moves": found.own},
        notes=(
            *([f"rows are mixed by `{op.name}`"] if op is not None else []),
            *(["its library's arguments are made up: one may ask for it"] if untold else []),
        ),
        severity=Severity.WARNING if meant else Severity.ERROR,
        causes=frozenset({"rows", "latent", *_latents(examination)}),
    )


def _latents(examination: Examination) -> list[str]:
    return [f"latent:{latent.z.index}" for latent in examination.anatomy.latents]


def _cure(name: str) -> str:
    if name in _LAID_OUT:
        return "keep the batch axis in front: exchange axes with `permute`, then reshape"
    if name in _IN_TIME:
        return "the layer takes axis 0 for time: build it with `batch_first=True`"
    if "batch_norm" in name:
        return "keep running averages: `track_running_stats=True`"
    return "keep rows apart: no reduction, sorting or product over the batch axis"
