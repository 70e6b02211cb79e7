"""Stand-ins for libraries that are not installed, until the model really needs one.

A stand-in can be imported, passed on, subscripted and named in an annotation. Calling it,
inheriting from it or iterating over it raises `StubUsed`, which knows what to install. Only
libraries that record or draw may be called: what they return does nothing.
"""

from __future__ import annotations

import importlib.metadata
import re
import sys
import traceback
import types
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from importlib.abc import Loader
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any, NoReturn

import torch

from ..code.scope import Missing
from ..code.source import is_foreign
from ..errors import TargetError, is_own_frame, user_traceback
from .trainerless import LightningModule

_PACKAGES = {
    "absl": "absl-py",
    "attr": "attrs",
    "community": "python-louvain",
    "Bio": "biopython",
    "bs4": "beautifulsoup4",
    "cv2": "opencv-python",
    "dateutil": "python-dateutil",
    "dotenv": "python-dotenv",
    "esm": "fair-esm",
    "faiss": "faiss-cpu",
    "gin": "gin-config",
    "git": "gitpython",
    "hydra": "hydra-core",
    "ignite": "pytorch-ignite",
    "mpl_toolkits": "matplotlib",
    "ot": "pot",
    "PIL": "pillow",
    "pl_bolts": "lightning-bolts",
    "pyro": "pyro-ppl",
    "pytorch_lightning": "pytorch-lightning",
    "skimage": "scikit-image",
    "sklearn": "scikit-learn",
    "sksurv": "scikit-survival",
    "torch_geometric": "torch-geometric",
    "umap": "umap-learn",
    "VTK": "vtk",
    "yaml": "pyyaml",
}
_LOCAL = {
    *"args arguments base common config configs constants custom data dataloader dataset".split(),
    *"datasets decoder encoder helper helpers layer layers lib loss losses model models".split(),
    *"modules network networks nets options ops params settings src train trainer".split(),
    *"trainers util utils vae".split(),
}
# They only record or draw: a call that does nothing changes nothing the model computes.
_TELLING = {
    *"aim clearml comet_ml loguru matplotlib mlflow neptune seaborn swanlab tensorboardX".split(),
    *"tqdm visdom wandb".split(),
}
_TRAINED_BASES = {
    f"{top}.LightningModule"
    for top in (
        "lightning",
        "lightning.pytorch",
        "lightning.pytorch.core",
        "pytorch_lightning",
        "pytorch_lightning.core",
        "pytorch_lightning.core.lightning",
    )
}
_RETURNS_ITS_ARGUMENT = {"tqdm.tqdm", "tqdm.auto.tqdm", "tqdm.notebook.tqdm"}


class StubUsed(ModuleNotFoundError):
    """Something needs a library that is not there."""

    __module__, __qualname__ = "builtins", "ModuleNotFoundError"  # what tracebacks call it

    def __init__(self, path: str, role: str, why: BaseException | None = None) -> None:
        super().__init__(f"`{path}` is needed: {role}", name=path.partition(".")[0])
        self.needed = path
        self.role = role
        self.why = why


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Absent(Missing):
    """A name that was imported from what is not there; `why` is what the import raised."""

    _path: str
    _why: BaseException | None = None

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return Absent(f"{self._path}.{name}", self._why)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:  # noqa: D102
        if self._path in _RETURNS_ITS_ARGUMENT and args:
            return args[0]
        if self._path.partition(".")[0] in _TELLING:
            return _Silent()
        if _is_top_of_a_library(sys._getframe(1)):
            return Absent(self._path, self._why)  # whoever needs what is made there will be told
        self._refuse("called")

    def __mro_entries__(self, bases: tuple[Any, ...]) -> tuple[type, ...]:
        if self._path in _TRAINED_BASES:
            return (LightningModule,)
        self._refuse("the base of a class")

    def __getitem__(self, key: Any) -> Absent:
        return Absent(self._path, self._why)

    def __or__(self, other: Any) -> Absent:
        return self

    __ror__ = __or__

    def __instancecheck__(self, instance: Any) -> bool:
        return False

    __subclasscheck__ = __instancecheck__

    def __iter__(self) -> Iterator[Any]:
        self._refuse("iterated over")

    def __enter__(self) -> NoReturn:
        self._refuse("entered with `with`")

    def __exit__(self, *_: object) -> None:
        pass

    def __lt__(self, other: Any) -> bool:
        self._refuse("compared")

    __gt__ = __le__ = __ge__ = __lt__

    def __add__(self, other: Any) -> NoReturn:
        self._refuse("calculated with")

    __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __truediv__ = __rtruediv__ = __add__
    __matmul__ = __rmatmul__ = __pow__ = __neg__ = __int__ = __float__ = __index__ = __add__

    def __repr__(self) -> str:
        return f"<{self._path}, which is not installed>"

    def _refuse(self, role: str) -> NoReturn:
        frame = next(_user_lines(), None)
        raise StubUsed(self._path, f"{role}{frame or ''}", self._why)


