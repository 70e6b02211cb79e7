"""What a top-level statement of a script does: define, assign, change a name, or act on the world.

Judged from the syntax tree alone. "Costly" is what loads data, trains, writes or asks the network.
"""

from __future__ import annotations

import ast
from collections.abc import Set

from .syntax import blocks, called_name, names_read, root_name

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
    *"DataLoader Dataset TensorDataset ImageFolder random_split load_dataset".split(),
    *"urlopen urlretrieve download snapshot_download hf_hub_download download_url".split(),
    *"read_csv read_parquet read_pickle loadtxt genfromtxt imread input".split(),
    *"backward step fit train fit_transform zero_grad".split(),
    *"SummaryWriter FileHandler FileStorageObserver init_process_group set_device".split(),
    *"makedirs mkdir mkdtemp rmtree unlink savefig savetxt savez imsave imwrite save_image".split(),
    *"write_text write_bytes touch to_csv extractall show save dump Popen system chdir".split(),
    *"check_call check_output getoutput exit quit sleep launch spawn".split(),
}
_ACTING = {
    "subprocess",
    "requests",
    "urllib",
    "shutil",
    "wget",
    "gdown",
    "wandb",
    "mlflow",
    "drive",
}
_MUTATORS = {
    *"append extend insert update add setdefault pop remove sort reverse clear".split(),
    *"add_argument set_defaults merge_from_file merge_from_list add_class_attributes".split(),
    *"register freeze defrost __setitem__".split(),
}
_CONFIGURES = _MUTATORS - {
    *"append extend insert add pop remove sort reverse clear register".split(),
}
_PATHS = ("sys.path.append", "sys.path.insert", "sys.path.extend")


def defines(stmt: ast.stmt) -> bool:
    """Whether a statement only defines: an import, a function, a class, a plain constant."""
    match stmt:
        case ast.Import() | ast.ImportFrom() | ast.FunctionDef() | ast.AsyncFunctionDef():
            return True
        case ast.ClassDef() | ast.Pass():
            return True
        case ast.Assign() | ast.AnnAssign() | ast.AugAssign():
            return stmt.value is None or not _works(stmt.value)
        case ast.Expr():
            return (
                is_text(stmt)
                or ast.unparse(stmt.value).startswith(_PATHS)
                or callee(stmt) in _SETTINGS
            )
        case ast.If() | ast.Try():
            return all(defines(s) for block in blocks(stmt) for s in block)
    return False


def assigns(stmt: ast.stmt) -> bool:
    """Whether a statement only gives or changes what names mean, if perhaps at a cost."""
    match stmt:
        case ast.Assign() | ast.AnnAssign() | ast.AugAssign() | ast.Delete():
            return True
        case ast.Expr():
            return bool(changed(stmt))
        case ast.If() | ast.For() | ast.Try():
            return all(
                assigns(s) or defines(s) or isinstance(s, ast.Raise | ast.Continue | ast.Break)
                for block in blocks(stmt)
                for s in block
            )
        case ast.With():
            reads = all(isinstance(i.context_expr, ast.Call) for i in stmt.items)
            return reads and all(assigns(s) for s in stmt.body)
    return False


def binds(stmt: ast.stmt) -> set[str]:
    """The names a top-level statement gives a value (`cfg` for `cfg.size = 3`)."""
    match stmt:
        case ast.ClassDef() | ast.FunctionDef() | ast.AsyncFunctionDef():
            return {stmt.name}
        case ast.Import() | ast.ImportFrom():
            return {(a.asname or a.name).partition(".")[0] for a in stmt.names}
        case ast.Expr():
            return changed(stmt)
        case ast.Assign() | ast.AnnAssign() | ast.AugAssign():
            targets = stmt.targets if isinstance(stmt, ast.Assign) else [stmt.target]
            return {name for t in targets for name in _bound(t)}
    inner = set().union(*(binds(s) for block in blocks(stmt) for s in block), set())
    if isinstance(stmt, ast.For):
        inner |= _bound(stmt.target)
    if isinstance(stmt, ast.With):
        inner |= {n for i in stmt.items if i.optional_vars for n in _bound(i.optional_vars)}
    return inner


