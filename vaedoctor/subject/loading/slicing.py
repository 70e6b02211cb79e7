"""Loading only the definitions of a file: what a script would *do* is left out.

A file that only defines things is executed as it is. Of a script, the imports, functions, classes
and plain constants are executed in order and with their line numbers, and of the other top-level
assignments those that the target reads (a backward slice, into `if __name__ == "__main__"` too).
Training, data loading, writing and bare calls never run.
"""

from __future__ import annotations
import __future__

import ast
import asyncio
import collections.abc
import inspect
import os
import types
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..code.arguments import flags_parsed, no_argument_required
from ..code.source import Source
from ..code.statements import (
    aliased,
    assigns,
    binds,
    borrows,
    defines,
    is_costly,
    is_harmless,
    is_text,
)
from ..code.syntax import blocks, globals_read, is_main_guard
from .starred import supply
from .stubs import Absent

OwnFirst = Callable[[str, Path], AbstractContextManager[None]]
_LOSS_WORDS = ("loss", "elbo", "criterion", "objective")


@dataclass(frozen=True, slots=True)
class Failure:
    """A statement that raised while the file was loaded."""

    error: BaseException
    stmt: ast.stmt


@dataclass(slots=True)
class Executed:
    """What was left out of a file, and what failed, by the names that are missing for it."""

    left_out: int | None = None
    missing: dict[str, ast.stmt] = field(default_factory=dict)
    failures: dict[str, Failure] = field(default_factory=dict)
    unnamed: list[Failure] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Slice:
    """Which statements of a file run, in order, and those that do not."""

    run: list[ast.stmt]
    left_out: list[ast.stmt]

    @property
    def first_deed(self) -> int | None:
        """The line of what was left out: what does something tells more than an assignment."""
        doing = [s for s in self.left_out if not assigns(s) or is_costly(s)]
        return next((s.lineno for s in (*doing, *self.left_out) if not is_main_guard(s)), None)


@contextmanager
def _as_it_is(name: str, importer: Path) -> Iterator[None]:
    """No file of the user's own has the name: the failed import is raised again."""
    raise
    yield


def execute(
    source: Source, namespace: dict[str, Any], wanted: Iterable[str] = (), own: OwnFirst = _as_it_is
) -> Executed:
    """Run a file's definitions and what they need; nothing that fails is raised."""
    return _execute(slice_of(source.tree, wanted), source, namespace, own)


def execute_module(
    source: Source, namespace: dict[str, Any], own: OwnFirst = _as_it_is
) -> Executed:
    """Run a module that is imported by another: all of it but what loads, trains or writes.

    What fails is raised, unless it needs what was left out or a library that is not there.
    """
    plan = Slice([], [])
    for stmt in source.tree.body:
        deed = not defines(stmt) and is_costly(stmt) and not is_main_guard(stmt)
        (plan.left_out if deed else plan.run).append(stmt)
    done = _execute(plan, source, namespace, own)
    for failure in (*done.unnamed, *done.failures.values()):
        missing = isinstance(failure.error, NameError) and failure.error.name in done.missing
        if not missing and not isinstance(failure.error, ImportError):
            raise failure.error
    for name, failure in done.failures.items():
        if isinstance(failure.error, ImportError):
            namespace.setdefault(name, Absent(name, failure.error))
    return done


def execute_whole(source: Source, namespace: dict[str, Any]) -> None:
    """Run the file in full, as an import would; top-level `await` is waited for."""
    flags = _future_flags(source.tree) | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    with no_argument_required(), ExitStack() as stack:
        runner: asyncio.Runner | None = None
        for stmt in source.tree.body:
            code = _compiled(stmt, source, flags)
            if not code.co_flags & inspect.CO_COROUTINE:
                exec(code, namespace)
                continue
            runner = runner or stack.enter_context(asyncio.Runner())
            runner.run(eval(code, namespace))


def slice_of(tree: ast.Module, wanted: Iterable[str] = ()) -> Slice:
    """The statements that define what `wanted` names (all classes and losses when empty) need."""
    needed = needed_names(tree, set(wanted))
    plan = Slice([], [])
    imports = (s for s in tree.body if isinstance(s, ast.Import | ast.ImportFrom))
    imported = set().union(*map(binds, imports), set())
    for stmt, guarded in _statements(tree):
        if is_text(stmt):
            continue
        names = binds(stmt)
        asked = bool(names & needed) and assigns(stmt) and not is_costly(stmt)
        asked = asked and not borrows(stmt, imported)
        if asked or (defines(stmt) and (not guarded or names & needed)):
            plan.run.append(stmt)
        elif not guarded and not is_harmless(stmt):
            plan.left_out.append(stmt)
    return plan


