"""Loading only the definitions of a file: what a script would *do* is left out.

A file that only defines things is executed as it is. Of a script, the imports, functions, classes
and plain constants are executed in order and with their line numbers, and of the other top-level
assignments those that the target reads (a backward slice). Loops, `with` blocks, training, data
loading and bare calls never run.
"""

from __future__ import annotations
import __future__

import ast
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from .source import Source, blocks, globals_read, is_main_guard, root_name

_HARMLESS = {
    "print",
    "manual_seed",
    "manual_seed_all",
    "seed",
    "filterwarnings",
    "simplefilter",
    "basicConfig",
    "set_verbosity_error",
}
_SETTINGS = {"set_default_dtype", "set_default_tensor_type"}
_COSTLY = {
    "DataLoader",
    "Dataset",
    "TensorDataset",
    "ImageFolder",
    "random_split",
    "load_dataset",
    "urlopen",
    "urlretrieve",
    "download",
    "read_csv",
    "loadtxt",
    "open",
    "input",
    "backward",
    "step",
    "fit",
    "train",
    "SummaryWriter",
    "init_process_group",
}
_PARSING = ("ArgumentParser", "parse_args", "parse_known_args")
_LOSS_WORDS = ("loss", "elbo", "criterion", "objective")


class Stopped(Exception):
    """A statement that the target needs raised; the user's exception is the cause."""

    def __init__(self, error: BaseException, line: int) -> None:
        super().__init__(str(error))
        self.error = error
        self.line = line


@dataclass(slots=True)
class Slice:
    """Which statements of a file run, and the first line of those that do not."""

    run: list[ast.stmt]
    essential: set[int] = field(default_factory=set)
    left_out: int | None = None


def execute(source: Source, namespace: dict[str, Any], wanted: Iterable[str] = ()) -> int | None:
    """Run a file's definitions in `namespace`; return the first line that was left out, if any."""
    flags = _future_flags(source.tree)
    if all(_defines(s) or is_main_guard(s) for s in source.tree.body):
        try:
            _run([*source.tree.body], source, namespace, flags)
        except ImportError:
            # A script's plotting library may be missing; what the target needs decides below.
            kept = {k: v for k, v in namespace.items() if k.startswith("__")}
            namespace.clear()
            namespace.update(kept)
        else:
            return None
    plan = slice_of(source.tree, wanted)
    for stmt in plan.run:
        try:
            _run([stmt], source, namespace, flags)
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            if id(stmt) in plan.essential:
                raise Stopped(error, stmt.lineno) from error
    return plan.left_out


def slice_of(tree: ast.Module, wanted: Iterable[str] = ()) -> Slice:
    """The statements that define what `wanted` names (all classes and losses when empty) need."""
    named = set(wanted)
    needed = _needed(tree, named)
    plan = Slice([])
    left_out: list[ast.stmt] = []
    for stmt in tree.body:
        if is_main_guard(stmt) or _is_docstring(stmt):
            continue
        if _defines(stmt):
            plan.run.append(stmt)
            if _binds(stmt) & needed or "*" in _binds(stmt):
                plan.essential.add(id(stmt))
        elif _assigns(stmt) and _binds(stmt) & needed and not _is_costly(stmt):
            plan.run.append(stmt)
            if _binds(stmt) & named and isinstance(stmt, ast.Assign):
                plan.essential.add(id(stmt))
        elif not _is_harmless(stmt):
            left_out.append(stmt)
    # What does something tells the user more than an assignment that nobody needs.
    doing = [s for s in left_out if not _assigns(s) or _is_costly(s)]
    plan.left_out = next((s.lineno for s in (*doing, *left_out)), None)
    return plan


def _run(body: list[ast.stmt], source: Source, namespace: dict[str, Any], flags: int) -> None:
    code = compile(
        ast.Module(body, type_ignores=[]), str(source.path), "exec", flags, dont_inherit=True
    )
    exec(code, namespace)


def _future_flags(tree: ast.Module) -> int:
    flags = 0
    for stmt in tree.body:
        if isinstance(stmt, ast.ImportFrom) and stmt.module == "__future__":
            for alias in stmt.names:
                flags |= getattr(__future__, alias.name).compiler_flag
    return flags


