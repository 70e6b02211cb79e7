"""Where the user's own modules are, and how they are imported while a target loads.

`import layers` finds the file beside the target, in the working folder, in the folders above (a
checkout whose root is not on the path, `src/`), as the user's own start of the script would. A
module of the user's is executed without what trains, loads data or writes. A library that is not
installed is replaced by a stand-in, unless the import expects to fail; so is one that the target's
own library imports.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import sys
import types
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from itertools import islice
from pathlib import Path
from types import FrameType
from typing import Any

from ..code.source import Source, is_foreign, parse
from ..errors import is_own_frame
from .slicing import Executed, execute_module, execute_whole
from .stubs import StubLoader, StubModule
from .written import WrittenLoader

_ROOT_FILES = (".git", "pyproject.toml", "setup.py", "setup.cfg", "requirements.txt")
_MOST_FOLDERS_UP = 4
_MOST_ENTRIES = 100
_CATCHES = {"ImportError", "ModuleNotFoundError", "Exception", "BaseException"}


class UserLoader(SourceFileLoader):
    """Executes a module of the user's without what it would do to the world."""

    def __init__(self, name: str, path: str, surroundings: Surroundings) -> None:
        super().__init__(name, path)
        self.surroundings = surroundings

    def exec_module(self, module: types.ModuleType) -> None:
        """Run the module; what was left out is kept in the surroundings."""
        source = parse(Path(self.path))
        if self.surroundings.whole:
            execute_whole(source, module.__dict__)
        else:
            done = execute_module(source, module.__dict__, self.surroundings.own_first)
            self.surroundings.executed[module.__name__] = source, done


