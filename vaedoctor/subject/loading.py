"""From `file.py` or `pkg.module` to a loaded module, without running what a script would do."""

from __future__ import annotations

import importlib
import itertools
import sys
import types
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..spelling import closest
from .errors import TargetError, summary, user_traceback
from .slicing import Stopped, execute
from .source import Source, read
from .trace import generators_restored, seed_everything

_NUMBERS = itertools.count(1)


@dataclass(frozen=True, slots=True)
class Loaded:
    """A loaded module, its syntax tree (None without a readable file), and what was left out."""

    module: types.ModuleType
    source: Source | None
    left_out: int | None = None

    @property
    def namespace(self) -> dict[str, Any]:
        """The module's names."""
        return self.module.__dict__


@contextmanager
def as_a_script(folder: Path, argv: str) -> Iterator[None]:
    """The folder first on `sys.path`, no arguments, and no bytecode beside the user's files."""
    before = sys.dont_write_bytecode, sys.argv
    entry = str(folder)
    sys.path.insert(0, entry)
    sys.dont_write_bytecode, sys.argv = True, [argv]
    try:
        yield
    finally:
        sys.dont_write_bytecode, sys.argv = before
        if entry in sys.path:
            sys.path.remove(entry)


def load_file(path: Path, wanted: Iterable[str] = (), seed: int = 0) -> Loaded:
    """Execute a file's definitions as a module with a unique name, kept in `sys.modules`."""
    source = read(path)
    module = types.ModuleType(f"{path.stem}__vaedoctor{next(_NUMBERS)}")
    module.__file__ = str(path)
    module.__package__ = _package_of(path)
    sys.modules[module.__name__] = module
    with generators_restored():
        seed_everything(seed)
        try:
            left_out = execute(source, module.__dict__, wanted)
        except Stopped as stopped:
            raise _stopped(path, stopped.error, stopped.line) from None
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            raise _stopped(path, error, None) from None
    return Loaded(module, source, left_out)


def load_module(name: str) -> Loaded:
    """Import a module the ordinary way."""
    try:
        with generators_restored():
            module = importlib.import_module(name)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        missing = isinstance(error, ModuleNotFoundError) and error.name is not None
        if missing and f"{name}.".startswith(f"{error.name}."):  # type: ignore[attr-defined]
            raise _no_module(name) from None
        file = Path(f"{name.replace('.', '/')}.py")
        raise _stopped(file, error, None) from None
    file_name = getattr(module, "__file__", None)
    source = None
    if file_name and Path(file_name).suffix == ".py" and "-packages" not in file_name:
        source = read(Path(file_name))
    return Loaded(module, source)


def existing(path: Path, name: str) -> Path:
    """The file, or a `TargetError` that proposes the sibling that was probably meant."""
    resolved = path.expanduser().resolve()
    if resolved.is_file():
        return resolved
    suffix = f":{name}" if name else ""
    if resolved.is_dir():
        inside = sorted(p.name for p in resolved.glob("*.py"))[:8]
        example = path / inside[0] if inside else path / "model.py"
        raise TargetError(
            f"`{path}` is a folder, not a file", next_step=f"vaedoctor check {example}{suffix}"
        )
    folder = resolved.parent
    siblings = [p.name for p in folder.glob("*.py")] if folder.is_dir() else []
    stem = closest(path.stem, [Path(s).stem for s in siblings])
    close = f"{stem}.py" if stem else None
    if close:
        proposal = f"vaedoctor check {path.parent / close}{suffix}"
    elif siblings:
        shown = ", ".join(f"`{s}`" for s in sorted(siblings)[:8])
        proposal = f"the folder has {shown}: vaedoctor check {sorted(siblings)[0]}"
    else:
        proposal = f"vaedoctor check path/to/{path.name}{suffix}"
    raise TargetError(
        f"`{path}` does not exist" + (f"; did you mean `{close}`?" if close else ""),
        next_step=proposal,
    )


def _package_of(path: Path) -> str:
    """The package a file belongs to, importable from then on, so that relative imports work."""
    folder, parts = path.parent, list[str]()
    while (folder / "__init__.py").is_file():
        parts.insert(0, folder.name)
        folder = folder.parent
    if parts and str(folder) not in sys.path:
        sys.path.append(str(folder))
    return ".".join(parts)


def _stopped(path: Path, error: BaseException, line: int | None) -> TargetError:
    where = f"line {line} of {path.name}" if line else path.name
    step = f"correct {where}, `python {path.name}` shows the same error"
    if isinstance(error, ModuleNotFoundError) and error.name:
        top = error.name.partition(".")[0]
        step = f"python -m pip install {top}   (into the environment vaedoctor runs in)"
    elif isinstance(error, SystemExit):
        step = f'move what ends the program in {where} under `if __name__ == "__main__":`'
    return TargetError(
        f"`{path.name}` raised {summary(error)} while it was loaded",
        traceback=user_traceback(error),
        next_step=step,
    )


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
