"""From `file.py`, `notebook.ipynb` or `pkg.module` to a loaded module, without what it would do."""

from __future__ import annotations

import copy
import itertools
import sys
import types
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ...notebook import is_notebook
from ...spelling import closest
from ..code import cuda
from ..code.source import Source, is_foreign, read
from ..code.syntax import is_main_guard
from ..errors import TargetError, summary, user_traceback
from ..trials.switches import generators_restored, seed_everything
from .packages import enter_packages, package_of, past_its_packages
from .slicing import Executed, execute, execute_whole
from .stubs import StubUsed, distribution_of, explain
from .surroundings import Surroundings
from .written import written_modules

_NUMBERS = itertools.count(1)
_INTO = "into the environment vaedoctor runs in"
_SUFFIXES = (".py", ".ipynb", ".pyw")


@dataclass(frozen=True, slots=True)
class Loaded:
    """A loaded module, its source (None without a readable file), and how it was executed."""

    module: types.ModuleType
    source: Source | None
    executed: Executed = field(default_factory=Executed)
    whole: bool = False
    notes: tuple[str, ...] = ()

    @property
    def namespace(self) -> dict[str, Any]:
        """The module's names."""
        return self.module.__dict__

    def said(self) -> tuple[str, ...]:
        """How the file was loaded, as notes for the report."""
        notes: list[str] = []
        line = self.executed.left_out
        if self.whole and self.source is not None:
            guarded = any(is_main_guard(s) for s in self.source.tree.body)
            but = ' except what stands under `if __name__ == "__main__"`' if guarded else ""
            notes.append(f"ran the whole file (`--exec`){but}")
        elif line is not None and self.source is not None:
            where = self.source.line(line)
            notes.append(f"loaded definitions only: {where} would run code on import")
        own = self.source.notes if self.source is not None else ()
        return (*notes, *own, *self.notes, *self.executed.notes)


def is_file(place: str) -> bool:
    """Whether the part of a target before the colon is a file rather than a module."""
    return place.endswith(_SUFFIXES)


def load_file(
    path: Path,
    surroundings: Surroundings,
    wanted: Iterable[str] = (),
    seed: int = 0,
    *,
    whole: bool = False,
    name: str = "",
) -> Loaded:
    """Execute a file's definitions, or all of it, as a module.

    A file outside packages gets a unique name and is kept in `sys.modules`; one inside a package
    gets its right name there, so that its relative imports work, as long as the target loads.
    """
    source = read(path)
    if cuda.is_missing() and any(d in source.text for d in ("cuda", "mps", "xpu")):
        source = _without_gpu(source)
    if is_notebook(path.name):
        surroundings.written |= written_modules(path)
    with generators_restored(), cuda.moves_ignored():
        seed_everything(seed)
        package, notes = enter_packages(surroundings, path, package_of(path, source.tree))
        name = name or (f"{package}.{path.stem}" if package else "")
        known = surroundings.executed.get(name)
        if known is not None and name in sys.modules and not whole:  # its package imports it
            return Loaded(sys.modules[name], source, known[1], notes=tuple(notes))
        module = _new_module(path, name, package, surroundings)
        if not whole:
            done = execute(source, module.__dict__, wanted, surroundings.own_first)
            return Loaded(module, source, done, notes=tuple(notes))
        try:
            execute_whole(source, module.__dict__)
        except KeyboardInterrupt:
            raise
        except SystemExit as end:
            if end.code not in (None, 0):
                raise stopped(source, end, None) from None
        except BaseException as error:
            raise stopped(source, error, None) from None
    return Loaded(module, source, Executed(), whole=True, notes=tuple(notes))


def load_module(
    name: str,
    surroundings: Surroundings,
    wanted: Iterable[str] = (),
    seed: int = 0,
    *,
    whole: bool = False,
) -> Loaded:
    """Load a module by its dotted name: the user's own like a file, a library's by importing it."""
    surroundings.library = name.partition(".")[0]
    try:
        with generators_restored():
            origin = _origin(name, surroundings)
            own = origin is not None and not is_foreign(str(origin))
            if origin is not None and own and origin.name != "__init__.py":
                return load_file(origin, surroundings, wanted, seed, whole=whole, name=name)
            module = surroundings.import_module(name)
    except (KeyboardInterrupt, TargetError):
        raise
    except BaseException as error:
        missing = isinstance(error, ModuleNotFoundError) and error.name is not None
        if missing and f"{name}.".startswith(f"{error.name}."):  # type: ignore[attr-defined]
            raise _no_module(name) from None
        with generators_restored():
            found = past_its_packages(surroundings, name)
        if found is None:
            raise stopped(Path(f"{name.replace('.', '/')}.py"), error, None, name) from None
        return Loaded(found[0], None, Executed(), notes=tuple(found[1]))
    source = read(origin) if origin is not None and own else None
    known = surroundings.executed.get(name)
    return Loaded(module, source, known[1] if known is not None else Executed())