class Surroundings(MetaPathFinder):
    """The user's folders, as a finder that is in force while a target loads."""

    def __init__(self, folder: Path, *, whole: bool = False) -> None:
        self.whole = whole
        self.near = list(dict.fromkeys([folder, Path.cwd()]))
        self.above = list(_above(folder))
        self.stubs = StubLoader()
        self.executed: dict[str, tuple[Source, Executed]] = {}
        self.made: set[str] = set()
        self.aliases: set[str] = set()
        self.written: dict[str, WrittenLoader] = {}
        self.library = ""  # whose target it is: its own imports may be stood in for too
        self._path = list(sys.path)
        self._asking = False

    @contextmanager
    def in_force(self) -> Iterator[Surroundings]:
        """Imports look here first; afterwards `sys.modules` is as before."""
        importlib.invalidate_caches()
        hidden = self._hide()
        before = set(sys.modules)
        sys.meta_path.insert(0, self)
        try:
            yield self
        finally:
            if self in sys.meta_path:
                sys.meta_path.remove(self)
            new = [(n, m) for n, m in sys.modules.items() if n not in before]
            bare = any(n.partition(".")[0] == self.library for n in self.made)
            halved = self.library if self.stubs.names or bare else ""  # it lacks what is not there
            for name in [
                n
                for n, m in new
                if n in self.aliases or self._is_ours(m) or n.partition(".")[0] == halved
            ]:
                _forget(name)
            sys.modules.update(hidden)

    def import_module(self, name: str) -> types.ModuleType:
        """Import on the user's behalf."""
        before, self._asking = self._asking, True
        try:
            return importlib.import_module(name)
        finally:
            self._asking = before

    def spec_of(self, name: str) -> ModuleSpec | None:
        """The spec of a module, or None; its packages are imported on the way."""
        before, self._asking = self._asking, True
        try:
            parent = name.rpartition(".")[0]
            path = importlib.import_module(parent).__path__ if parent else None
            there = sys.modules.get(name)
            if there is not None and there.__spec__ is not None:
                return there.__spec__
            return self._inside(name, path) if path is not None else self._top(name, mine=True)
        finally:
            self._asking = before

    def is_free(self, name: str) -> bool:
        """Whether a module name belongs neither to Python nor to an installed library."""
        return name not in sys.modules and self._system(name, None) is None

    def alias(self, name: str, module: types.ModuleType) -> None:
        """Let `import name` give a module, as long as this is in force."""
        self.aliases.add(name)
        sys.modules[name] = module

    @contextmanager
    def own_first(self, name: str, importer: Path) -> Iterator[None]:
        """Inside, a name that Python has too means the user's own module beside the importer.

        Raises the exception that is being handled where there is no such module.
        """
        spec = self._search(name, self._nearest())
        if spec is None or spec.origin in (None, str(importer)) or is_foreign(str(spec.origin)):
            raise
        hidden = {n: m for n, m in sys.modules.items() if n.partition(".")[0] == name}
        for known in hidden:
            del sys.modules[known]
        try:
            yield
        finally:
            for known in [n for n in sys.modules if n.partition(".")[0] == name]:
                del sys.modules[known]
            sys.modules.update(hidden)

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: Any = None
    ) -> ModuleSpec | None:
        """The spec of a module of the user's, or of a stand-in; None leaves it to Python."""
        if name in sys.builtin_module_names:
            return None
        frame, probing = _importer()
        asked = self._asking and (frame is None or is_own_frame(frame.f_code.co_filename))
        mine = asked or (frame is not None and not is_foreign(frame.f_code.co_filename))
        spec = self._inside(name, path) if path is not None else self._top(name, mine)
        near = mine or (self._is_librarys(frame) and name.partition(".")[0] != self.library)
        if spec is not None or asked or not near or probing or _expects_failure(frame):
            return spec
        if self._system(name, path) is not None:
            return None
        package = name.rpartition(".")[0]
        parent = sys.modules.get(package)
        if package in sys.stdlib_module_names:
            return None  # an old Python had it: `from collections import Iterable`
        if parent is None or isinstance(parent, StubModule) or is_foreign(_file(parent)):
            return self.stubs.spec(name)
        return None

    def _is_librarys(self, frame: FrameType | None) -> bool:
        """Whether a module of the target's own package imports."""
        name = "" if frame is None else str(frame.f_globals.get("__name__", ""))
        return self.library != "" and name.partition(".")[0] == self.library

    def _top(self, name: str, mine: bool) -> ModuleSpec | None:
        near = self._search(name, self._nearest()) if mine else None
        if near is not None and near.loader is not None:
            if not _is_in_package(near):
                return near
            # Inside a package `import sklearn` is the library, not the sibling of that name.
            system = self._system(name, None)
            library = system is not None and is_foreign(str(system.origin))
            return system if library else near
        system = self._system(name, None)
        if system is not None and system.loader is not None:
            return system
        found = near or system or self._search(name, [*self._nearest(), *self.above])
        written = self.written.get(name) if found is None else None
        return written.spec(name) if written is not None else found

    def _inside(self, name: str, path: Sequence[str]) -> ModuleSpec | None:
        spec = PathFinder.find_spec(name, list(path))
        parent = sys.modules.get(name.rpartition(".")[0])
        # A library that is installed in place is imported as Python does it.
        return self._user_spec(spec) if parent is not None and self._is_ours(parent) else spec

    def _system(self, name: str, path: Sequence[str] | None) -> ModuleSpec | None:
        for finder in sys.meta_path:
            if isinstance(finder, type(self)):  # ours, or that of a load around this one
                continue
            if (spec := finder.find_spec(name, path)) is not None:
                return spec
        return None

    def _nearest(self) -> list[Path]:
        """The target's folder, the working folder, and what the user put on the path."""
        added = [Path(p) for p in sys.path if p not in self._path]
        return [
            *((self.near[0] / p).resolve() for p in added),
            *self.near,
            *(Path.cwd() / p for p in added),
        ]

    def _search(self, name: str, folders: list[Path]) -> ModuleSpec | None:
        namespace: ModuleSpec | None = None
        for folder in folders:
            spec = PathFinder.find_spec(name, [str(folder)])
            if spec is not None and spec.loader is not None:
                return self._user_spec(spec)
            # A folder of that name counts if it holds code: `wandb/` and `data/` rarely do.
            inside = folder / name
            if spec is not None and namespace is None and _holds_code(inside):
                namespace = ModuleSpec(name, None, is_package=True)
                namespace.submodule_search_locations = [str(inside)]
        return namespace

    def _user_spec(self, spec: ModuleSpec | None) -> ModuleSpec | None:
        origin = spec.origin if spec is not None and spec.has_location else None
        if spec is not None and origin and origin.endswith(".py") and not is_foreign(origin):
            spec.loader = UserLoader(spec.name, origin, self)
        return spec

    def _hide(self) -> dict[str, types.ModuleType]:
        """Take away modules of another project whose names this one's folder has too."""
        names = {p.stem for p in self.near[0].glob("*.py")}
        names |= {p.name for p in self.near[0].iterdir() if p.is_dir()}
        hidden = {}
        for name, module in list(sys.modules.items()):
            file = _file(module)
            if name.partition(".")[0] not in names or is_foreign(file) or not file:
                continue
            if not Path(file).is_relative_to(self.near[0]) and name != "__main__":
                hidden[name] = sys.modules.pop(name)
        return hidden

    def _is_ours(self, module: types.ModuleType) -> bool:
        held = getattr(module, "__dict__", {})
        spec = held.get("__spec__")
        loader = getattr(spec, "loader", None)
        locations = _folders(getattr(spec, "submodule_search_locations", None))
        return (
            isinstance(loader, UserLoader | StubLoader | WrittenLoader)
            or module.__name__ in self.made
            or (held.get("__file__") is None and not _all_foreign(locations))
        )


