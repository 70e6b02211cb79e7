"""What a file imports is found where its user would find it, or stood in for and said."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from texts import IMPORTS
from texts import VAE as MODEL

from vaedoctor.subject.errors import TargetError
from vaedoctor.subject.loading.stubs import _PACKAGES, distribution_of
from vaedoctor.subject.loading.surroundings import _file
from vaedoctor.subject.target import load

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Write files below an empty working folder; returns the first of them."""
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")

    def written(**files: str) -> Path:
        for name, text in files.items():
            path = tmp_path / "work" / f"{name.replace('__', '/').replace('/init', '/__init__')}.py"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(textwrap.dedent(text))
        return tmp_path / "work" / f"{next(iter(files)).replace('__', '/')}.py"

    return written


def width(target: object, **options: object) -> int:
    """The width of the input that the model takes."""
    subject = load(str(target), **options)
    assert subject.batch.ran
    return int(subject.batch.args[0].shape[1])


def refusal(target: object) -> TargetError:
    with pytest.raises(TargetError) as caught:
        load(str(target))
    assert len(caught.value.format_message().splitlines()) < 20
    assert "vaedoctor/subject" not in caught.value.traceback
    return caught.value


class TestStandIns:
    def test_a_library_the_model_does_not_need_is_said(self, write: Write) -> None:
        file = write(m="import wandb_\nfrom seaborn_.x import y as z\n" + IMPORTS + MODEL)
        notes = load(str(file)).notes
        assert (
            "`wandb_`, `seaborn_` are not installed: stubbed; "
            "install them if the model needs them" in notes
        )
        assert not {"wandb_", "seaborn_", "seaborn_.x"} & set(sys.modules)

    @pytest.mark.parametrize(
        ("imported", "old", "new", "needed", "line"),
        [
            (
                "import pl_ as pl",
                "(nn.Module)",
                "(pl.Module)",
                "pl_.Module",
                "the base of a class in line 4",
            ),
            (
                "from deco_ import f",
                "    def forward",
                "    @f\n    def forward",
                "deco_.f",
                "called in line 9",
            ),
            (
                "import tim_.nn as t",
                "nn.Linear(z, d)",
                "t.Dense(z, d)",
                "tim_.nn.Dense",
                "called in line 7",
            ),
            ("from ein_ import r", "self.e(x)", "self.e(r(x))", "ein_.r", "called in line 10"),
            (
                "from ops_ import SIZE",
                "d=20",
                "d=SIZE + 1",
                "ops_.SIZE",
                "calculated with in line 5",
            ),
            ("from ops_ import *", "nn.Linear(z, d)", "Den(z, d)", "ops_.Den", "called"),
        ],
    )
    def test_a_library_the_model_needs_is_named_with_the_place_and_the_command(
        self, write: Write, imported: str, old: str, new: str, needed: str, line: str
    ) -> None:
        error = refusal(write(m=IMPORTS + imported + MODEL.replace(old, new)))
        top = needed.partition(".")[0]
        assert error.message.startswith(f"`{needed}` is {line}")
        assert error.message.endswith(f"`{top}` is not installed")
        assert error.next_step.startswith(f"python -m pip install {top} ")

    def test_what_looks_like_a_file_of_the_users_own_is_not_to_be_installed(
        self, write: Write
    ) -> None:
        text = (
            IMPORTS + "from layers import Dense" + MODEL.replace("nn.Linear(z, d)", "Dense(z, d)")
        )
        error = refusal(write(m=text))
        assert "`layers` is neither near the file nor installed" in error.message
        assert "pip" not in error.next_step

    def test_the_package_is_named_as_the_index_names_it(self) -> None:
        known = ("sklearn", "cv2", "PIL", "yaml", "pytorch_lightning", "einops")
        assert [distribution_of(n) for n in known] == [
            *("scikit-learn", "opencv-python", "pillow", "pyyaml", "pytorch-lightning", "einops")
        ]

    def test_the_note_names_the_package_as_well(
        self, write: Write, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(_PACKAGES, "rare_", "the-rare")
        target = str(write(m=f"{IMPORTS}import rare_\n{MODEL}"))
        assert any("`rare_` (`the-rare`) is not installed" in n for n in load(target).notes)

    def test_an_import_that_may_fail_fails(self, write: Write) -> None:
        text = """
        import importlib.util, contextlib
        try:
            import fast_
        except ImportError:
            fast_ = None
        with contextlib.suppress(ImportError):
            import faster_
        HAS = importlib.util.find_spec("fastest_") is not None
        SIZE = 20 if fast_ is None and not HAS and "faster_" not in globals() else 3
        """
        file = write(m=textwrap.dedent(text) + IMPORTS + MODEL.replace("d=20", "d=SIZE"))
        assert width(file) == 20
        assert not any("stubbed" in n for n in load(str(file)).notes)

    def test_a_name_that_an_installed_library_no_longer_has_is_said(self, write: Write) -> None:
        text = "from torch._six import inf\nfrom math import nothing\n" + IMPORTS + MODEL
        notes = " ".join(load(str(write(m=text))).notes)
        assert "`torch._six`, which the installed libraries lack: stubbed" in notes
        assert "`from math import nothing` in line 2 raised ImportError" in notes
        import torch

        assert not hasattr(torch, "_six")

    def test_what_python_moved_out_of_collections_is_taken_from_where_it_is(
        self, write: Write
    ) -> None:
        text = "from collections import Iterable, OrderedDict\n" + IMPORTS + MODEL
        text += "        assert not isinstance(3, Iterable) and isinstance([], Iterable)\n"
        text = text.replace("self.e,", "self.held = OrderedDict()\n        self.e,")
        subject = load(str(write(m=text)))
        assert subject.batch.ran
        said = "`collections` has lost names of line 1: `collections.abc.Iterable` instead"
        assert said in " ".join(subject.notes)

    def test_nothing_is_an_instance_of_what_a_library_lacks(self, write: Write) -> None:
        text = "from torch import Held\n" + IMPORTS + MODEL
        text = text.replace("self.e,", "assert not isinstance(d, Held)\n        self.e,")
        assert width(write(m=text)) == 20

    def test_a_library_finds_no_stand_ins(self, write: Write, tmp_path: Path) -> None:
        package = tmp_path / "site-packages" / "lib_"
        package.mkdir(parents=True)
        (package / "__init__.py").write_text(
            "try:\n    import rare_\nexcept Exception:\n    rare_ = None\n"
        )
        text = f"import sys\nsys.path.append({str(package.parent)!r})\nfrom lib_ import rare_\n"
        text += "SIZE = 20 if rare_ is None else 3\n"
        assert width(write(m=text + IMPORTS + MODEL.replace("d=20", "d=SIZE"))) == 20
        sys.modules.pop("lib_")

    def test_what_a_library_leaves_out_without_another_one_is_said(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        package = tmp_path / "site-packages" / "left_out_"
        package.mkdir(parents=True)
        (package / "__init__.py").write_text(
            "from importlib.util import find_spec\nfrom torch import nn\n"
            "if find_spec('rare_'):\n    from rare_ import Config\n"
            "class VAE(nn.Module):\n    def __init__(self):\n"
            "        super().__init__()\n        self.config = Config()\n"
        )
        monkeypatch.syspath_prepend(str(package.parent))
        error = refusal("left_out_:VAE")
        sys.modules.pop("left_out_")
        assert error.message.endswith("in line 8 of `left_out_`, but `rare_` is not installed")
        assert error.next_step.startswith("python -m pip install rare_")

    def test_the_users_own_broken_module_is_shown(self, write: Write) -> None:
        text = (
            IMPORTS + "from blocks import Dense" + MODEL.replace("nn.Linear(z, d)", "Dense(z, d)")
        )
        error = refusal(write(m=text, blocks="import torch\nx = 1 / 0\n"))
        assert "its import raised ZeroDivisionError" in error.message
        assert error.next_step == "correct line 2 of blocks.py"
        (Path.cwd() / "blocks.py").write_text("import torch\ndef f(:\n")
        error = refusal("m.py")
        assert "SyntaxError" in error.message
        assert error.next_step == "correct line 2 of blocks.py"


class TestPackages:
    def library(self, write: Write) -> None:
        write(
            lib__init="from .models.vae import VAE\n",
            lib__models__init="",
            lib__models__layers="from torch import nn\nfrom .. import sizes\nLinear = nn.Linear\n",
            lib__sizes="SIZE = 23\ndef back():\n    from .models import vae\n    return vae\n",
            lib__models__late="scale = 1.0\n",
            lib__models__vae=IMPORTS
            + "from .layers import Linear\nfrom ..sizes import SIZE\nimport lib.sizes\n"
            + MODEL.replace("d=20", "d=SIZE").replace(
                "        return", "        from .late import scale\n        return"
            ),
        )

    @pytest.mark.parametrize(
        "target",
        [
            *("lib.models.vae:VAE", "lib:VAE", "lib.models.vae", "lib/models/vae.py:VAE"),
            *("lib/models/vae.py", "lib/__init__.py:VAE"),
        ],
    )
    def test_relative_imports_hold_by_module_and_by_file(self, write: Write, target: str) -> None:
        self.library(write)
        assert width(target) == 23
        assert not any(n == "lib" or n.startswith("lib.") for n in sys.modules)

    def test_from_another_folder_too(
        self, write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.library(write)
        monkeypatch.chdir(tmp_path)
        assert width("work/lib/models/vae.py") == 23

    def test_relative_imports_without_init_files(self, write: Write) -> None:
        use = IMPORTS + "from .layers import SIZE\nfrom ..shared import ONE\n"
        file = write(
            exp__nets__vae=use + MODEL.replace("d=20", "d=SIZE + ONE"),
            exp__nets__layers="from ..shared import ONE\nSIZE = 20 * ONE\n",
            exp__shared="ONE = 1\n",
        )
        assert width(file) == 21

    def test_folders_above_and_src_are_searched(self, write: Write) -> None:
        text = "from common.sizes import SIZE\nfrom mylib import ONE\n" + IMPORTS
        file = write(
            scripts__deep__train=text + MODEL.replace("d=20", "d=SIZE + ONE"),
            common__sizes="SIZE = 24\n",
            src__mylib__init="ONE = 1\n",
        )
        assert width(file) == 25

    @pytest.mark.parametrize(
        "line",
        [
            "sys.path.append('..')",
            "sys.path.insert(0, os.path.join(os.path.dirname(__file__), '..'))",
            "sys.path += [str(Path(__file__).resolve().parents[1])]",
            "root = os.path.abspath('..')\nif root not in sys.path:\n    sys.path.append(root)",
        ],
    )
    def test_the_path_idioms_of_scripts(self, write: Write, line: str) -> None:
        text = (
            f"import os, sys\nfrom pathlib import Path\n{line}\nfrom helpers_of_mine import SIZE\n"
        )
        file = write(
            run__main=text + IMPORTS + MODEL.replace("d=20", "d=SIZE"),
            helpers_of_mine="SIZE = 27\n",
        )
        path = list(sys.path)
        assert width(file) == 27
        assert sys.path == path

    def test_two_files_of_one_name_do_not_meet(self, write: Write) -> None:
        text = "from utils import SIZE\n" + IMPORTS + MODEL.replace("d=20", "d=SIZE")
        write(a__model=text, a__utils="SIZE = 31\n", b__model=text, b__utils="SIZE = 32\n")
        assert [width(f) for f in ("a/model.py", "b/model.py", "a/model.py")] == [31, 32, 31]
        assert "utils" not in sys.modules

    def test_files_named_like_libraries_shadow_them_for_the_user_alone(self, write: Write) -> None:
        """`python model.py` would break here; a check does not."""
        use = "from statistics import SIZE\nimport wandb_\n" + IMPORTS
        file = write(
            model=use + MODEL.replace("d=20", "d=SIZE"),
            statistics="SIZE = 33\n",
            random="raise RuntimeError('not the library')\n",
            typing="raise RuntimeError('not the library')\n",
        )
        (file.parent / "wandb_" / "run-1").mkdir(parents=True)
        (file.parent / "wandb_" / "run-1" / "config.yaml").write_text("x: 1\n")
        done = subprocess.run(
            [sys.executable, "-m", "vaedoctor", "check", str(file)],
            cwd="/",
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
            capture_output=True,
            encoding="utf-8",
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert "batch 8×33" in done.stdout
        assert "`wandb_` is not installed" in done.stdout

    def test_circular_imports_end(self, write: Write) -> None:
        file = write(
            model="import helper\n" + IMPORTS + MODEL,
            helper="import model\n\ndef build():\n    return model.VAE()\n",
        )
        assert width(file) == 20
        assert width(f"{file}:helper.build") == 20

    def test_a_sibling_is_imported_without_what_it_would_do(self, write: Write) -> None:
        data = """
        import os
        import visionlib_
        from torch.utils.data import DataLoader
        os.makedirs("data", exist_ok=True)
        train = DataLoader(visionlib_.MNIST("data", download=True), 32)
        batches = len(train)
        NAMES = []
        for name in ("a", "b"):
            NAMES.append(name)
        def loaders():
            return train
        """
        text = (
            "from data import loaders, NAMES\n"
            + IMPORTS
            + MODEL.replace("d=20", "d=10 * len(NAMES)")
        )
        file = write(model=text, data=data)
        before = sorted(p.name for p in file.parent.rglob("*"))
        assert width(file) == 20
        assert sorted(p.name for p in file.parent.rglob("*")) == before

    def test_a_package_that_cannot_be_imported_is_left_out_and_said(self, write: Write) -> None:
        file = write(
            lib__vae=IMPORTS + "from .sizes import SIZE\n" + MODEL.replace("d=20", "d=SIZE"),
            lib__init="raise OSError('no licence')\n",
            lib__sizes="SIZE = 28\n",
        )
        subject = load(str(file))
        assert subject.batch.args[0].shape[1] == 28
        assert "`lib/__init__.py` raised OSError: no licence: left out" in subject.notes


def test_packages_without_init_leave_in_any_order(tmp_path: Path, monkeypatch: Any) -> None:
    (tmp_path / "outer" / "inner").mkdir(parents=True)
    monkeypatch.syspath_prepend(tmp_path)
    inner = importlib.import_module("outer.inner")
    assert _file(inner) == str(tmp_path / "outer" / "inner")
    for name in ("outer", "outer.inner"):
        monkeypatch.delitem(sys.modules, name)
    assert _file(inner) == ""


@pytest.mark.parametrize("packaged", [True, False])
def test_inside_a_package_a_library_is_not_the_sibling_of_its_name(
    tmp_path: Path, monkeypatch: Any, packaged: bool
) -> None:
    monkeypatch.delitem(sys.modules, "colorsys", raising=False)
    package = tmp_path / "mine"
    package.mkdir()
    if packaged:
        (package / "__init__.py").write_text("from mine.colorsys import Wrapper\n")
    needs = "from mine.net import VAE\n" if packaged else "rgb_to_hsv = 'its own'\n"
    (package / "colorsys.py").write_text(f"{needs}class Wrapper:\n    pass\n")
    body = MODEL.replace("super().__init__()", "super().__init__(); self.turn = rgb_to_hsv")
    (package / "net.py").write_text(f"{IMPORTS}from colorsys import rgb_to_hsv{body}")
    turn: Any = load(f"{package / 'net.py'}:VAE").model.turn
    assert (turn(0.0, 0.0, 0.0) == (0.0, 0.0, 0.0)) if packaged else (turn == "its own")


def test_what_a_librarys_own_modules_lack_is_stood_in_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the model does not need it; afterwards nothing holds the stand-in."""
    folder = tmp_path / "site-packages" / "library_with_plots"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text("from . import plots\n")
    (folder / "plots.py").write_text("from nosuchplots.fast import draw\n")
    (folder / "net.py").write_text(
        "from torch import nn\n\n\nclass AE(nn.Sequential):\n    def __init__(self):\n"
        "        super().__init__(nn.Linear(20, 4), nn.Linear(4, 20))\n"
    )
    monkeypatch.syspath_prepend(str(folder.parent))
    subject = load("library_with_plots.net:AE")
    assert subject.batch.ran
    assert any("`nosuchplots` is not installed: stubbed" in n for n in subject.notes)
    assert not [n for n in sys.modules if n.startswith(("library_with_plots", "nosuchplots"))]
    (folder / "plots.py").write_text(
        "from nosuchplots import Base, Log, jit\n\nLog.quiet('all')\n"
        "@jit\ndef fast(x):\n    return x\n\n\nclass Plot(Base): ...\n"
    )
    subject = load("library_with_plots.net:AE")
    assert any(n.startswith("`library_with_plots/__init__.py` raised") for n in subject.notes)
    assert not [n for n in sys.modules if n.startswith(("library_with_plots", "nosuchplots"))]
    with (folder / "net.py").open("a") as net:
        net.write("\n\nfrom .plots import Plot\n")
    with pytest.raises(TargetError, match="`nosuchplots` is not installed"):
        load("library_with_plots.net:AE")
    text = (folder / "plots.py").read_text().replace("(Base)", "")
    (folder / "plots.py").write_text(text)
    assert load("library_with_plots.net:AE").batch.ran  # what is only imported calls nothing


def test_a_package_that_raises_is_not_in_the_way_of_a_librarys_module(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "site-packages" / "library_of_old"
    (folder / "nets").mkdir(parents=True)
    (folder / "__init__.py").write_text("from collections import Iterable\n")
    (folder / "nets" / "__init__.py").write_text("from .net import AE\n")
    (folder / "nets" / "net.py").write_text(
        "from torch import nn\n\n\nclass AE(nn.Sequential):\n    def __init__(self):\n"
        "        super().__init__(nn.Linear(20, 4), nn.Linear(4, 20))\n"
    )
    monkeypatch.syspath_prepend(str(folder.parent))
    for target in ("library_of_old.nets.net:AE", "library_of_old.nets:AE"):
        subject = load(target)
        assert subject.batch.ran
        assert any("cannot import name 'Iterable'" in note for note in subject.notes)
        assert not [n for n in sys.modules if n.startswith("library_of_old")]
    with pytest.raises(TargetError, match="`library_of_old` raised ImportError") as told:
        load("library_of_old:AE")
    assert '`python -c "import library_of_old"` shows the same error' in str(told.value)


def test_what_an_installed_library_requires_tells_how_a_module_is_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, asked in (("fruits", "quince-press>=1"), ("nuts", "hazel_tree; extra == 'all'")):
        folder = tmp_path / f"{name}-1.0.dist-info"
        folder.mkdir()
        text = f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\nRequires-Dist: {asked}\n"
        (folder / "METADATA").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    assert distribution_of("quince") == "quince-press"
    assert distribution_of("hazel_tree") == "hazel_tree"
    assert distribution_of("medlar") == "medlar"


def test_a_library_that_lacks_a_module_is_there_in_another_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, text in (("library_of_yore", ""), ("library_upon", "import library_of_yore.rank\n")):
        folder = tmp_path / "site-packages" / name
        folder.mkdir(parents=True)
        (folder / "__init__.py").write_text(text)
    (tmp_path / "site-packages" / "library_asked").mkdir()
    (tmp_path / "site-packages" / "library_asked" / "__init__.py").write_text("import library_upon")
    monkeypatch.syspath_prepend(tmp_path / "site-packages")
    with pytest.raises(TargetError) as told:
        load("library_asked:AE")
    assert "a version of `library_of_yore` that has `library_of_yore.rank`" in told.value.next_step