class _Silent:
    """What a library that only records returns: everything can be done with it, to no effect."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return self

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def __iter__(self) -> Iterator[Any]:
        return iter((self, self))  # `fig, ax = plt.subplots()`

    def __getitem__(self, key: Any) -> Any:
        return self

    def __setitem__(self, key: Any, value: Any) -> None:
        pass


class StubModule(types.ModuleType):
    """A module that is not there: every public name in it is `Absent`."""

    __path__: list[str]

    def __getattr__(self, name: str) -> Any:
        if name == "__version__":
            return "0"
        if name.startswith("__"):
            raise AttributeError(name)
        if name.lower() == "device" and self.__name__.partition(".")[0] in _LOCAL:
            return torch.device("cpu")
        return Absent(f"{self.__name__}.{name}")

    def __call__(self, *args: Any, **kwargs: Any) -> Any:  # noqa: D102
        return Absent(self.__name__)(*args, **kwargs)

    def __mro_entries__(self, bases: tuple[Any, ...]) -> tuple[type, ...]:
        return Absent(self.__name__).__mro_entries__(bases)

    def __instancecheck__(self, instance: Any) -> bool:
        return False

    __subclasscheck__ = __instancecheck__


class StubLoader(Loader):
    """Makes stand-in modules, and remembers for which libraries."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def spec(self, name: str) -> ModuleSpec:
        """The spec of a stand-in; a submodule of one is one."""
        return ModuleSpec(name, self, is_package=True)

    def create_module(self, spec: ModuleSpec) -> types.ModuleType:
        """An empty stand-in."""
        return StubModule(spec.name)

    def exec_module(self, module: types.ModuleType) -> None:
        """Nothing to execute."""
        top = module.__name__.partition(".")[0]
        parent = sys.modules.get(top)
        name = top if parent is None or isinstance(parent, StubModule) else module.__name__
        if name not in self.names:
            self.names.append(name)

    def note(self) -> str | None:
        """What was replaced, as a note for the report."""
        if not self.names:
            return None
        whole = [n for n in self.names if "." not in n]
        be, them = ("is", "it") if len(whole) == 1 else ("are", "them")
        named = ", ".join(_named(n) for n in whole)
        said = f"{named} {be} not installed: stubbed"
        said += f"; install {them} if the model needs {them}"
        parts = [n for n in self.names if "." in n]
        lacked = f"{_listed(parts)}, which the installed libraries lack: stubbed"
        return "; ".join(([said] if whole else []) + ([lacked] if parts else []))


def _named(name: str) -> str:
    """A library, with what to install where that is called otherwise: `cv2` (`opencv-python`)."""
    package = distribution_of(name)
    return f"`{name}`" if package == name else f"`{name}` (`{package}`)"


def _listed(names: list[str]) -> str:
    return ", ".join(f"`{n}`" for n in names)


def explain(used: StubUsed) -> TargetError:
    """Which name was needed, where, and the command that provides it."""
    while isinstance(used.why, StubUsed):  # a class of a sibling that needs one itself
        used = used.why
    top = used.needed.partition(".")[0]
    if used.why is not None:
        return TargetError(
            f"`{used.needed}` is {used.role}, but its import raised "
            f"{type(used.why).__name__}: {used.why}",
            traceback=user_traceback(used.why),
            next_step=f"correct {_place_of(used.why)}",
        )
    if top in _LOCAL:
        return TargetError(
            f"`{used.needed}` is {used.role}, but `{top}` is neither near the file nor installed",
            traceback=user_traceback(used),
            next_step=f"PYTHONPATH=FOLDER vaedoctor check …   (the folder that holds `{top}`)",
        )
    installed = sys.modules.get(top)
    if installed is not None and not isinstance(installed, StubModule):
        version = getattr(installed, "__version__", "")
        return TargetError(
            f"`{used.needed}` is {used.role}, but the installed `{top}` {version} does not have it",
            traceback=user_traceback(used),
            next_step=f"import what `{top}` {version} has instead, or install the version you use",
        )
    return TargetError(
        f"`{used.needed}` is {used.role}, but `{top}` is not installed",
        traceback=user_traceback(used),
        next_step=f"python -m pip install {distribution_of(top)}   "
        "(into the environment vaedoctor runs in)",
    )


def _place_of(error: BaseException) -> str:
    """`line 3 of layers.py`: where an import raised."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"line {error.lineno} of {Path(error.filename).name}"
    shown = traceback.extract_tb(error.__traceback__)
    for frame in reversed([f for f in shown if not is_own_frame(f.filename)]):
        return f"line {frame.lineno} of {Path(frame.filename).name}"
    return "the import"


def distribution_of(name: str) -> str:
    """What to install for an import name: `scikit-learn` for `sklearn`.

    What is not known may be asked for by a library that is installed: `plum-dispatch` for `plum`.
    """
    return _PACKAGES.get(name) or _required_as(name)


@lru_cache
def _required_as(name: str) -> str:
    """The one requirement of installed libraries that has a name as one of its words."""
    bare, found = name.lower().replace("_", "-"), set[str]()
    for one in importlib.metadata.distributions():
        for asked in one.requires or ():
            needed = re.split(r"[^\w.-]", asked, maxsplit=1)[0].lower().replace("_", "-")
            if needed == bare:
                return name
            if bare in needed.split("-"):
                found.add(needed)
    return found.pop() if len(found) == 1 else name


def _is_top_of_a_library(frame: types.FrameType) -> bool:
    """Whether a library runs a statement because it is imported, not because it is used."""
    return frame.f_code.co_name == "<module>" and is_foreign(frame.f_code.co_filename)


def _user_lines() -> Iterator[str]:
    """` in line 12 of model.py`, for the frames that are not ours, innermost first."""
    frame = sys._getframe(2)
    while frame is not None:
        if not is_own_frame(frame.f_code.co_filename):
            yield f" in line {frame.f_lineno} of {frame.f_code.co_filename.rpartition('/')[2]}"
        frame = frame.f_back  # type: ignore[assignment]
