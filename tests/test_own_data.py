"""The data that a file's own loop feeds the model, read without training and without files."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

import pytest
import torch
from texts import ANY_WIDTH

from vaedoctor.checkup import examine_subject
from vaedoctor.subject.script.pictures import NotFollowed, Picture, Pictures, transform_called
from vaedoctor.subject.target import load

MODEL = """
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, TensorDataset, random_split
import torch.nn.functional as F
from torchvision import datasets, transforms
"""
MODEL += ANY_WIDTH
MODEL += """
def loss_function(recon, x, mu, logvar):
    rec = (recon - x).square().sum()
    return rec - 0.5 * (1 + logvar - mu.square() - logvar.exp()).sum()
"""
LOOP = """
def train(model, loader, optimizer, epochs=2):
    for epoch in range(epochs):
        for {target} in {over}:
            {before}
            optimizer.zero_grad()
            recon, mu, logvar = model(x)
            loss = loss_function(recon, x, mu, logvar)
            loss.backward()
            optimizer.step()

if __name__ == "__main__":
    {data}
    model = VAE({arguments})
    train(model, loader, torch.optim.Adam(model.parameters()))
"""


def loaded(tmp_path: Path, *, data: str, more: str = "", **options: Any) -> Any:
    """The subject of a file whose loop goes over `loader`."""
    parts = {"target": "x", "over": "loader", "before": "pass", "arguments": "", **options}
    # `data` may have several lines, all inside the main guard.
    text = MODEL + textwrap.dedent(more) + LOOP.format(data=data.replace("\n", "\n    "), **parts)
    (tmp_path / "own.py").write_text(text)
    return load(f"{tmp_path / 'own.py'}:VAE")


PAIRS = {"target": "x, y", "over": "enumerate(loader)"}
DATA = {
    "a list": ({}, "loader = [7 + torch.rand(4, 12) for _ in range(3)]", ""),
    "a loader of a tensor": ({}, "loader = DataLoader(7 + torch.rand(64, 12), 16)", ""),
    "tensors": (
        {"target": "x, y"},
        "x = 7 + torch.rand(64, 12)\nd = TensorDataset(x, x[:, 0])\n"
        "loader = DataLoader(d, batch_size=16, shuffle=True)",
        "",
    ),
    "a split": (
        {"target": "i, (x,)", "over": "enumerate(loader)"},
        "d = TensorDataset(7 + torch.rand(64, 12))\na, b = random_split(d, [48, 16])\n"
        "loader = DataLoader(a, batch_size=16)",
        "",
    ),
    "a data set of the file": (
        {"target": "x, label"},
        "loader = DataLoader(Sevens(40), batch_size=8)",
        """
        class Sevens(Dataset):
            def __init__(self, n):
                self.data = 7 + torch.rand(n, 12)
            def __len__(self):
                return len(self.data)
            def __getitem__(self, i):
                return self.data[i], 0
        """,
    ),
    "a function that makes the loaders": (
        {"target": "x, label"},
        "loader, test = loaders(rows=8)",
        """
        def loaders(rows):
            x = 7 + torch.rand(64, 12)
            data = TensorDataset(x, torch.zeros(64))
            return DataLoader(data, batch_size=rows), DataLoader(data)
        """,
    ),
    "what is written into it": (
        {},
        "data = torch.rand(64, 12)\ndata[data < 7] = 8\ndata[:2] -= 1\n"
        "loader = DataLoader(data, 8)",
        "",
    ),
    "what the loop does to it": (
        {"target": "x, y", "before": "x = x.view(x.size(0), -1) + 3"},
        "loader = [(4 + torch.rand(4, 3, 4), 0)]",
        "",
    ),
}


@pytest.mark.parametrize("way", DATA)
def test_the_loops_data_is_the_batch(tmp_path: Path, way: str) -> None:
    options, data, more = DATA[way]
    batch = loaded(tmp_path, data=data, more=more, **options).batch
    (x,) = batch.args
    assert batch.ran
    assert not batch.guessed
    assert "your own data, as line" in batch.origin
    assert x.shape == (x.shape[0], 12)
    assert x.shape[0] <= 8
    assert float(x.min()) >= 7


def test_a_trainers_loader_and_a_maker_that_reads_settings(tmp_path: Path) -> None:
    """Of a script that trains on import the settings were not executed."""
    more = """
    class Settings:
        width = 12

    settings = Settings()

    def sevens(n):
        return 7 + torch.rand(n, settings.width)

    class Trainer:
        def __init__(self, config):
            self.model = VAE()
            self.optimizer = torch.optim.Adam(self.model.parameters())
            self.loader = DataLoader(TensorDataset(sevens(64)), batch_size=config["rows"])

        def loss(self, x):
            recon, mu, logvar = self.model(x)
            return loss_function(recon, x, mu, logvar)

        def train(self):
            for (x,) in self.loader:
                self.optimizer.zero_grad()
                self.loss(x).backward()
                self.optimizer.step()

    Trainer({"rows": 16}).train()
    """
    (tmp_path / "own.py").write_text(MODEL + textwrap.dedent(more))
    batch = load(f"{tmp_path / 'own.py'}:VAE").batch
    assert batch.origin.startswith("your own data")
    assert float(batch.args[0].min()) >= 7


def test_files_are_not_read_for_it(tmp_path: Path) -> None:
    more = """
    class Rows(Dataset):
        def __init__(self, path):
            self.rows = [float(line) for line in open(path)]
        def __len__(self):
            return 1
        def __getitem__(self, i):
            raise SystemExit("read")
    """
    (tmp_path / "rows.txt").write_text("1\n")
    subject = loaded(tmp_path, data="loader = DataLoader(Rows('rows.txt'))", more=more)
    assert subject.batch.guessed


PICTURES = "t = {t}\nloader = DataLoader(datasets.{d}('.', download=True, transform=t), 8)"
STEPS = "transforms.Compose([transforms.Resize(32), {} transforms.Normalize((0.5,), (0.5,))])"


def test_a_well_known_data_set_is_made_up_in_its_size_and_range(tmp_path: Path) -> None:
    made = PICTURES.format(t="transforms.ToTensor()", d="MNIST")
    flat = {"target": "x, _", "before": "x = x.view(-1, 784)", "arguments": "784"}
    batch = loaded(tmp_path, data=made, **flat).batch
    assert batch.origin == "made up like MNIST, which line 27 feeds the model"
    assert batch.args[0].shape == (8, 784)
    assert (float(batch.args[0].min()), float(batch.args[0].max())) == (0, 1)
    text = PICTURES.format(t=STEPS.format("transforms.ToTensor(),"), d="CIFAR10")
    x = loaded(tmp_path, data=text, target="x, _", arguments="32").batch.args[0]
    assert x.shape == (8, 3, 32, 32)
    assert (float(x.min()), float(x.max())) == (-1, 1)


def test_what_the_loop_feeds_and_the_model_refuses_is_the_batch(tmp_path: Path) -> None:
    """Unless the file makes other models of the class too, for which it may be meant."""
    made = PICTURES.format(t="transforms.ToTensor()", d="MNIST")
    batch = loaded(tmp_path, data=made, target="x, _", arguments="784").batch
    assert (batch.ran, batch.guessed) == (False, False)
    assert batch.args[0].shape == (8, 1, 28, 28)
    other = loaded(tmp_path, data=f"other = VAE(28)\n{made}", target="x, _", arguments="784")
    assert other.batch.ran


CHOICES = """
data = "{name}"
if data == "mnist":
    pictures = datasets.MNIST(".", transform=transforms.ToTensor())
