"""Files as users have them become a subject, or one screen that says what to type instead."""

from __future__ import annotations

import sys
import textwrap
import types
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from vaedoctor.subject.target import TargetError, from_instance, load

Write = Callable[..., str]

SEED_MODEL = """
import torch
import torch.nn as nn

class Encoder(nn.Module):
    def __init__(self, input_dim, hidden_dim, latent_dim):
        super(Encoder, self).__init__()
        self.linear1 = nn.Linear(input_dim, hidden_dim)
        self.linear_mu = nn.Linear(hidden_dim, latent_dim)
        self.linear_logvar = nn.Linear(hidden_dim, latent_dim)

    def forward(self, x):
        x = torch.relu(self.linear1(x))
        return self.linear_mu(x), self.linear_logvar(x)

class VAE(nn.Module):
    def __init__(self, input_dim, hidden_dim, latent_dim):
        super(VAE, self).__init__()
        self.encoder = Encoder(input_dim, hidden_dim, latent_dim)
        self.decoder = nn.Linear(latent_dim, input_dim)

    def forward(self, x):
        mu, logvar = self.encoder(x)
        z = mu + torch.randn_like(mu) * torch.exp(0.5 * logvar)
        return self.decoder(z), mu, logvar
"""

OTHER = "class Other" + SEED_MODEL.split("class VAE")[1].replace("VAE, self", "")

SEED_USE = """
input_dim = 784
hidden_dim = 64
latent_dim = 32

vae = VAE(input_dim, hidden_dim, latent_dim)
input_data = torch.randn(16, input_dim)
reconstructed, mu, logvar = vae(input_data)
print("shape of reconstructed image:", reconstructed.shape)
"""


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def written(text: str, name: str = "mymodel.py") -> str:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))
        return str(path)

    return written


def refusal(target: str, **options: object) -> TargetError:
    with pytest.raises(TargetError) as caught:
        load(target, **options)  # type: ignore[arg-type]
    error = caught.value
    assert error.exit_code == 2
    assert error.next_step
    assert len(error.format_message().splitlines()) <= 24
    return error


def test_a_file_alone_means_its_only_whole_model(write: Write) -> None:
    subject = load(write(SEED_MODEL + SEED_USE))
    assert subject.target.endswith("mymodel.py:VAE")
    assert subject.model.decoder.weight.shape == (784, 32)
    assert subject.batch.args[0].shape == (16, 784)
    assert "your own example in line" in subject.batch.origin
    assert subject.batch.ran
    assert not subject.batch.guessed


def test_the_class_line_is_known(write: Write) -> None:
    target = write(SEED_MODEL)
    at = load(f"{target}:VAE").at
    assert at is not None
    line = Path(target).read_text().splitlines()[at.line - 1]
    assert (at.file, at.col, line[: at.end_col - 1]) == (target, 1, "class VAE(nn.Module):")


def test_a_script_is_not_run(write: Write, capsys: pytest.CaptureFixture[str]) -> None:
    target = write(
        """
        import torch
        from torch import nn
        from torch.utils.data import DataLoader
        import a_plotting_library_nobody_has as plt

        HIDDEN = 12
        LATENT = 2 * HIDDEN
        print("started")
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        loader = DataLoader(download_everything(), batch_size=64)

        class VAE(nn.Module):
            def __init__(self):
                super().__init__()
                self.up, self.down = nn.Linear(20, LATENT), nn.Linear(LATENT, 20)
            def forward(self, x):
                h = self.up(x)
                return self.down(h + torch.randn_like(h).to(device)), h, h

        model = VAE().to(device)
        optimizer = torch.optim.Adam(model.parameters(), lr=3e-4)
        for epoch in range(10):
            for x in loader:
                raise RuntimeError("training")
        """
    )
    subject = load(target)
    assert subject.batch.ran
    assert capsys.readouterr().out == ""
    assert subject.notes[0] == "loaded definitions only: line 11 would run code on import"
    (optimizer,) = subject.optimizers
    assert optimizer.param_groups[0]["params"][0] is subject.model.up.weight
    assert optimizer.param_groups[0]["lr"] == 3e-4
    at = subject.optimizer_at
    assert at is not None
    line = Path(target).read_text().splitlines()[at.line - 1]
    assert line[at.col - 1 : at.end_col - 1] == "torch.optim.Adam(model.parameters(), lr=3e-4)"


