"""VAE204."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ...finding import Finding, Severity, Verified, where
from ...rule import Unavailable, rule

if TYPE_CHECKING:
    from ...examine.examination import Examination


@rule("VAE204", Severity.WARNING)
def hard_coded_dtype(examination: Examination) -> Iterator[Finding | Verified]:
    """A tensor of fixed number type keeps the model from float64 or bfloat16.

    ## What it checks
    Runs the step with parameters, buffers and batch in float64, and in bfloat16 where a call
    names float32; the model is put back bit for bit. Where an operation then refuses operands of
    two types, the odd one is followed back to the call that made it.

    ## Why it matters
    `model.double()` for a gradient check and `model.bfloat16()` for a large one both fail.

    ## How to fix
    Take the type from a tensor at hand: `torch.zeros(n, dtype=x.dtype)`, `h.to(x.dtype)`,
    `x.new_zeros(n)`, `register_buffer`.

    ## False alarms
    Operations that promote their operands (float32 noise added to a float64 mean) run, and are
    not reported. Nor are integers that are made numbers, `F.one_hot(y, n).float()`: they have no
    type to keep, and the experiment gives them the model's. Failures for any other reason skip
    the rule, and so does a step under autocast.
    """
    found, ran = examination.fixed_type
    if found is None and not ran:
        raise Unavailable("the step does not run in float64 for another reason than number types")
    if found is None:
        yield Verified("the step runs in another number type", {"number type": ran})
        return
    what = {
        "asked": f"`{found.name}` asks for {found.dtype}",
        "default": f"`{found.name}` makes a {found.dtype} tensor",
        "kept": f"`{found.name}` stays {found.dtype}",
    }[found.kind]
    yield Finding(
        f"{what}, and the model cannot run in {found.ran_in}",
        help=(
            "register it: `self.register_buffer(name, tensor)`"
            if found.kind == "kept"
            else "take the type from a tensor at hand: `dtype=x.dtype`, `.to(x.dtype)`"
        ),
        at=found.at,
        measured={"number type": found.dtype, "model in": found.ran_in},
        notes=(f"`{found.refused_by}` refuses both in {where(found.refused_at, found.at)}",),
        causes=found.causes,
    )