else:
    pictures = datasets.CIFAR10(".", transform=transforms.ToTensor())
loader = DataLoader(pictures, 8)
"""


def test_what_is_refused_may_be_meant_for_another_choice_or_model(tmp_path: Path) -> None:
    images = {"target": "x, _", "arguments": "28"}
    for name in ("mnist", "cifar"):
        subject = loaded(tmp_path, data=CHOICES.format(name=name), **images)
        assert subject.batch.ran
    width = "kind = 'small'\nif kind == 'small':\n    w = 12\nelse:\n    w = 20\n"
    data = f"{width}loader = DataLoader(torch.rand(64, 12), 8)"
    assert loaded(tmp_path, data=data, arguments="w").batch.ran
    other = """
    from elsewhere import classifier
    vae = VAE(28)
    model = classifier()
    for x, y in DataLoader(TensorDataset(torch.rand(64, 9), torch.zeros(64)), 8):
        loss = model(x).square().mean()
        loss.backward()
    """
    (tmp_path / "other.py").write_text(MODEL + textwrap.dedent(other))
    subject = load(f"{tmp_path / 'other.py'}:VAE")
    assert subject.batch.ran


@pytest.mark.parametrize(
    ("before", "shape"),
    [
        ("x.unsqueeze_(1); x = x.flatten(1)", (8, 12)),
        ("x[x > 7.5] = 7", None),
        ("if x.dim() == 2: x = x + 1", (8, 12)),
        ("x = unknown(x)", None),
    ],
)
def test_what_a_loop_does_in_place_counts(
    tmp_path: Path, before: str, shape: tuple[int, ...] | None
) -> None:
    data = "loader = DataLoader(7 + torch.rand(64, 12), 8)"
    batch = loaded(tmp_path, data=data, before=before).batch
    assert batch.guessed is (shape is None)
    assert batch.args[0].shape == (shape or (8, 12))


PAIRED = """
model = VAE()
clean = torch.rand(64, 12)
{data}
for x, y in DataLoader(pairs, 16):
    {noise}
    recon, mu, logvar = model(x)
    loss = F.binary_cross_entropy(recon.sigmoid(), {target}, reduction="sum")
    loss = loss - 0.5 * (1 + logvar - mu.square() - logvar.exp()).sum()
    loss.backward()