def test_a_file_of_definitions_needs_no_note(write: Write) -> None:
    guarded = SEED_MODEL + '\nif __name__ == "__main__":\n    raise SystemExit("ran")\n'
    assert not any("definitions" in n for n in load(write(guarded)).notes)


def test_an_instance_is_what_the_file_makes_of_it(write: Write) -> None:
    text = SEED_MODEL + "vae = VAE(30, 20, 10)\nvae.extra = nn.Linear(10, 9)\n"
    text += "vae.decoder = nn.Linear(10, 30, bias=False)\nvae.eval()\n"
    subject = load(write(text) + ":vae")
    assert subject.model.extra.out_features == 9
    assert subject.model.decoder.bias is None
    assert subject.model.training
    assert subject.rebuild is None


def test_factories_and_dotted_names(write: Write) -> None:
    text = SEED_MODEL + "def make():\n    return VAE(9, 8, 7)\nclass models:\n    vae = VAE\n"
    target = write(text)
    assert load(f"{target}:make").model.decoder.weight.shape == (9, 7)
    assert type(load(f"{target}:models.vae").model).__name__ == "VAE"


def test_a_sibling_and_a_relative_import(write: Write, tmp_path: Path) -> None:
    write("SIZE = 17\n", "pieces_of_mine.py")
    text = "from pieces_of_mine import SIZE\n" + SEED_MODEL + "vae = VAE(SIZE, 5, 3)\n"
    assert load(write(text) + ":VAE").model.decoder.out_features == 17
    write("", "somepackage/__init__.py")
    write("SIZE = 19\n", "somepackage/sizes.py")
    inside = write(text.replace("pieces_of_mine", ".sizes"), "somepackage/model.py")
    assert load(inside + ":VAE").model.decoder.out_features == 19
    assert not list(tmp_path.rglob("__pycache__"))
    assert str(tmp_path) not in sys.path[:1]


