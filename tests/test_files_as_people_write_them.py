"""Whole files: counts that only the loss asks for, a graph made by a function, terms in a dict."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

import vaedoctor
from vaedoctor.checkup import examine_subject
from vaedoctor.subject.target import load

HEAD = """
import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torch.distributions import Normal, Poisson, kl_divergence
"""
CELLS = """
class CellVAE(nn.Module):
    def __init__(self, n_genes=20, n_batches=3):
        super().__init__()
        self.enc, self.dec = nn.Linear(n_genes, 8), nn.Linear(4 + n_batches, n_genes)
    def forward(self, counts, batch_index):
        m, s = self.enc(torch.log1p(counts)).chunk(2, 1)
        q = Normal(m, F.softplus(s))
        z = q.rsample()
        onehot = F.one_hot(batch_index, 3).to(z.dtype)
        return q, Poisson(F.softplus(self.dec(torch.cat([z, onehot], 1))))
    def loss(self, counts, batch_index):
        q, p = self(counts, batch_index)
        prior = Normal(torch.zeros_like(q.loc), torch.ones_like(q.scale))
        return (kl_divergence(q, prior).sum(1) - p.log_prob(counts).sum(1)).mean()
"""
GRAPH = """
class VGAE(nn.Module):
    def __init__(self, width=7):
        super().__init__()
        self.first = nn.Parameter(torch.randn(width, 6) / 9)
        self.mu, self.logstd = (nn.Parameter(torch.randn(6, 3) / 9) for _ in range(2))
    def forward(self, x, adj):
        h = torch.relu(adj @ x @ self.first)
        mu, logstd = adj @ h @ self.mu, adj @ h @ self.logstd
        z = mu + torch.randn_like(mu) * logstd.exp()
        return z @ z.t(), mu, logstd
def normalize(a):
    d = a.sum(1).rsqrt()
    return d[:, None] * a * d
def loss_function(preds, labels, mu, logstd, n):
    bce = F.binary_cross_entropy_with_logits(preds, labels)
    return bce - 0.5 / n ** 2 * torch.sum(1 + 2 * logstd - mu ** 2 - (2 * logstd).exp())
def main():
    x = torch.randn(11, 7)
    label = (torch.rand(11, 11) < 0.2).float()
    label = ((label + label.t() + torch.eye(11)) > 0).float()
    adj = normalize(label)
    model = VGAE()
    optimizer = torch.optim.Adam(model.parameters())
    for _ in range(10):
        preds, mu, logstd = model(x, adj)
        loss = loss_function(preds, label, mu, logstd, 11)
        loss.backward()
        optimizer.step()
if __name__ == "__main__":
    main()
"""
TERMS = """
class VAE(nn.Module):
    def __init__(self):
        super().__init__()
        self.up, self.down = nn.Linear(12, 6), nn.Linear(3, 12)
    def forward(self, x):
        mu, logvar = self.up(x).chunk(2, 1)
        z = mu + {noise} * (logvar / 2).exp()
        return self.down(z), mu, logvar
    def compute_loss(self, x):
        r, mu, logvar = self(x)
        rec = ((r - x) ** 2).sum(1)
        kl = 0.5 * (mu ** 2 + logvar.exp() - 1 - logvar).sum(1)
        return {{"loss": (rec + kl).mean(), "rec": rec.mean(), "kl": kl.mean()}}
