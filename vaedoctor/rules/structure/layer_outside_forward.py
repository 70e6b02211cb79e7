"""VAE104."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ...finding import Finding, Severity, Verified, where
from ...rule import Unavailable, rule

if TYPE_CHECKING:
    from ...examine.examination import Examination


@rule("VAE104", Severity.ERROR)
def layer_outside_forward(examination: Examination) -> Iterator[Finding | Verified]:
    """A registered layer takes no part in the forward pass or the loss.

    ## What it checks
    Which registered parameters no operation of a whole training step read (an embedding used
    through `.weight` counts as used), grouped by the topmost module that is idle as a whole. The
    source of the model's classes tells whether any code reads the attribute after `__init__`.

    ## Why it matters
    A layer that was added to `__init__` and forgotten in `forward` is trained by nothing. It sits
    in the optimizer and in every checkpoint and looks as if it worked.

    ## How to fix
    Call the layer in `forward` where it belongs, or remove it.

    ## False alarms
    *Error* only where no code in the classes' files, beside them and in their package reads the
    attribute: then it can never train. *Warning* where some code reads it and this pass did not, or
    where it is a parameter of its own (a dispersion, a noise level) and no loss was found that
    could read it. *Note* where some code reads such a parameter, or a layer of a library's, and no
    loss was found; where an `if` decides about it, where the file goes backward from several losses
    (a discriminator has its own), or where only a part of a used module is idle.
    Where the model has no `forward` and the step was composed from its parts, a layer that some
    code reads is not judged: the user's own step may well take it. Nor is one that a loss of the
    file takes which is not the loss that was examined.
    """
    census = examination.census
    idle = [b for b in census.idle if not examination.assembled or b.reads == ()]
    elsewhere = [b for b in idle if examination.composed and b.step]
    idle = [b for b in idle if b not in elsewhere]
    for branch in idle:
        reads = branch.reads
        if branch.partial:
            severity, why = Severity.NOTE, "the module it is part of is used"
        elif reads is None:
            severity, why = Severity.WARNING, "the source that may use it cannot be read"
        elif not reads and branch.bare and examination.composed:
            severity, why = Severity.WARNING, "no loss was found that could read it"
        elif not reads:
            severity, why = Severity.ERROR, f"no code reads `.{branch.attribute}` after `__init__`"
        elif all(r.switched for r in reads):
            severity, why = (
                Severity.NOTE,
                f"an `if` decides about it in {where(reads[0].at, branch.at)}",
            )
        else:
            lossless = (branch.bare or branch.foreign) and examination.composed
            several = examination.subject.backwards > 1
            severity = Severity.NOTE if lossless or several else Severity.WARNING
            place = where(reads[0].at, branch.at)
            why = f"`{reads[0].method.name}` reads it in {place}; this pass did not"
            why += ", and the file goes backward from other losses" if several else ""
        verb = "read" if branch.bare else "call"
        yield Finding(
            f"`{branch.path}` takes no part in the forward pass or the loss",
            help=f"{verb} `self.{branch.attribute}` in the forward pass, or remove it",
            at=branch.at,
            measured={"parameters": len(branch.parameters), "weights": branch.size},
            notes=(why,),
            severity=severity,
            causes=frozenset({f"layer:{branch.path}"}),
        )
    if elsewhere and not idle:
        raise Unavailable(
            f"`{elsewhere[0].step}` takes the idle layers, and is not the loss that was examined; "
            f"supply `objective={elsewhere[0].step}`"
        )
    if census.idle and not idle:
        raise Unavailable("the forward pass was composed, and other code reads the idle layers")
    if not census.idle:
        yield Verified(
            "every registered parameter takes part in the step", {"parameters": len(census.used)}
        )
