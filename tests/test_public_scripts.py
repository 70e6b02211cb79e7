"""How public scripts are written: what a loop calls its target, a loss made of losses, flags."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from test_files_as_people_write_them import HEAD, checked, codes
from torch import Tensor, nn

import vaedoctor

PACKED = """
class Words(nn.Module):
    def __init__(self, words=19):
        super().__init__()
        self.table = nn.Embedding(words, 6)
        self.read = nn.GRU(6, 10, batch_first=True)
        self.mu, self.logvar = nn.Linear(10, 4), nn.Linear(10, 4)
        self.write = nn.GRU(6 + 4, 10, batch_first=True)
        self.score = nn.Linear(10, words)
    def forward(self, w):
        e = self.table(w)
        h = self.read(e)[1][0]
        mu, logvar = self.mu(h), self.logvar(h)
        z = mu + torch.randn_like(mu) * (logvar / 2).exp()
        each = z.unsqueeze(1).expand(-1, w.shape[1], -1)
        return self.score(self.write(torch.cat([e, each], 2))[0]), mu, logvar
def criterion(scores, wanted, mu, logvar):
    nll = F.cross_entropy(scores.transpose(1, 2), wanted, reduction="sum")
    return nll - 0.5 * torch.sum(1 + logvar - mu ** 2 - logvar.exp())
def fit(data, net):
    optimizer = torch.optim.Adam(net.parameters())
    for part in data:
        scores, mu, logvar = net(part["{given}"])
        loss = criterion(scores, part["{wanted}"], mu, logvar)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
if __name__ == "__main__":
    from corpus import data
    fit(data, Words())
"""
SIGNAL = """
class Codec(nn.Module):
    def __init__(self):
        super().__init__()
        self.down, self.up = nn.Conv1d(1, 6, 4, 2, 1), nn.ConvTranspose1d(6, 1, 4, 2, 1)
        self.codes = nn.Embedding(9, 6)
    def forward(self, wave):
        e = self.down(wave).transpose(1, 2)
        nearest = torch.cdist(e.reshape(-1, 6), self.codes.weight).argmin(1)
        q = self.codes(nearest).view_as(e)
        commit = F.mse_loss(e, q.detach()) * 0.25 + F.mse_loss(q, e.detach())
        q = e + (q - e).detach()
        return {"wave": self.up(q.transpose(1, 2)), "commit": commit}
def spectral_loss(x, y, size=128):
    window = torch.hann_window(size)
    a, b = (torch.stft(t.squeeze(1), size, window=window, return_complex=True) for t in (x, y))
    return (a.abs() - b.abs()).abs().mean()
def codec_loss(model, wave):
    out = model(wave)
    return spectral_loss(out["wave"], wave) + F.l1_loss(out["wave"], wave) + out["commit"]
"""
FLAG = """
import argparse
parser = argparse.ArgumentParser()
parser.add_argument("--hard", action="store_true")
args = parser.parse_args()
args.cuda = torch.cuda.is_available()
def uniform(like):
    u = torch.rand(like.shape)
    {guard}
    return u
class Choice(nn.Module):
    def __init__(self):
        super().__init__()
        self.up, self.down = nn.Linear(14, 12), nn.Linear(12, 14)
    def forward(self, x, temp, hard):
        logits = self.up(x).view(-1, 3, 4)
        g = -torch.log(-torch.log(uniform(logits) + 1e-9) + 1e-9)
        y = torch.softmax((logits + g) / temp, -1)
        if hard:
            y = F.one_hot(y.argmax(-1), 4) + y - y.detach()
        return self.down(y.flatten(1)), torch.softmax(logits, -1)
def loss_function(recon, x, q):
    kl = (q * (q * 4 + 1e-9).log()).sum((1, 2))
    return (F.binary_cross_entropy_with_logits(recon, x, reduction="none").sum(1) + kl).mean()
"""
SEMI = """
class Labelled(nn.Module):
    def __init__(self):
        super().__init__()
        self.up, self.down = nn.Linear(14 + 3, 8), nn.Linear(4 + 3, 14)
        self.classify = nn.Linear(14, 3)
    def forward(self, x, y):
        mu, logvar = self.up(torch.cat([x, y], 1)).chunk(2, 1)
        z = mu + torch.randn_like(mu) * (logvar / 2).exp()
        self.kl = {kl}
        return self.down(torch.cat([z, y], 1))
def bound(model, x, y):
    nll = F.binary_cross_entropy_with_logits(model(x, y), x, reduction="none").sum(1)
    return nll + model.kl
def total_loss(model, x, y, u):
    p = torch.softmax(model.classify(u), 1)
    every = torch.eye(3).to(u)
    free = torch.stack([bound(model, u, every[i].expand(len(u), 3)) for i in range(3)], 1)
    known = bound(model, x, y) - (y * torch.log_softmax(model.classify(x), 1)).sum(1)
    return (known + (p * free).sum(1) + (p * p.log()).sum(1)).mean()
