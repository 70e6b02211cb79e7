"""Why a model cannot be built or run when what it lacks is what loading left out."""

from __future__ import annotations

import ast
import importlib.util
import inspect
import sys
from collections.abc import Iterator
from dataclasses import dataclass

from ..code.source import Source, is_foreign
from ..errors import TargetError, user_traceback
from ..trials.witness import user_frame
from .loading import Loaded, stopped
from .slicing import Executed, Failure
from .stubs import Absent, StubLoader, StubUsed, explain
from .surroundings import Surroundings


def unbound(name: str, loaded: Loaded, label: str) -> TargetError | None:
    """What to say about a target that the file would define, had it been executed."""
    if loaded.source is None:
        return None
    reason = _Lack(loaded.source, loaded.executed, label).of(name, "")
    if reason is not None:
        return reason
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
        if isinstance(one, NameError) and (used := _left_out_by_its_library(one)) is not None:
            return _without_a_traceback(explain(used))  # the message says where
        if not isinstance(one, NameError) or not one.name or loaded.source is None:
            continue
        shown = user_traceback(one)
        known = [(loaded.source, loaded.executed), *surroundings.executed.values()]
        for source, done in known:
            if (reason := _Lack(source, done, label).of(one.name, shown)) is not None:
                return reason
        for source, _ in known:
            for module in _star_imports(source.tree):
                if module.partition(".")[0] in surroundings.stubs.names:
                    return explain(StubUsed(f"{module}.{one.name}", "needed"))
        line = loaded.executed.left_out
        if line is not None and not loaded.whole and _may_bind(loaded.source, one.name):
            return TargetError(
                f"`{one.name}` is not defined; {loaded.source.line(line)} and what follows it "
                "was not run",
                traceback=shown,
                next_step=_whole(label),
            )
    return None


def _may_bind(source: Source, name: str) -> bool:
    """Whether anything in a file gives something that name, so that running all of it may help."""
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Name) and node.id in {"exec", "globals", "setattr"}:
            return True
        if isinstance(node, ast.Name) and node.id == name and isinstance(node.ctx, ast.Store):
            return True
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name == name:
            return True
        if isinstance(node, ast.alias) and name == (node.asname or node.name):
            return True
    return next(_star_imports(source.tree), None) is not None


def _left_out_by_its_library(error: NameError) -> StubUsed | None:
    """The library whose import another one leaves out where it is not installed."""
    found = user_frame(error)
    if found is None or not is_foreign(found[0].f_code.co_filename):
        return None
    frame = found[0]
    module = str(frame.f_globals.get("__name__", ""))
    try:
        tree = ast.parse(inspect.getsource(sys.modules[module]))
    except (KeyError, OSError, TypeError, SyntaxError):
        return None
    for stmt in ast.walk(tree):
        if isinstance(stmt, ast.ImportFrom) and stmt.module and not stmt.level:
            names = {a.asname or a.name: f"{stmt.module}.{a.name}" for a in stmt.names}
        elif isinstance(stmt, ast.Import):
            names = {a.asname or a.name.partition(".")[0]: a.name for a in stmt.names}
        else:
            continue
        needed = names.get(error.name or "", "")
        if needed and _is_absent(needed.partition(".")[0]):
            return StubUsed(needed, f"needed in line {frame.f_lineno} of `{module}`")
    return None


def _without_a_traceback(reason: TargetError) -> TargetError:
    return TargetError(reason.message, next_step=reason.next_step)


def _is_absent(name: str) -> bool:
    spec = importlib.util.find_spec(name)
    return spec is None or isinstance(spec.loader, StubLoader)


@dataclass(frozen=True, slots=True)
class _Lack:
    """The names that a file lacks, because of what was left out of it or failed."""

    source: Source
    done: Executed
    label: str

    def of(self, name: str, shown: str) -> TargetError | None:
        """Why the file lacks a name: the first cause, where one thing led to another."""
        found: Failure | ast.stmt | None = None
        seen: set[str] = set()
        while name and name not in seen:
            seen.add(name)
            cause = self.done.failures.get(name) or self.done.missing.get(name)
            if cause is None:
                break
            found, last = cause, name
            undefined = isinstance(cause, Failure) and isinstance(cause.error, NameError)
            name = getattr(cause.error, "name", "") if undefined else ""  # type: ignore[union-attr]
        if isinstance(found, Failure):
            return stopped(self.source, found.error, found.stmt.lineno)
        if found is None:
            return None
        own = f" of {self.source.path.name}"
        return TargetError(
            f"`{last}` is made in {self.source.line(found.lineno)}{own}, which is not run: "
            "it loads data, trains, writes or asks",
            traceback=shown,
            next_step=_whole(self.label),
        )


def _whole(label: str) -> str:
    return f"vaedoctor check {label} --exec   (runs the whole file)"


def _star_imports(tree: ast.Module) -> Iterator[str]:
    for stmt in tree.body:
        if isinstance(stmt, ast.ImportFrom) and stmt.module and stmt.names[0].name == "*":
            yield stmt.module


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__
