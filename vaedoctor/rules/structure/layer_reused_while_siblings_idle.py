"""VAE105."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ...finding import Finding, Severity
from ...rule import rule
from ...spelling import listed

if TYPE_CHECKING:
    from ...examine.examination import Examination


@rule("VAE105", Severity.WARNING, before=("VAE104",))
def layer_reused_while_siblings_idle(examination: Examination) -> Iterator[Finding]:
    """One layer is called several times while same-shaped siblings are never called.

    ## What it checks
    How often each child module ran in one step, and whether children of the same parent with the
    same type and weight shapes never ran.

    ## Why it matters
    A copy-and-paste slip (`self.deconv1` three times instead of `deconv1`, `deconv2`, `deconv3`)
    shares one set of weights where several were meant. The shapes fit, so nothing raises.

    ## How to fix
    Call the idle layer at the place it was made for.

    ## False alarms
    Weight sharing on purpose (recurrent cells, tied layers) has no idle siblings.
    """
    for reuse in examination.census.reused:
        calls = reuse.calls
        lines = sorted({c.span.line for c in calls if c.span})
        idle = listed([f"`{name}`" for name in reuse.idle])
        them, verb = ("sibling", "is") if len(reuse.idle) == 1 else ("siblings", "are")
        yield Finding(
            f"`{reuse.path}` is called {len(calls)} times while its {them} {idle} {verb} never "
            "called",
            help=f"call {idle} where {'it was' if verb == 'is' else 'they were'} made for",
            at=calls[-1].span,
            measured={"calls": len(calls), "idle siblings": len(reuse.idle)},
            notes=(f"called in line{'s' * (len(lines) > 1)} {', '.join(map(str, lines))}",),
            causes=frozenset(f"layer:{name}" for name in reuse.idle),
        )
