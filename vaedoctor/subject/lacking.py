"""Why a model cannot be built or run when what it lacks is what loading left out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from .errors import TargetError, user_traceback
from .loading import Loaded, stopped
from .slicing import Executed
from .stubs import Absent, StubUsed, explain
from .surroundings import Surroundings


def unbound(name: str, loaded: Loaded, label: str) -> TargetError | None:
    """What to say about a target that the file would define, had it been executed."""
    failure = loaded.executed.cause(name)
    source = loaded.source
    if failure is not None and source is not None:
        return stopped(source, failure.error, failure.stmt.lineno)
    stmt = loaded.executed.missing.get(name)
    if stmt is not None and source is not None:
        return _not_run(name, source.line(stmt.lineno), "", label)
    value = loaded.namespace.get(name)
    if isinstance(value, Absent):
        return explain(StubUsed(value._path, "the target", value._why))
    return None


def lacking(
    error: BaseException | None, loaded: Loaded, surroundings: Surroundings, label: str
) -> TargetError | None:
    """A better reason for an exception of the model's, if loading is to blame."""
    for one in _chain(error):
        if isinstance(one, StubUsed):
            return explain(one)
        if not isinstance(one, NameError) or not one.name:
            continue
        known: Iterable[tuple[str, Executed]] = [
            ("", loaded.executed),
            *surroundings.executed.items(),
        ]
        for module, done in known:
            failure = done.cause(one.name)
            if failure is not None and loaded.source is not None:
                file = Path(module) if module else loaded.source
                return stopped(file, failure.error, failure.stmt.lineno)
            stmt = done.missing.get(one.name)
            if stmt is not None:
                place = loaded.source.line(stmt.lineno) if loaded.source and not module else ""
                place = place or f"line {stmt.lineno} of `{module}`"
                return _not_run(one.name, place, user_traceback(one), label)
    return None


def _not_run(name: str, place: str, shown: str, label: str) -> TargetError:
    return TargetError(
        f"`{name}` is made in {place}, which is not run: it loads data, trains or writes",
        traceback=shown,
        next_step=f"vaedoctor check {label} --exec   (runs the whole file)",
    )


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__