def _is_in_package(spec: ModuleSpec) -> bool:
    """Whether a module's folder is a package, so that its siblings import it by a longer name."""
    place = Path(str(spec.origin))
    folder = place.parent.parent if place.name == "__init__.py" else place.parent
    return (folder / "__init__.py").is_file()


def _holds_code(folder: Path) -> bool:
    """Whether a folder, or one in it, has Python files; a data set is not searched to its end."""
    inside = [p for p in islice(folder.iterdir(), _MOST_ENTRIES) if p.is_dir()]
    return any(True for f in (folder, *inside) for _ in f.glob("*.py"))


def _above(folder: Path) -> Iterator[Path]:
    """`src/` beside the target and the folders above it, up to the root of the checkout."""
    for up in [folder, *folder.parents][: _MOST_FOLDERS_UP + 1]:
        if up in (Path.home(), Path(up.anchor)):
            return
        yield from (up, up / "src")
        if any((up / name).exists() for name in _ROOT_FILES):
            return


def _importer() -> tuple[FrameType | None, bool]:
    """The frame that imports, and whether it only asks if a module is there."""
    frame: FrameType | None = sys._getframe(2)
    while frame is not None:
        file = frame.f_code.co_filename
        if file == "<frozen importlib.util>" or file == importlib.util.__file__:
            return frame.f_back, True
        if not file.startswith("<frozen importlib") and file != importlib.__file__:
            return frame, False
        frame = frame.f_back
    return None, False


def _expects_failure(frame: FrameType | None) -> bool:
    """Whether the import stands in a `try` that catches its failure."""
    if frame is None:
        return True
    try:
        tree = parse(Path(frame.f_code.co_filename)).tree
    except (OSError, SyntaxError, ValueError):
        return True
    return any(
        _catches(node)
        and any(s.lineno <= frame.f_lineno <= (s.end_lineno or s.lineno) for s in node.body)
        for node in ast.walk(tree)
        if isinstance(node, ast.Try | ast.With)
    )


def _catches(node: ast.Try | ast.With) -> bool:
    if isinstance(node, ast.With):
        return any("suppress" in ast.unparse(i.context_expr) for i in node.items)
    return any(
        h.type is None
        or bool(_CATCHES & {n.id for n in ast.walk(h.type) if isinstance(n, ast.Name)})
        for h in node.handlers
    )


def _forget(name: str) -> None:
    """Remove a module, and the attribute that its parent got for it."""
    module = sys.modules.pop(name)
    parent, _, last = name.rpartition(".")
    if parent in sys.modules and vars(sys.modules[parent]).get(last) is module:
        delattr(sys.modules[parent], last)


def _file(module: Any) -> str:
    held = getattr(module, "__dict__", {})  # a lazy module may raise at what it lacks
    return held.get("__file__") or next(iter(_folders(held.get("__path__"))), "")


def _folders(locations: Any) -> list[str]:
    """The folders of a package; none of one without `__init__.py` whose parent is gone."""
    try:
        return [str(p) for p in locations or ()]
    except (KeyError, TypeError):
        return []


def _all_foreign(locations: Any) -> bool:
    return all(is_foreign(str(p)) for p in locations)