def existing(path: Path, name: str) -> Path:
    """The file, or a `TargetError` that proposes the sibling that was probably meant."""
    resolved = path.expanduser().resolve()
    if resolved.is_file():
        return resolved
    suffix = f":{name}" if name else ""
    if resolved.is_dir():
        inside = sorted(p.name for p in _files(resolved))[:8]
        example = path / inside[0] if inside else path / "model.py"
        raise TargetError(
            f"`{path}` is a folder, not a file", next_step=f"vaedoctor check {example}{suffix}"
        )
    folder = resolved.parent
    siblings = sorted(p.name for p in _files(folder))
    stem = closest(path.stem, [Path(s).stem for s in siblings])
    close = next((s for s in siblings if Path(s).stem == stem), None)
    if close:
        proposal = f"vaedoctor check {path.parent / close}{suffix}"
    elif siblings:
        shown = ", ".join(f"`{s}`" for s in siblings[:8])
        proposal = f"the folder has {shown}: vaedoctor check {siblings[0]}"
    else:
        proposal = f"vaedoctor check path/to/{path.name}{suffix}"
    raise TargetError(
        f"`{path}` does not exist" + (f"; did you mean `{close}`?" if close else ""),
        next_step=proposal,
    )


def stopped(
    file: Source | Path, error: BaseException, line: int | None, module: str = ""
) -> TargetError:
    """What is said when loading cannot go on because a statement raised.

    `module` is the name that was imported, of a library.
    """
    if isinstance(error, StubUsed):
        return explain(error)
    path = file.path if isinstance(file, Source) else file
    at = file.line(line) if isinstance(file, Source) and line else f"line {line}" if line else ""
    where = f"{at} of {path.name}" if at else path.name
    step = f"correct {where}, `python {path.name}` shows the same error"
    if module:
        step = f'`python -c "import {module}"` shows the same error'
    if isinstance(error, ModuleNotFoundError) and error.name:
        top, inside, _ = error.name.partition(".")
        step = f"python -m pip install {distribution_of(top)}   ({_INTO})"
        if inside and top in sys.modules:
            step = f"install a version of `{distribution_of(top)}` that has `{error.name}`, {_INTO}"
    elif isinstance(error, SystemExit):
        step = f'move what ends the program in {where} under `if __name__ == "__main__":`'
    said = f"`{module}` raised {summary(error)} while it was imported"
    return TargetError(
        said if module else f"`{path.name}` raised {summary(error)} while it was loaded",
        traceback=user_traceback(error),
        next_step=step,
    )


def _without_gpu(source: Source) -> Source:
    tree = copy.deepcopy(source.tree)  # the source is shared
    lines = cuda.read_as_cpu(tree)
    notes = source.notes
    if lines:
        more = f" and {len(lines) - 1} more" if len(lines) > 1 else ""
        where = f"{source.line(lines[0])}{more}"
        notes += (f"the device in {where} is read as `cpu`: the check runs on the CPU",)
    return replace(source, tree=tree, notes=notes)


def _new_module(
    path: Path, name: str, package: str, surroundings: Surroundings
) -> types.ModuleType:
    module = types.ModuleType(name or f"{path.stem}__vaedoctor{next(_NUMBERS)}")
    module.__file__ = str(path)
    module.__package__ = package
    sys.modules[module.__name__] = module
    if name:
        surroundings.made.add(name)
        parent, _, last = name.rpartition(".")
        if parent in sys.modules:
            setattr(sys.modules[parent], last, module)
    elif path.stem.isidentifier() and surroundings.is_free(path.stem):
        # A sibling that imports the target back gets this very module.
        surroundings.alias(path.stem, module)
    return module


def _origin(name: str, surroundings: Surroundings) -> Path | None:
    """The file of a module; its packages are imported on the way."""
    spec = surroundings.spec_of(name)
    if spec is None or not spec.has_location or not str(spec.origin).endswith(".py"):
        return None
    return Path(str(spec.origin)).resolve()


def _files(folder: Path) -> list[Path]:
    return [p for p in folder.glob("*") if p.suffix in _SUFFIXES] if folder.is_dir() else []


def _no_module(name: str) -> TargetError:
    as_file = Path(*name.split(".")).with_suffix(".py")
    siblings = [p.stem for p in Path.cwd().glob("*.py")] + [
        p.parent.name for p in Path.cwd().glob("*/__init__.py")
    ]
    close = closest(name.partition(".")[0], siblings)
    step = f"vaedoctor check {as_file}:VAE   (a path, when it is a file)"
    if close:
        step = f"vaedoctor check {'.'.join([close, *name.split('.')[1:]])}:VAE"
    return TargetError(
        f"there is no module `{name}`" + (f"; did you mean `{close}`?" if close else ""),
        next_step=step,
    )