def test_a_module_path(write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(SEED_MODEL, "lonelypackage/models.py")
    monkeypatch.chdir(tmp_path)
    assert load("lonelypackage.models:VAE").batch.ran
    assert "no module `lonelypackag`" in refusal("lonelypackag:VAE").message


def test_future_annotations_hold(write: Write) -> None:
    text = "from __future__ import annotations\n" + SEED_MODEL.replace(
        "def forward(self, x)", "def forward(self, x: NotImported) -> AlsoNot"
    )
    assert load(write(text + SEED_USE)).batch.ran


def test_two_models_are_listed_as_commands(write: Write) -> None:
    target = write(SEED_MODEL + OTHER)
    error = refusal(target)
    assert "2 models" in error.message
    assert error.next_step.splitlines() == [
        f"vaedoctor check {target}:VAE",
        f"vaedoctor check {target}:Other",
    ]


def test_an_instance_breaks_the_tie(write: Write) -> None:
    text = SEED_MODEL + OTHER
    assert load(write(text + "\nmodel = Other(6, 5, 4)\n")).target.endswith(":Other")


def test_a_package_that_imports_a_part_when_it_is_asked_for(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lazy = """
        def __getattr__(name):
            if name != "VAE":
                raise AttributeError(name)
            try:
                import a_library_nobody_has
            except ImportError as error:
                raise RuntimeError(f"failed to import {name}") from error
    """
    write(textwrap.dedent(lazy), "lazypackage/__init__.py")
    monkeypatch.chdir(tmp_path)
    error = refusal("lazypackage:VAE")
    assert "raised ModuleNotFoundError" in error.message
    assert "python -m pip install a_library_nobody_has" in error.next_step
    assert "has no `Other`" in refusal("lazypackage:Other").message


class Unloaded(types.ModuleType):
    """As libraries leave modules in `sys.modules` that are imported when they are used."""

    def __getattr__(self, name: str) -> object:
        raise ImportError(f"cannot be imported for `{name}`")


def test_a_module_that_raises_at_what_it_lacks_is_left_alone(
    write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "unloaded", Unloaded("unloaded"))
    assert load(write(SEED_MODEL + "\nvae = VAE(6, 5, 4)\n")).target.endswith(":VAE")
    assert sys.modules["unloaded"].__name__ == "unloaded"


@pytest.mark.parametrize(
    ("name", "message", "step"),
    [
        ("mymodle.py:VAE", "does not exist; did you mean `mymodel.py`?", "mymodel.py:VAE"),
        ("mymodel.py:VEA", "has no `VEA`; did you mean `VAE`?", "mymodel.py:VAE"),
        ("mymodel.py:Config", "is a class, but not an `nn.Module`", "mymodel.py:VAE"),
        ("mymodel.py:SIZE", "is an `int`, not a model", "mymodel.py:VAE"),
        ("mymodel.py:nothing", "returned None, not a module", "return the model"),
        ("wrong.py:VAE", "not valid Python", "line 1 of wrong.py"),
        ("./:VAE", "is neither a Python file, a notebook nor a module", "vaedoctor check"),
        ("folder.py:VAE", "is a folder", "vaedoctor check folder.py/model.py:VAE"),
    ],
)
def test_wrong_targets(
    write: Write,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    message: str,
    step: str,
) -> None:
    write(SEED_MODEL + "class Config: pass\nSIZE = 3\ndef nothing(): return None\n")
    write("class VAE(:\n", "wrong.py")
    (tmp_path / "folder.py").mkdir()
    monkeypatch.chdir(tmp_path)
    error = refusal(name)
    assert message in error.message
    assert step in error.next_step


@pytest.mark.parametrize("name", ["", ":VAE"])
def test_a_class_inside_a_function_is_told_from_none(write: Write, name: str) -> None:
    text = "from torch import nn\ndef train():\n    class VAE(nn.Module):\n        size = 3\n"
    error = refusal(write(text + "    return VAE()\n") + name)
    assert "`VAE` is defined inside `train`" in error.message
    assert "move `class VAE` out of `train`" in error.next_step


def test_the_traceback_is_the_users_own(write: Write) -> None:
    target = write(
        "from torch import nn\ndef size():\n    return 1 / 0\n"
        "class VAE(nn.Module):\n    def __init__(self):\n        super().__init__()\n"
        "        self.size = size()\n"
    )
    error = refusal(f"{target}:VAE")
    assert "ZeroDivisionError" in error.message
    assert "line 7, in __init__" in error.traceback
    assert "line 3, in size" in error.traceback
    assert "vaedoctor/subject" not in error.traceback


@pytest.mark.parametrize("statement", ["raise SystemExit(3)", "1 / 0"])
def test_what_the_target_needs_must_load(write: Write, statement: str) -> None:
    text = f"class VAE:\n    {statement}\n"
    error = refusal(write(text) + ":VAE")
    assert "while it was loaded" in error.message
    assert "line 2" in error.traceback


def test_random_generators_and_path_are_left_alone(write: Write) -> None:
    target = write(SEED_MODEL + SEED_USE)
    before, path = torch.get_rng_state(), list(sys.path)
    load(target)
    assert torch.equal(before, torch.get_rng_state())
    assert sys.path == path


def test_the_same_seed_gives_the_same_subject(write: Write) -> None:
    target = write(SEED_MODEL + SEED_USE)
    one, two, other = load(target, seed=1), load(target, seed=1), load(target, seed=2)
    assert torch.equal(one.model.decoder.weight, two.model.decoder.weight)
    assert torch.equal(one.batch.args[0], two.batch.args[0])
    assert not torch.equal(one.model.decoder.weight, other.model.decoder.weight)


class Small(nn.Module):
    def __init__(self, size: int = 6) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(size, 4), nn.Linear(2, size)
        self.optimizer = torch.optim.SGD(self.down.parameters(), lr=0.1)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        mu, logvar = self.up(x).chunk(2, -1)
        return self.down(mu + torch.randn_like(mu) * (logvar / 2).exp()), mu, logvar


def test_from_memory() -> None:
    model = Small()
    x = torch.rand(5, 6)
    subject = from_instance(model, x, conditions=[1], beta=4.0, batch_axis=None)
    assert subject.model is model
    assert subject.batch.args == (x,)
    assert (subject.conditions, subject.beta, subject.batch_axis) == (frozenset({1}), 4.0, None)
    assert subject.optimizers == (model.optimizer,)
    given = torch.optim.Adam(model.parameters())
    assert from_instance(model, x, optimizer=given).optimizers == (given,)
    assert subject.at is not None
    assert subject.at.file == __file__


def test_a_class_and_a_factory_from_memory() -> None:
    rebuild = from_instance(Small).rebuild
    assert rebuild is not None
    assert rebuild(0).up.in_features == 6
    assert from_instance(lambda: Small(9)).batch.args[0].shape == (8, 9)


def test_wrappers_are_taken_off() -> None:
    model = Small()
    assert from_instance(nn.DataParallel(model)).model is model