"""
SAME = "pairs = TensorDataset(clean, clean)"
LABELS = "pairs = TensorDataset(clean, torch.randint(3, (64,)))"
OTHERS = "pairs = TensorDataset(clean, torch.ones(64, 5))"


@pytest.mark.parametrize(
    ("data", "noise", "target", "codes"),
    [
        (SAME, "pass", "y", set()),
        (SAME, "x = x + torch.randn_like(x)", "y", set()),
        (LABELS, "noisy = x; x = noisy + 9", "x", {"VAE708"}),
        (OTHERS, "pass", "torch.cat([x[:, :7], y], 1)", set()),
        ("pairs = TensorDataset(clean * 5, clean)", "pass", "x", {"VAE708"}),
    ],
)
def test_further_items_of_the_loop_are_what_they_are_there(
    tmp_path: Path, data: str, noise: str, target: str, codes: set[str]
) -> None:
    text = MODEL + PAIRED.format(data=data, noise=noise, target=target)
    (tmp_path / "own.py").write_text(text)
    subject = load(f"{tmp_path / 'own.py'}:VAE")
    assert subject.objective is not None, subject.notes
    assert "of the training loop" in subject.objective.origin
    report = examine_subject(subject, select=["VAE002", "VAE501", "VAE502", "VAE708"])
    assert {f.code for f in report.findings} == codes


def test_of_a_function_for_several_models_the_call_with_ours_counts(tmp_path: Path) -> None:
    more = """
    def fit(net, loader):
        for (x,) in loader:
            recon, mu, logvar = net(x)
            loss = loss_function(recon, x, mu, logvar)
            loss.backward()

    class Other(VAE):
        pass

    fit(Other(), DataLoader(TensorDataset(torch.rand(64, 24)), 8))
    fit(VAE(), DataLoader(TensorDataset(7 + torch.rand(64, 12)), 8))
    """
    (tmp_path / "own.py").write_text(MODEL + textwrap.dedent(more))
    batch = load(f"{tmp_path / 'own.py'}:VAE").batch
    assert batch.ran
    assert float(batch.args[0].min()) >= 7


def test_a_loop_that_raises_on_the_files_own_data_is_examined(tmp_path: Path) -> None:
    loop = """
    model = VAE()
    for x, y in DataLoader(TensorDataset(torch.rand(32, 12), torch.rand(32, 5)), 16):
        recon, mu, logvar = model(x)
        loss = F.mse_loss(recon[:, :11], x) + {other} * (mu.square() + logvar.square()).mean()
        loss.backward()
    """
    for other, examined in (("1", True), ("y.mean()", False)):
        text = MODEL + textwrap.dedent(loop.format(other=other))
        (tmp_path / "own.py").write_text(text)
        subject = load(f"{tmp_path / 'own.py'}:VAE")
        assert not subject.batch.guessed
        assert ("of the training loop" in subject.objective.origin) is examined


def test_a_loop_that_raises_on_rows_it_chooses_itself_is_examined(tmp_path: Path) -> None:
    """The numbers of the rows are the loop's, `data[rows]` is the batch wherever it stands."""
    loop = """
    model, data = VAE(), torch.rand(32, 12)
    for rows in torch.randperm(len(data)).split(16):
        recon, mu, logvar = model(data[rows])
        loss = F.mse_loss(recon[:, :11], data[rows]) + (mu.square() + logvar.square()).mean()
        loss.backward()
    """
    (tmp_path / "own.py").write_text(MODEL + textwrap.dedent(loop))
    subject = load(f"{tmp_path / 'own.py'}:VAE")
    assert "of the training loop" in subject.objective.origin