"""
KL = "0.5 * (mu ** 2 + logvar.exp() - 1 - logvar).sum(1)"


def words() -> Tensor:
    return torch.randint(19, (8, 9), generator=torch.Generator().manual_seed(1))


class TestTheTargetOfALoop:
    """What a loader gives beside the words need not be the words."""

    @pytest.fixture
    def seen(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
        def checked(given: str, wanted: str) -> list[str]:
            text = PACKED.replace("{given}", given).replace("{wanted}", wanted)
            (tmp_path / "speaks.py").write_text(HEAD + text)
            monkeypatch.syspath_prepend(str(tmp_path))
            monkeypatch.delitem(sys.modules, "speaks", raising=False)
            model = importlib.import_module("speaks").Words()
            return codes(vaedoctor.check(model, words(), select=["VAE403", "VAE002"]))

        return checked

    def test_it_may_be_the_next_word_for_each(self, seen: Callable[..., list[str]]) -> None:
        assert seen("inputs", "target") == []

    def test_where_it_is_what_goes_in_the_decoder_sees_it(
        self, seen: Callable[..., list[str]]
    ) -> None:
        assert seen("inputs", "inputs") == ["VAE403"]


def test_a_loss_that_another_one_adds_up_is_no_total(tmp_path: Path) -> None:
    report = checked(tmp_path, SIGNAL, "Codec")
    assert codes(report) == []
    assert "`codec_loss`" in str(report.notes)
    assert "8×1×256 after all" in str(report.notes)  # as long as the window asks


@pytest.mark.parametrize(
    ("guard", "found"),
    [
        ("if args.cuda: u = u.cuda()", []),
        ("u = u.cuda() if args.cuda else u", []),
        ("other = u.clone().cuda() if args.cuda else None", ["VAE202"]),
        ("pass", ["VAE202"]),
    ],
)
def test_noise_that_is_moved_where_a_flag_says_so(
    tmp_path: Path, guard: str, found: list[str]
) -> None:
    report = checked(tmp_path, FLAG.replace("{guard}", guard), "Choice")
    assert codes(report) == found
    assert "`hard` False" in str(report.notes)  # a branch asks it


@pytest.mark.parametrize(("kl", "found"), [(KL, []), (f"{KL}.detach()", ["VAE702"])])
def test_data_beside_the_model_is_no_output(tmp_path: Path, kl: str, found: list[str]) -> None:
    report = checked(tmp_path, SEMI.replace("{kl}", kl), "Labelled")
    assert [c for c in codes(report) if c in ("VAE702", "VAE712")] == found


def test_a_lazy_layer_that_a_guess_does_not_reach() -> None:
    class Lazy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.up, self.norm = nn.LazyLinear(8), nn.LazyBatchNorm1d()
            self.down = nn.Linear(4, 6)

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            mu, logvar = self.norm(self.up(x.flatten(1))).tensor_split(2, dim=1)
            return self.down(mu + torch.randn_like(mu) * (logvar / 2).exp()), mu, logvar

    assert vaedoctor.check(Lazy()).ok


def test_a_model_that_writes_into_its_input_leaves_the_callers_batch_alone() -> None:
    from fixtures.healthy import writes_into_input as fixture

    x = fixture.batch()
    before = x.clone()
    report = vaedoctor.check(fixture.Healthy(), x, objective=fixture.objective)
    assert codes(report) == []
    assert torch.equal(x, before)


FAIR = """
class Fair(nn.Module):
    def __init__(self):
        super().__init__()
        self.up, self.down = nn.Linear(14 + 1, 8), nn.Linear(4 + 1, 14)
        self.guess = nn.Linear(4, 2)
    def forward(self, x, group):
        g = group.float().unsqueeze(1)
        mu, logvar = self.up(torch.cat([x, g], 1)).chunk(2, 1)
        z = mu + torch.randn_like(mu) * (logvar / 2).exp()
        return self.down(torch.cat([z, g], 1)), mu, logvar, self.guess(z)
def loss_function(recon, x, mu, logvar, guess, group):
    rec = F.binary_cross_entropy_with_logits(recon, x, reduction="none").sum(1)
    kl = 0.5 * (mu ** 2 + logvar.exp() - 1 - logvar).sum(1)
    return (rec + kl).mean() + F.cross_entropy(guess, group)
"""


def test_a_number_a_row_that_the_loss_takes_for_a_class(tmp_path: Path) -> None:
    report = checked(tmp_path, FAIR, "Fair")
    assert "`group` is 8 whole numbers after all" in str(report.notes)
    assert "found: `loss_function`" in str(report.notes)
    assert report.ok


CRITIC = """
class Judged(nn.Module):
    def __init__(self):
        super().__init__()
        self.up = nn.Sequential(nn.Linear(14, 9), nn.ReLU(), nn.Linear(9, 4))
        self.down = nn.Sequential(nn.Linear(4, 9), nn.ReLU(), nn.Linear(9, 14))
        self.judge = nn.Sequential(nn.Linear(4, 9), nn.ReLU(), nn.Linear(9, 1))
    def forward(self, x):
        return self.down(self.up(x))
    {step}
