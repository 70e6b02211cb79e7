"""VAE001."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ...finding import Finding, Severity
from ...rule import rule

if TYPE_CHECKING:
    from ...examine.examination import Examination


@rule("VAE001", Severity.NOTE)
def unused_suppression(examination: Examination) -> Iterator[Finding]:
    """A `# vaedoctor: ignore[...]` comment silences nothing.

    ## What it checks
    Every `# vaedoctor: ignore[...]` comment inside the class of the model, once all other rules
    have spoken: whether each rule it names exists and had something to silence on this line, or
    anywhere if the comment stands on the class line. A comment that names no rule at all is
    reported too, because it silences nothing.

    ## Why it matters
    A comment that outlives its reason hides the next, real finding of the same rule on the same
    line.

    ## How to fix
    Remove the comment, or the one code that is no longer needed. A bare
    `# vaedoctor: ignore` needs the codes: `# vaedoctor: ignore[VAE301, VAE302]`.

    ## False alarms
    Rules that were skipped or not selected never make a comment unused. A finding that only
    appears with other data or after training does: add `VAE001` to the comment to keep it.
    """
    # Suppressions are applied after all rules: `suppress.apply_suppressions` fills this outcome.
    yield from ()