def _needed(tree: ast.Module, wanted: set[str]) -> set[str]:
    """Names reachable from the target, from the losses, and from what definitions read at once."""
    reads: dict[str, set[str]] = {}
    pending: set[str] = set(wanted)
    for stmt in tree.body:
        if is_main_guard(stmt):
            continue
        names = globals_read(stmt)
        for name in _binds(stmt):
            reads.setdefault(name, set()).update(names)
        if isinstance(stmt, ast.ClassDef) and not wanted:
            pending.add(stmt.name)
        if isinstance(stmt, ast.FunctionDef) and any(w in stmt.name.lower() for w in _LOSS_WORDS):
            pending.add(stmt.name)
        if isinstance(stmt, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            pending |= _read_when_defined(stmt)
        elif _defines(stmt) and not isinstance(stmt, ast.Import | ast.ImportFrom):
            pending |= names
    needed: set[str] = set()
    while pending:
        name = pending.pop()
        if name not in needed:
            needed.add(name)
            pending |= reads.get(name, set())
    return needed


def _read_when_defined(stmt: ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) -> set[str]:
    now: list[ast.AST] = list(stmt.decorator_list)
    if isinstance(stmt, ast.ClassDef):
        now += [*stmt.bases, *stmt.keywords]
        for inner in stmt.body:
            if isinstance(inner, ast.FunctionDef):
                now += [*inner.decorator_list, *inner.args.defaults]
            elif not isinstance(inner, ast.ClassDef):
                now.append(inner)
    else:
        now += [*stmt.args.defaults, *(d for d in stmt.args.kw_defaults if d)]
    return set().union(*(globals_read(n) for n in now)) if now else set()


def _binds(stmt: ast.stmt) -> set[str]:
    """The names a top-level statement gives a value (`cfg` for `cfg.size = 3`)."""
    if isinstance(stmt, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        return {stmt.name}
    if isinstance(stmt, ast.Import | ast.ImportFrom):
        return {(a.asname or a.name).partition(".")[0] for a in stmt.names}
    if isinstance(stmt, ast.Expr):
        return {root_name(stmt.value)} if _is_add_argument(stmt) else set()
    if isinstance(stmt, ast.Assign | ast.AnnAssign | ast.AugAssign):
        targets = stmt.targets if isinstance(stmt, ast.Assign) else [stmt.target]
        flat = [
            e for t in targets for e in (t.elts if isinstance(t, ast.Tuple | ast.List) else [t])
        ]
        return {root_name(t.value if isinstance(t, ast.Starred) else t) for t in flat} - {""}
    return set().union(*(_binds(s) for block in blocks(stmt) for s in block), set())


def _defines(stmt: ast.stmt) -> bool:
    """Whether a statement only defines: an import, a function, a class, a plain constant."""
    match stmt:
        case ast.Import() | ast.ImportFrom() | ast.FunctionDef() | ast.AsyncFunctionDef():
            return True
        case ast.ClassDef() | ast.Pass():
            return True
        case ast.Assign() | ast.AnnAssign() | ast.AugAssign():
            return stmt.value is None or not _works(stmt.value)
        case ast.Expr():
            name = _callee(stmt)
            return _is_docstring(stmt) or _changes_path(stmt) or name in _SETTINGS
        case ast.If() | ast.Try():
            return all(_defines(s) for block in blocks(stmt) for s in block)
    return False


def _assigns(stmt: ast.stmt) -> bool:
    """Whether a statement only gives names values, if perhaps at a cost."""
    if isinstance(stmt, ast.If):
        return all(_assigns(s) or _defines(s) for block in blocks(stmt) for s in block)
    return isinstance(stmt, ast.Assign | ast.AnnAssign | ast.AugAssign) or _is_add_argument(stmt)


def _works(node: ast.AST) -> bool:
    return any(
        isinstance(n, ast.Call | ast.Await | ast.Yield | ast.YieldFrom) for n in ast.walk(node)
    )


def _is_costly(stmt: ast.stmt) -> bool:
    for node in ast.walk(stmt):
        if isinstance(node, ast.Call):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else root_name(node.func)
            if name in _COSTLY or name.endswith(("DataLoader", "Dataset")):
                return True
            if any(k.arg == "download" for k in node.keywords):
                return True
    return False


def _callee(stmt: ast.stmt) -> str:
    if isinstance(stmt, ast.Expr) and isinstance(stmt.value, ast.Call):
        func = stmt.value.func
        return func.attr if isinstance(func, ast.Attribute) else root_name(func)
    return ""


def _is_harmless(stmt: ast.stmt) -> bool:
    value = getattr(stmt, "value", None)
    if isinstance(value, ast.Call) and ast.unparse(value.func).endswith(_PARSING):
        return True
    return _callee(stmt) in _HARMLESS or _is_add_argument(stmt) or isinstance(stmt, ast.Delete)


def _is_add_argument(stmt: ast.stmt) -> bool:
    return _callee(stmt) in {"add_argument", "set_defaults"}


def _is_docstring(stmt: ast.stmt) -> bool:
    return isinstance(stmt, ast.Expr) and isinstance(stmt.value, ast.Constant)


def _changes_path(stmt: ast.stmt) -> bool:
    if not isinstance(stmt, ast.Expr) or not isinstance(stmt.value, ast.Call):
        return False
    return ast.unparse(stmt.value.func) in {"sys.path.append", "sys.path.insert"}