def needed_names(tree: ast.Module, wanted: set[str]) -> set[str]:
    """Names reachable from the target, from the losses, and from what definitions read at once."""
    reads: dict[str, set[str]] = {}
    pending: set[str] = set(wanted)
    for stmt, guarded in _statements(tree):
        names = globals_read(stmt)
        for name in binds(stmt):
            reads.setdefault(name, set()).update(names)
        if (alias := aliased(stmt)) is not None:
            reads.setdefault(alias[0], set()).add(alias[1])
        if isinstance(stmt, ast.ClassDef) and not wanted:
            pending.add(stmt.name)
        if isinstance(stmt, ast.FunctionDef) and any(w in stmt.name.lower() for w in _LOSS_WORDS):
            pending.add(stmt.name)
        plain = not isinstance(stmt, ast.Import | ast.ImportFrom | ast.FunctionDef | ast.ClassDef)
        if defines(stmt) and plain and not guarded:
            pending |= names
    needed: set[str] = set()
    while pending:
        name = pending.pop()
        if name not in needed:
            needed.add(name)
            pending |= reads.get(name, set())
    return needed


def _statements(tree: ast.Module) -> Iterator[tuple[ast.stmt, bool]]:
    """The top-level statements, and those of the main guard, which are marked."""
    for stmt in tree.body:
        if is_main_guard(stmt):
            for block in blocks(stmt):
                yield from ((s, True) for s in block)
        else:
            yield stmt, False


def _execute(plan: Slice, source: Source, namespace: dict[str, Any], own: OwnFirst) -> Executed:
    done = Executed(plan.first_deed)
    flags = _future_flags(source.tree)
    for stmt in plan.left_out:
        done.missing |= dict.fromkeys(binds(stmt), stmt)
    with no_argument_required():
        for stmt in plan.run:
            read, moved = _where_it_is_now(stmt)
            if moved:
                now = ", ".join(f"`collections.abc.{n}`" for n in moved)
                where = source.line(stmt.lineno)
                done.notes.append(f"`collections` has lost names of {where}: {now} instead")
            try:
                _run(read, source, namespace, flags, own)
            except KeyboardInterrupt:
                raise
            except BaseException as error:
                _failed(stmt, error, namespace, done, source)
            else:
                if (told := supply(stmt, source, namespace)) is not None:
                    done.notes.append(told)
                for name in binds(stmt):
                    done.failures.pop(name, None)
            if isinstance(stmt, ast.Import | ast.ImportFrom):
                flags_parsed()
    return done


def _run(
    stmt: ast.stmt, source: Source, namespace: dict[str, Any], flags: int, own: OwnFirst
) -> None:
    code = _compiled(stmt, source, flags)
    try:
        exec(code, namespace)
    except ImportError:
        if not isinstance(stmt, ast.ImportFrom) or stmt.level or not stmt.module:
            raise
        # `from statistics import SIZE`: the user's own file, whose name Python has too.
        with own(stmt.module.partition(".")[0], source.path):
            exec(code, namespace)
    except FileNotFoundError:
        # `open("config.yaml")`: people start a script in its own folder.
        here = os.getcwd()
        os.chdir(source.path.parent)
        try:
            exec(code, namespace)
        finally:
            os.chdir(here)


def _compiled(stmt: ast.stmt, source: Source, flags: int) -> types.CodeType:
    module = ast.Module([stmt], type_ignores=[])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SyntaxWarning)
        code = compile(module, str(source.path), "exec", flags, dont_inherit=True)
    assert isinstance(code, types.CodeType)
    return code


def _failed(
    stmt: ast.stmt,
    error: BaseException,
    namespace: dict[str, Any],
    done: Executed,
    source: Source,
) -> None:
    """Remember a failure; what a failed import would have bound is there, but absent."""
    done.failures |= dict.fromkeys(binds(stmt), Failure(error, stmt))
    if not binds(stmt):
        done.unnamed.append(Failure(error, stmt))
    if not isinstance(stmt, ast.Import | ast.ImportFrom):
        return
    for alias in stmt.names:
        if alias.name != "*":
            package = stmt.module or "." if isinstance(stmt, ast.ImportFrom) else ""
            path = f"{package}.{alias.name}" if package else alias.name
            name = (alias.asname or alias.name).partition(".")[0]
            namespace[name] = Absent(path, error)
    text = f"{type(error).__name__}: {error}"
    done.notes.append(f"`{ast.unparse(stmt)}` in {source.line(stmt.lineno)} raised {text}: stubbed")


def _where_it_is_now(stmt: ast.stmt) -> tuple[ast.stmt, list[str]]:
    """`from collections import Iterable` with what Python 3.10 moved taken from where it is."""
    if not isinstance(stmt, ast.ImportFrom) or stmt.level or stmt.module != "collections":
        return stmt, []
    moved = [a for a in stmt.names if a.name in collections.abc.__all__]
    if not moved:
        return stmt, []
    rest = [a for a in stmt.names if a not in moved]
    parts: list[ast.stmt] = [ast.ImportFrom("collections.abc", moved, 0)]
    if rest:
        parts.append(ast.ImportFrom("collections", rest, 0))
    both = ast.If(ast.Constant(True), parts, [])
    return ast.fix_missing_locations(ast.copy_location(both, stmt)), [a.name for a in moved]


def _future_flags(tree: ast.Module) -> int:
    flags = 0
    for stmt in tree.body:
        if isinstance(stmt, ast.ImportFrom) and stmt.module == "__future__":
            for alias in stmt.names:
                flags |= getattr(__future__, alias.name).compiler_flag
    return flags
