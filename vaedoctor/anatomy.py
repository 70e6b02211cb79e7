"""`vaedoctor anatomy TARGET`: the picture of a model, without any judgement."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .isolate import Isolated
from .output import width

CAN_IT_RUN = ("VAE002",)
"""The one rule that is asked: it explains a forward pass or loss that raises."""


def examine_anatomy(target: str, options: Mapping[str, Any], *, as_json: bool) -> tuple[str, int]:
    """The text (or JSON) of a target's anatomy, and the exit code: 2 where it could not run.

    Raises `CouldNotRun` where there is nothing to examine.
    """
    limits = {"timeout": options["timeout"], "debug": options["debug"]}
    request = {"target": target, "select": CAN_IT_RUN, "ignore": (), **options, "hunt": False}
    with Isolated(request, **limits) as examination:
        from .report.as_anatomy import anatomy_json, as_anatomy

        report = examination.report()
    if not report.ran:
        from .report.as_text import as_text

        return as_text(report, width=width()), report.exit_code
    return f"{anatomy_json(report)}\n" if as_json else as_anatomy(report, width=width()), 0