@pytest.mark.parametrize(
    ("name", "given", "shape"),
    [
        ("Resize", (64,), (3, 78, 64)),
        ("Resize", ((32, 48),), (3, 32, 48)),
        ("CenterCrop", (300,), (3, 300, 300)),
        ("Grayscale", (), (1, 218, 178)),
        ("Pad", (2,), (3, 222, 182)),
        ("RandomHorizontalFlip", (), (3, 218, 178)),
    ],
)
def test_transforms_keep_what_they_say(
    name: str, given: tuple[Any, ...], shape: tuple[int, ...]
) -> None:
    change = transform_called(name, given, {})
    assert change is not None
    data = Pictures("CelebA", change)
    with pytest.raises(NotFollowed):
        data[0]
    picture = change(Picture(torch.rand(3, 218, 178)))
    assert picture.values.shape == shape
    assert transform_called("TenCrop", (4,), {}) is None


SCALING = {
    "a method": (
        "torch.rand(16, 12)",
        "    def step(self, x):\n        x = 2 * x - 1\n        {body}",
        "model.step(x)",
        "self",
    ),
    "the call itself": (
        "torch.rand(16, 12)",
        "    def step(self, x):\n        recon, mu, logvar = self(2 * x - 1)\n"
        "        return loss_function(recon, 2 * x - 1, mu, logvar)\n",
        "model.step(x)",
        "self",
    ),
    "a function": (
        "torch.rand(16, 12)",
        "def step(model, x):\n    x = 2 * x - 1\n    {body}",
        "step(model, x)",
        "model",
    ),
    "a loader's pair": (
        "(torch.rand(16, 12), torch.zeros(16))",
        "    def step(self, batch):\n        x, y = batch\n        x = 2 * x - 1\n        {body}",
        "model.step(x)",
        "self",
    ),
}


@pytest.mark.parametrize("way", SCALING)
@pytest.mark.parametrize("bounded", ["tanh", "sigmoid"])
def test_what_the_step_does_to_its_data_is_done_once(
    tmp_path: Path, way: str, bounded: str
) -> None:
    """The step is given what the loop gives it: [0, 1], which it scales to [-1, 1] itself."""
    item, step, call, model = SCALING[way]
    body = f"recon, mu, logvar = {model}(x)\n    return loss_function(recon, x, mu, logvar)\n"
    indented = body if step.startswith("def") else body.replace("\n    ", "\n        ")
    text = MODEL.replace("self.down(z), mu", f"torch.{bounded}(self.down(z)), mu")
    head, tail = text.split("def loss_function")
    step = step.replace("{body}", indented)
    inside, outside = ("", step) if step.startswith("def") else (step, "")
    loop = LOOP.format(
        target="x",
        over="loader",
        before="pass",
        data=f"loader = [{item} for _ in range(3)]",
        arguments="",
    )
    plain = "recon, mu, logvar = model(x)\n            loss = loss_function(recon, x, mu, logvar)"
    assert plain in loop
    loop = loop.replace(plain, f"loss = {call}")
    (tmp_path / "own.py").write_text(f"{head}{inside}\ndef loss_function{tail}{outside}{loop}")
    subject = load(f"{tmp_path / 'own.py'}:VAE")
    assert not subject.batch.guessed
    assert float(subject.batch.args[0].min()) >= 0
    codes = {f.code for f in examine_subject(subject, select=("VAE708", "VAE709")).findings}
    assert codes == ({"VAE709"} if bounded == "sigmoid" else set())