def changed(stmt: ast.stmt) -> set[str]:
    """The names whose value a bare call changes: `sizes` for `sizes.append(3)`."""
    if not isinstance(stmt, ast.Expr) or not isinstance(stmt.value, ast.Call):
        return set()
    call, name = stmt.value, callee(stmt)
    if isinstance(call.func, ast.Attribute) and name in _MUTATORS:
        return {root_name(call.func)} - {""}
    if name.startswith("DEFINE_"):  # absl's flags land in `flags.FLAGS`
        return {"FLAGS", root_name(call.func)} - {""}
    if name.startswith("add_"):  # `add_model_arguments(parser)`
        return set().union(*(names_read(a) for a in call.args), set())
    return set()


def borrows(stmt: ast.stmt, imported: Set[str]) -> bool:
    """Whether a bare call changes what another module owns: `logger.add("train.log")`.

    Filling an imported configuration is what scripts do before they read it.
    """
    if not isinstance(stmt, ast.Expr) or not changed(stmt) <= imported:
        return False
    name = callee(stmt)
    return name not in _CONFIGURES and not name.startswith(("DEFINE_", "add_"))


def aliased(stmt: ast.stmt) -> tuple[str, str] | None:
    """(whole, part) for `group = parser.add_argument_group()`: a change of the part counts."""
    match stmt:
        case ast.Assign(
            targets=[ast.Name(id=part)],
            value=ast.Call(func=ast.Attribute(attr=attr) as func),
        ) if attr.startswith("add_"):
            return root_name(func), part
    return None


def is_costly(stmt: ast.stmt) -> bool:
    """Whether a statement loads data, trains, writes files or asks the network."""
    return any(
        isinstance(n, ast.Await) or (isinstance(n, ast.Call) and _acts(n)) for n in ast.walk(stmt)
    )


def is_harmless(stmt: ast.stmt) -> bool:
    """Whether leaving a statement out changes nothing that is worth telling."""
    if isinstance(stmt, ast.If):
        return all(is_harmless(s) for block in blocks(stmt) for s in block)
    value = getattr(stmt, "value", None)
    if isinstance(value, ast.Call) and called_name(value) in {
        "ArgumentParser",
        "parse_args",
        "parse_known_args",
    }:
        return True
    return callee(stmt) in _HARMLESS or bool(changed(stmt)) or isinstance(stmt, ast.Delete)


def is_text(stmt: ast.stmt) -> bool:
    """Whether a statement is a docstring or another bare constant."""
    return isinstance(stmt, ast.Expr) and isinstance(stmt.value, ast.Constant)


def callee(stmt: ast.stmt) -> str:
    """`f` for the bare call `a.f(...)`."""
    if isinstance(stmt, ast.Expr) and isinstance(stmt.value, ast.Call):
        return called_name(stmt.value) or root_name(stmt.value.func)
    return ""


def _bound(target: ast.expr) -> set[str]:
    if isinstance(target, ast.Tuple | ast.List):
        return set().union(*(_bound(e) for e in target.elts), set())
    return {root_name(target.value if isinstance(target, ast.Starred) else target)} - {""}


def _works(node: ast.AST) -> bool:
    return any(
        isinstance(n, ast.Call | ast.Await | ast.Yield | ast.YieldFrom) for n in ast.walk(node)
    )


def _acts(call: ast.Call) -> bool:
    name = called_name(call)
    if name == "open":
        return _writes(call)
    if name in {"path", "join", "exists", "is_available"}:
        return False
    return (
        name in _COSTLY
        or name.endswith(("DataLoader", "Dataset"))
        or name.startswith(("download", "fetch_", "train_", "save_"))
        or root_name(call.func) in _ACTING
        or any(k.arg == "download" for k in call.keywords)
    )


def _writes(call: ast.Call) -> bool:
    modes = [a for a in call.args[1:2] if isinstance(a, ast.Constant)]
    modes += [
        k.value for k in call.keywords if k.arg == "mode" and isinstance(k.value, ast.Constant)
    ]
    return any(set(str(m.value)) & set("wax+") for m in modes)
