"""Notebooks as Jupyter writes them, for tests."""

from __future__ import annotations

import json
from typing import Any


def notebook(*cells: str, **metadata: Any) -> str:
    """A notebook of format 4; a cell that starts with `# md` is Markdown."""
    content = {
        "cells": [_cell(source) for source in cells],
        "metadata": {"language_info": {"name": "python"}, **metadata},
        "nbformat": 4,
        "nbformat_minor": 5,
    }
    return json.dumps(content, indent=1) + "\n"


def _cell(source: str) -> dict[str, Any]:
    lines = source.strip("\n").splitlines(keepends=True)
    if source.startswith("# md"):
        return {"cell_type": "markdown", "metadata": {}, "source": lines}
    return {
        "cell_type": "code",
        "execution_count": 1,
        "metadata": {},
        "outputs": [{"name": "stdout", "output_type": "stream", "text": lines}],
        "source": lines,
    }