"""


@pytest.fixture(autouse=True)
def _validated() -> None:
    """Some libraries that other tests import switch off what distributions check."""
    torch.distributions.Distribution.set_default_validate_args(True)


def checked(tmp_path: Path, text: str, name: str) -> vaedoctor.Report:
    (tmp_path / "mymodel.py").write_text(HEAD + text)
    return examine_subject(load(f"{tmp_path / 'mymodel.py'}:{name}"))


def codes(report: vaedoctor.Report) -> list[str]:
    return [f.code for f in report.findings]


def test_a_batch_of_counts_where_only_the_loss_asks_for_them(tmp_path: Path) -> None:
    report = checked(tmp_path, CELLS, "CellVAE")
    assert codes(report) == []
    assert "8×20 counts" in str(report.notes)
    assert "found: method `loss`" in str(report.notes)


INLINE = "d = label.sum(1).rsqrt()\n    adj = d[:, None] * label * d[None, :]"


@pytest.mark.parametrize("adjacency", ["adj = normalize(label)", INLINE])
def test_a_graph_that_the_file_makes(tmp_path: Path, adjacency: str) -> None:
    report = checked(tmp_path, GRAPH.replace("adj = normalize(label)", adjacency), "VGAE")
    assert codes(report) == []
    assert "your own example" in str(report.notes)


def test_data_of_the_file_that_does_not_go_with_a_made_up_batch_is_no_error(tmp_path: Path) -> None:
    text = GRAPH.replace("x = torch.randn(11, 7)", "x = torch.load('x.pt')")
    report = checked(tmp_path, text, "VGAE")
    assert codes(report) == []
    assert "with the file's own data beside a batch that is made up" in str(report.notes)


def test_a_total_beside_its_averaged_terms_is_the_loss(tmp_path: Path) -> None:
    report = checked(tmp_path, TERMS.format(noise="torch.rand_like(mu)"), "VAE")
    assert codes(report) == ["VAE304"]


def test_noise_that_new_tensor_brings_in_is_noise(tmp_path: Path) -> None:
    drawn = "mu.new_tensor(np.random.default_rng().standard_normal(tuple(mu.shape)))"
    report = checked(tmp_path, TERMS.format(noise=drawn), "VAE")
    assert codes(report) == ["VAE310"]
    assert report.findings[0].severity.name == "WARNING"


@pytest.mark.filterwarnings("ignore:To copy construct")
def test_new_tensor_of_the_sample_cuts_its_gradient(tmp_path: Path) -> None:
    text = TERMS.format(noise="torch.randn_like(mu)")
    text = text.replace("self.down(z)", "self.down(x.new_tensor(z))")
    report = checked(tmp_path, text, "VAE")
    assert codes(report) == ["VAE302"]


def test_a_constant_picked_by_an_index_is_the_constants_matter(tmp_path: Path) -> None:
    text = CELLS.replace("F.one_hot(batch_index, 3).to(z.dtype)", "torch.eye(3)[batch_index.cpu()]")
    report = checked(tmp_path, text, "CellVAE")
    assert codes(report) == ["VAE202"]
    assert "`eye`" in report.findings[0].message


LADDER = """
class Ladder(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.top, self.bottom = nn.Linear(12, 10), nn.Linear(10, 4), nn.Linear(12, 6)
        self.prior, self.down = nn.Linear(2, 6), nn.Linear({width}, 12)
    def sample(self, mean, log_std):
        return mean + log_std.exp() * torch.randn_like(mean)
    def forward(self, x):
        h = torch.tanh(self.first(x))
        m2, s2 = self.top(h).chunk(2, 1)
        z2 = self.sample(m2, s2)
        m1, s1 = self.bottom(torch.cat([h, z2], 1)).chunk(2, 1)
        z1 = self.sample(m1, s1)
        {more}
        return self.down(torch.cat([{decoded}], 1)), (m1, s1), (m2, s2), self.prior(z2).chunk(2, 1)
    def loss(self, x):
        r, q1, q2, p1 = self(x)
        zero = torch.zeros_like(q2[0])
        kl = self.kl(*q1, *p1) + self.kl(*q2, zero, zero)
        return (0.5 * ((r - x) ** 2).sum(1) + kl).mean()
    def kl(self, m, s, n, t):
        return (t - s + 0.5 * ((2 * s).exp() + (m - n) ** 2) * (-2 * t).exp() - 0.5).sum(1)
"""


@pytest.mark.parametrize(
    ("more", "decoded", "width", "expected", "line"),
    [
        ("pass", "z1, z2", 5, [], ""),
        ("pass", "z1, z2, m1", 8, ["VAE401"], "self.down(torch"),
        ("z1 = m1", "z1, z2", 5, ["VAE307"], "z1 = self.sample"),
        ("pass", "m1, z2", 5, ["VAE307"], "self.down(torch"),
    ],
)
def test_a_lower_latent_that_is_not_decoded_as_it_is_drawn(
    tmp_path: Path, more: str, decoded: str, width: int, expected: list[str], line: str
) -> None:
    report = checked(tmp_path, LADDER.format(more=more, decoded=decoded, width=width), "Ladder")
    assert codes(report) == expected
    for finding in report.findings:
        assert line in text_at(tmp_path, finding)


LOST = """
class VAE(nn.Module):
    def __init__(self):
        super().__init__()
        self.up, self.mid, self.down = nn.Linear(12, 6), nn.Linear(3, 5), nn.Linear(5, 12)
    def draw(self, mu, logvar):
        {draw}
    def forward(self, x):
        mu, logvar = self.up(x).chunk(2, 1)
        z = self.draw(mu, logvar)
        {decode}
        return self.down(torch.tanh(h)), mu, logvar
    def loss(self, x):
        r, mu, logvar = self.forward(x)
        kl = 0.5 * (mu ** 2 + logvar.exp() - 1 - logvar).sum(1)
        return (((r - x) ** 2).sum(1) + kl).mean()
"""
DROPPED = "torch.randn_like(mu).mul((logvar / 2).exp()).add(mu); return mu"
DRAWN = "return mu + torch.randn_like(mu) * (logvar / 2).exp()"


@pytest.mark.parametrize(
    ("draw", "decode", "code", "line"),
    [
        (DROPPED, "h = self.mid(z)", "VAE307", "add(mu)"),
        (DRAWN, "h = self.mid(torch.zeros_like(z))", "VAE402", "zeros_like"),
        (DRAWN, "h = self.mid(z); h = self.mid.bias.expand_as(h)", "VAE402", "expand_as"),
    ],
)
def test_the_line_where_the_sample_is_lost(
    tmp_path: Path, draw: str, decode: str, code: str, line: str
) -> None:
    report = checked(tmp_path, LOST.format(draw=draw, decode=decode), "VAE")
    first = report.findings[0]
    assert first.code == code
    assert line in text_at(tmp_path, first)


def text_at(tmp_path: Path, finding: vaedoctor.Finding) -> str:
    assert finding.at is not None
    return (tmp_path / "mymodel.py").read_text().splitlines()[finding.at.line - 1]


TRAINED = """
class VAE(nn.Module):
    def __init__(self):
        super().__init__()
        self.up, self.down = nn.Linear(12, 6), nn.Linear(3, 12)
    def forward(self, x):
        mu, logvar = self.up(x).chunk(2, 1)
        return self.down(mu + torch.randn_like(mu) * (logvar / 2).exp()), mu, logvar
    def loss(self, x):
        r, mu, logvar = self(x)
        kl = 0.5 * (mu ** 2 + logvar.exp() - 1 - logvar).sum(1)
        return (((r - x) ** 2).sum(1) + kl).mean()
"""
HALF = """
    def configure_optimizers(self):
        return torch.optim.Adam(self.down.parameters(), lr=1e-3)
"""
EXPERIMENT = """
class Experiment:
    def __init__(self, lr):
        self.model = VAE()
        params = [p for part in ({parts},) for p in part.parameters()]
        self.optimizer = torch.optim.Adam(params, lr=lr)
"""
HANDED = """
class Trainer:
    def __init__(self, vae, args):
        self.vae = vae
        self.opt = torch.optim.AdamW(self.vae.{part}parameters(), lr=args.lr)
Trainer(VAE(), None)
"""
STAGES = """
def first(model):
    opt = torch.optim.Adam(model.up.parameters())
def second(model):
    opt = torch.optim.Adam(model.{part}.parameters())
first(vae := VAE())
second(vae)
"""
UNTOLD = """
vae = VAE()
opt = torch.optim.Adam(vae.up.parameters())
def rest(vae, args):
    return torch.optim.Adam(pick(vae.named_parameters(), args.names))
"""


@pytest.mark.parametrize(
    ("more", "line"),
    [
        (HALF, "torch.optim.Adam(self.down"),
        (EXPERIMENT.format(parts="self.model.up"), "self.optimizer ="),
        (EXPERIMENT.format(parts="self.model.up, self.model.down"), ""),
        (HANDED.format(part="down."), "self.opt ="),
        (HANDED.format(part=""), ""),
        (STAGES.format(part="up"), "torch.optim.Adam(model.up"),
        (STAGES.format(part="down"), ""),
        (UNTOLD, ""),
    ],
)
def test_an_optimizer_is_found_where_people_keep_it(tmp_path: Path, more: str, line: str) -> None:
    report = checked(tmp_path, TRAINED + more, "VAE")
    assert codes(report) == (["VAE107"] if line else [])
    assert all(line in text_at(tmp_path, finding) for finding in report.findings)


MODES = """
    def draw(self, mu, logstd):
        if {flag}:
            return mu + torch.randn_like(mu) * logstd.exp()
        return {evaluated}
"""


@pytest.mark.parametrize(
    ("flag", "evaluated", "code", "line"),
    [
        ("self.training", "mu", "", ""),
        ("not self.training", "mu", "VAE301", "return mu"),
        ("self.training", "mu * logstd.exp()", "VAE309", "return mu * logstd"),
    ],
)
def test_a_decoder_without_weights(
    tmp_path: Path, flag: str, evaluated: str, code: str, line: str
) -> None:
    text = GRAPH.replace("mu + torch.randn_like(mu) * logstd.exp()", "self.draw(mu, logstd)")
    methods = MODES.format(flag=flag, evaluated=evaluated)
    report = checked(tmp_path, text.replace("\ndef normalize", methods + "def normalize"), "VGAE")
    assert codes(report) == ([code] if code else [])
    for finding in report.findings:
        assert line in text_at(tmp_path, finding)
        turned = "the wrong way round" in str(finding.notes)
        assert turned is (code == "VAE301")


def test_a_tiny_scale_beside_a_large_location_is_positive(tmp_path: Path) -> None:
    text = TRAINED.replace("mu, logvar = self.up(x).chunk(2, 1)", "mu, logvar = self.heads(x)")
    heads = """
    def heads(self, x):
        mu, logvar = self.up(x).chunk(2, 1)
        return mu + 40, logvar.clamp({low}, 20)
"""
    assert codes(checked(tmp_path, text + heads.format(low=-30), "VAE")) == []


def test_a_scale_that_the_loss_reads_too_is_misread_where_it_is_drawn(tmp_path: Path) -> None:
    text = TRAINED.replace("(logvar / 2).exp()", "self.var").replace("logvar.exp()", "self.var")
    text = text.replace(
        "        return self.down", "        self.var = logvar.exp()\n        return self.down"
    )
    report = checked(tmp_path, text, "VAE")
    assert codes(report) == ["VAE303"]
    assert "randn_like" in text_at(tmp_path, report.findings[0])


def test_uniform_noise_where_the_kl_is_to_a_learned_prior_is_told_once(tmp_path: Path) -> None:
    text = LADDER.format(more="pass", decoded="z1, z2", width=5)
    text = text.replace("torch.randn_like(mean)", "(2 * torch.rand_like(mean) - 1)")
    report = checked(tmp_path, text, "Ladder")
    assert codes(report) == ["VAE304"]
    assert "rand_like" in text_at(tmp_path, report.findings[0])


UNLOSSED = """
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.enc, self.dec = nn.Linear(12, 8), nn.Linear(8, 12)
        self.mu, self.logvar = nn.Linear(8, 2), nn.Linear(8, 2)
        self.open = nn.Linear(2, 8)
    def forward(self, x):
        h = torch.relu(self.enc(x))
        mu, logvar = self.mu(h), self.logvar(h)
        z = mu + (logvar / 2).exp() * NOISE
        return self.dec(torch.relu(self.open(z))), mu, logvar
"""


@pytest.mark.parametrize("noise", ["torch.rand_like(mu)", "mu.new_empty(mu.shape).uniform_()"])
def test_noise_of_one_sign_needs_no_loss_to_be_told(tmp_path: Path, noise: str) -> None:
    report = checked(tmp_path, UNLOSSED.replace("NOISE", noise), "Net")
    assert [(f.code, f.severity) for f in report.findings] == [("VAE304", "warning")]


@pytest.mark.parametrize("noise", ["torch.randn_like(mu)", "(torch.rand_like(mu) - 0.5)"])
def test_centred_noise_without_a_loss_is_not_judged(tmp_path: Path, noise: str) -> None:
    assert codes(checked(tmp_path, UNLOSSED.replace("NOISE", noise), "Net")) == []


LOSS_OF_TWO_ROWS = """
    def loss_function(self, recon, x, mu, logvar):
        kl = -0.5 * (1 + logvar - mu ** 2 - logvar.exp()).sum(1)
        return F.mse_loss(recon, x, reduction="sum") + kl.REDUCED()
"""


@pytest.mark.parametrize(("reduced", "found"), [("mean", ["VAE711"]), ("sum", [])])
@pytest.mark.parametrize("rows", [2, 3])
def test_two_rows_are_enough_to_tell_a_mean_over_them(
    tmp_path: Path, reduced: str, found: list[str], rows: int
) -> None:
    text = HEAD + UNLOSSED.replace("NOISE", "torch.randn_like(mu)")
    (tmp_path / "mymodel.py").write_text(text + LOSS_OF_TWO_ROWS.replace("REDUCED", reduced))
    subject = load(f"{tmp_path / 'mymodel.py'}:Net")
    subject = replace(subject, batch=replace(subject.batch, args=(torch.rand(rows, 12),)))
    assert codes(examine_subject(subject)) == found


def test_laplace_noise_with_the_kl_of_a_laplace_is_right(tmp_path: Path) -> None:
    kl = "s1 * torch.exp(-(mu.abs() / s1)) + mu.abs() - s1.log() - 1"
    text = TRAINED.replace("torch.randn_like(mu)", "self.noise(mu)").replace(
        "(logvar / 2)", "logvar"
    )
    text = text.replace("0.5 * (mu ** 2 + logvar.exp() - 1 - logvar)", f"({kl})")
    text = text.replace("kl = (", "s1 = logvar.exp(); kl = (")
    noise = """
    def noise(self, like):
        u = torch.rand_like(like) - 0.5
        return -u.sign() * torch.log1p(-2 * u.abs())
"""
    assert codes(checked(tmp_path, text + noise, "VAE")) == []


def test_a_drawn_projection_behind_the_sample_hides_no_location(tmp_path: Path) -> None:
    text = LOST.format(draw=DRAWN, decode="h = z @ nn.init.xavier_uniform_(torch.empty(3, 5))")
    assert codes(checked(tmp_path, text, "VAE")) == ["VAE104", "VAE202"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there it runs")
def test_a_legacy_constructor_of_cuda_is_a_device_spelled_out(tmp_path: Path) -> None:
    text = TRAINED.replace("torch.randn_like(mu)", "torch.cuda.FloatTensor(mu.size()).normal_()")
    assert codes(checked(tmp_path, text, "VAE")) == ["VAE203"]


def test_a_batch_drawn_inside_an_expression_is_the_loops_data(tmp_path: Path) -> None:
    loop = """
def objective(model, x, y):
    r, mu, logvar = model(x)
    kl = 0.5 * (mu ** 2 + logvar.exp() - 1 - logvar).sum(1)
    return (((r - x) ** 2).sum(1) + kl).mean() + 0 * F.one_hot(y, 3).sum()
def fit():
    vae = VAE()
    opt = torch.optim.Adam(vae.parameters())
    x, y = 0, 0
    x = (torch.rand(32, 12) > 0.5).float()
    y = torch.randint(0, 3, (32,))
    verlust = objective(vae, x, y)
    verlust.backward()
"""
    text = TRAINED.split("    def loss(")[0].replace("randn_like", "rand_like")
    assert codes(checked(tmp_path, text + loop, "VAE")) == ["VAE304"]


def test_an_argument_that_nothing_reads_is_a_condition_unused(tmp_path: Path) -> None:
    text = CELLS.replace("F.one_hot(batch_index, 3).to(z.dtype)", "z.new_zeros(len(z), 3)")
    assert codes(checked(tmp_path, text, "CellVAE")) == ["VAE404"]


def test_one_line_that_shares_its_noise_at_two_levels_is_told_once(tmp_path: Path) -> None:
    text = LADDER.format(more="pass", decoded="z1, z2", width=5)
    text = text.replace("torch.randn_like(mean)", "torch.randn_like(mean[:1])")
    assert codes(checked(tmp_path, text, "Ladder")) == ["VAE305"]


def test_halves_that_overlap_are_to_be_cut_apart(tmp_path: Path) -> None:
    text = TRAINED.replace("self.up(x).chunk(2, 1)", "(h := self.up(x))[:, :3], h[:, 1:4]")
    report = checked(tmp_path, text, "VAE")
    assert codes(report) == ["VAE106"]
    assert "chunk(2" in report.findings[0].help


def test_what_the_model_keeps_is_not_moved_by_the_loop_around_it(tmp_path: Path) -> None:
    loop = """
def fit():
    vae = VAE()
    x = torch.rand(32, 12)
    loss = vae.loss(x)
    loss.backward()
"""
    text = TRAINED.replace("super().__init__()", "super().__init__(); self.mix = torch.rand(12)")
    text = text.replace("self.up(x)", "self.up(x * self.mix)")
    report = checked(tmp_path, text + loop, "VAE")
    assert "VAE108" in codes(report)
