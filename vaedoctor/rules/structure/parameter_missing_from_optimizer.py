"""VAE107."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ...finding import Finding, Severity, Verified
from ...rule import Unavailable, rule
from ...spelling import listed

if TYPE_CHECKING:
    from ...examine.examination import Examination


@rule("VAE107", Severity.ERROR)
def parameter_missing_from_optimizer(examination: Examination) -> Iterator[Finding | Verified]:
    """A parameter gets a gradient and no optimizer owns it.

    ## What it checks
    The parameters with `requires_grad` and a nonzero gradient after one step, against the
    parameter groups of every optimizer given, found beside the model in its file, or kept on the
    model.

    ## Why it matters
    An optimizer takes the parameters that exist when it is built. A layer added later, or one
    replaced by `model.head = nn.Linear(...)`, gets gradients that nobody applies: it never moves.

    ## How to fix
    Build the optimizer from `model.parameters()` after the model is complete, or
    `optimizer.add_param_group(...)`.

    ## False alarms
    Frozen parameters and those without a gradient are not judged. Where several optimizers share
    the model, give all of them.
    """
    ownership = examination.ownership
    if ownership is None:
        raise Unavailable("no optimizer given or found; supply `optimizer=`")
    unowned = ownership.unowned
    if not unowned:
        yield Verified(
            "the optimizer owns every parameter that gets a gradient", {"owned": ownership.owned}
        )
        return
    names = [f"`{branch.path}`" for branch in unowned[:3]]
    names += [f"{len(unowned) - 3} more"] if len(unowned) > 3 else []
    verbs = ("gets", "is") if len(unowned) == 1 else ("get", "are")
    subject = examination.subject
    yield Finding(
        f"{listed(names)} {verbs[0]} a gradient but {verbs[1]} in no optimizer"
        if ownership.owned
        else "the optimizer holds no parameter of this model",
        help="give it `model.parameters()`, after the last layer was added"
        if ownership.owned
        else "build the optimizer from the parameters of the model that is trained",
        at=subject.optimizer_at or (unowned[0].at if ownership.owned else examination.place),
        measured={
            "parameters": sum(len(b.parameters) for b in unowned),
            "weights": sum(b.size for b in unowned),
            "stale tensors in the optimizer": ownership.stale,
        },
        causes=frozenset(f"layer:{b.path}" for b in unowned),
    )