"""
BY_HAND = """def training_step(self, batch, batch_idx):
        prior = torch.randn_like(self.up(batch).detach())
        bad = F.softplus(-self.judge(prior)) + F.softplus(self.judge(self.up(batch).detach()))
        self.manual_backward(bad.mean())
        z = self.up(batch)
        fooled = F.softplus(-self.judge(z)).mean()
        self.manual_backward(F.mse_loss(self.down(z), batch, reduction="sum") / 8 + fooled)
"""
IN_TURN = """
def fit(model, loader):
    first = torch.optim.Adam([*model.up.parameters(), *model.down.parameters()])
    second = torch.optim.Adam(model.judge.parameters())
    for x in loader:
        loss = ((model(x) - x) ** 2).sum(1).mean()
        loss.backward()
        first.step()
        bad = model.judge(model.up(x).detach()).mean() - model.judge(torch.randn(8, 4)).mean()
        {turn}
        second.step()
"""


def test_of_the_losses_of_a_step_by_hand_the_one_that_trains_the_most(tmp_path: Path) -> None:
    text = CRITIC.replace("nn.Module", "LightningModule", 1).replace("{step}", BY_HAND)
    head = "from lightning.pytorch import LightningModule\n"
    report = checked(tmp_path, head + text, "Judged")
    assert codes(report) == []
    assert "method `training_step`" in str(report.notes)


@pytest.mark.parametrize(("turn", "severity"), [("bad.backward()", "NOTE"), ("pass", "WARNING")])
def test_a_critic_that_a_loss_of_its_own_trains(tmp_path: Path, turn: str, severity: str) -> None:
    text = CRITIC.replace("{step}", "") + IN_TURN.replace("{turn}", turn)
    (found,) = checked(tmp_path, text, "Judged").findings
    assert found.code == "VAE104"
    assert found.severity.name == severity


FOLDER = """
from torchvision import datasets, transforms
tfm = transforms.Compose([transforms.Resize({size}), transforms.ToTensor()])
data = torch.utils.data.DataLoader(datasets.ImageFolder("chairs", tfm), 64)
class Chairs(nn.Module):
    def __init__(self):
        super().__init__()
        self.up = nn.Sequential(nn.Conv2d(3, 4, 4, 4), nn.Flatten(), nn.Linear(4 * 64, 10))
        self.down = nn.Sequential(nn.Linear(5, 4 * 64), nn.Unflatten(1, (4, 8, 8)),
                                  nn.ConvTranspose2d(4, 3, 4, 4))
    def forward(self, x):
        mu, logvar = self.up(x).chunk(2, 1)
        return self.down(mu + torch.randn_like(mu) * (logvar / 2).exp()), mu, logvar
net = Chairs()
optimizer = torch.optim.Adam(net.parameters())
for x, _ in data:
    r, mu, logvar = net(x)
    loss = F.mse_loss(r, x, reduction="sum") - 0.5 * (1 + logvar - mu ** 2 - logvar.exp()).sum()
    loss.backward()
    optimizer.step()
"""


@pytest.mark.parametrize(
    ("size", "found"), [("32", []), ("(32, 32)", []), ("40", ["VAE501"]), ("(32, 40)", ["VAE501"])]
)
def test_photographs_that_a_loader_can_stack(tmp_path: Path, size: str, found: list[str]) -> None:
    """One side is scaled to the other's share: photographs that come out alike are square."""
    assert codes(checked(tmp_path, FOLDER.replace("{size}", size), "Chairs")) == found


@pytest.mark.parametrize("width", [8, 12])
def test_of_a_past_and_a_future_nothing_but_the_loss_tells_which_comes_out(width: int) -> None:
    class Forecast(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.past, self.heads = nn.Linear(8, 10), nn.Linear(10 + width, 8)
            self.write = nn.Linear(10 + 4, width)

        def forward(self, seen: Tensor, coming: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            h = torch.relu(self.past(seen))
            mu, logvar = self.heads(torch.cat([h, coming], 1)).chunk(2, 1)
            zs = [mu + torch.randn_like(mu) * (logvar / 2).exp() for _ in range(3)]
            return torch.stack([self.write(torch.cat([h, z], 1)) for z in zs], 1), mu, logvar

    rng = torch.Generator().manual_seed(0)
    batch = torch.rand(8, 8, generator=rng), torch.rand(8, width, generator=rng)
    assert codes(vaedoctor.check(Forecast(), batch, select=["VAE403"])) == []
