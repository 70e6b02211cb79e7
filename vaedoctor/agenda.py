"""What is to be examined: the command line before the configuration before the defaults."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .baseline import read_baseline
from .config import ConfigError, Settings, parse_severity, select_rules, split_words
from .project import IGNORE, Project, Target

TIMEOUT = 120.0  # seconds for one target, unless said


def requests(
    typed: Sequence[str], project: Project, given: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """One request for each model: those typed, or else all that the project lists.

    A typed target that the project lists takes its settings; `given` (options that were typed)
    goes before them. Raises `ConfigError` when there is nothing to examine.
    """
    if not typed and not project.targets:
        where = f"`{project.file.name}` lists none" if project.file else "there is no configuration"
        raise ConfigError(
            f"no target, and {where}: name one, as in `vaedoctor check mymodel.py:VAE`, "
            "or let `vaedoctor init` list them"
        )
    if not typed:
        return [_configured(t, project, given) for t in project.targets]
    found: list[dict[str, Any]] = []
    for word in typed:
        known = project.matching(word)
        found += [_configured(t, project, given) for t in known]
        if not known:
            found.append(_merged(Target(word).request(), given))
    return found


def settings(project: Project, given: Mapping[str, Any]) -> Settings:
    """What is judged and how strictly. Raises `ConfigError` when no rule is left.

    A typed `select` starts afresh; a typed `ignore` adds to what the project ignores.
    """
    chosen = split_words(given.get("select", ())) or None
    afresh = chosen is not None
    dropped = split_words(given.get("ignore", ()))
    if not afresh:
        chosen = project.select
        dropped = (*dropped, *(project.ignore or ()), *_ignored(project.severity))
    # Without selectors there is nothing to refuse: the child starts before any rule is imported.
    if (chosen or dropped) and not select_rules(chosen, dropped):
        raise ConfigError("the selected rules are all ignored: no rule is left to judge")
    fail_on = given.get("fail_on", project.fail_on)
    return Settings(
        chosen,
        dropped,
        **({} if fail_on is None else {"fail_on": parse_severity(fail_on)}),
        seed=given.get("seed", project.seed or 0),
        severity={k: v for k, v in project.severity.items() if v != IGNORE},
    )


def timeout(project: Project, given: Mapping[str, Any]) -> float:
    """The seconds that one target may take."""
    seconds: float = given.get("timeout", project.timeout or TIMEOUT)
    return seconds


def baseline(project: Project, given: Mapping[str, Any]) -> frozenset[str]:
    """The fingerprints of what is known already. Raises `ConfigError` for a file that is none."""
    path: Path | None = given.get("baseline")
    if path is None and project.baseline is not None:
        path = project.folder / project.baseline
    return read_baseline(path) if path else frozenset()


def _ignored(severity: Mapping[str, str]) -> tuple[str, ...]:
    return tuple(selector for selector, level in severity.items() if level == IGNORE)


def _configured(target: Target, project: Project, given: Mapping[str, Any]) -> dict[str, Any]:
    """A listed target: its paths begin in the project's folder, the typed ones here."""
    typed = dict(given)
    for key in ("input", "checkpoint"):
        if typed.get(key):
            typed[key] = _from_here(typed[key])
    return {**_merged(target.request(), typed), "folder": str(project.folder)}


def _merged(request: dict[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """The request with what was typed; a typed argument replaces only itself."""
    merged = {**request, "hunt": False}
    merged |= {k: v for k, v in given.items() if k in merged}
    for key in ("args", "call"):
        merged[key] = {**request[key], **merged[key]}
    return merged


def _from_here(text: str) -> str:
    """A typed path made absolute, because the child starts in another folder."""
    where, colon, name = text.rpartition(":")
    if colon and Path(where).exists():
        return f"{Path(where).resolve()}:{name}"
    return str(Path(text).resolve()) if Path(text).exists() else text
