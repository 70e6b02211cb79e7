"""A script without a class for its model: its loop joins an encoder and a decoder."""

from pathlib import Path

import pytest

from vaedoctor.checkup import examine_subject
from vaedoctor.finding import Report
from vaedoctor.subject.errors import TargetError
from vaedoctor.subject.target import load, loaded

HEAD = """
import torch
from torch import nn
from torch.nn import functional as F

device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
"""
CLASSES = (
    HEAD
    + """
class Encoder(nn.Module):
    def __init__(self, width, latent):
        super().__init__()
        self.body, self.heads = nn.Linear(width, 20), nn.Linear(20, 2 * latent)

    def forward(self, x):
        return self.heads(torch.tanh(self.body(x))).chunk(2, -1)

class Decoder(nn.Module):
    def __init__(self, latent, width):
        super().__init__()
        self.body, self.out = nn.Linear(latent, 20), nn.Linear(20, width)

    def forward(self, z):
        return self.out(torch.tanh(self.body(z)))
"""
)
STEP = """
mu, logvar = {enc}(x)
z = mu + torch.exp(0.5 * logvar) * torch.randn_like(mu)
recon = {dec}(z)
rec = F.mse_loss(recon, x, reduction="none").sum(1).mean()
kl = -0.5 * (1 + logvar - mu ** 2 - logvar.exp()).sum(1).mean()
"""


def _step(indent: int, encoder: str, decoder: str) -> str:
    lines = STEP.format(enc=encoder, dec=decoder).strip().splitlines()
    return "".join(f"{' ' * indent}{line}\n" for line in lines)


SHAPES = {
    "no class at all": HEAD
    + """
data = torch.randn(256, 11).to(device)
encoder = nn.Sequential(nn.Linear(11, 20), nn.Tanh(), nn.Linear(20, 6)).to(device)
decoder = nn.Sequential(nn.Linear(3, 20), nn.Tanh(), nn.Linear(20, 11)).to(device)
log_scale = nn.Parameter(torch.zeros(11))
both = nn.ModuleList([encoder, decoder])
opt = torch.optim.Adam(list(both.parameters()) + [log_scale])

def posterior(x):
    mu, logvar = encoder(x).chunk(2, -1)
    return torch.distributions.Normal(mu, torch.exp(0.5 * logvar))

def bound(x):
    q = posterior(x)
    mean = decoder(q.rsample())
    like = torch.distributions.Normal(mean, log_scale.exp()).log_prob(x).sum(1)
    prior = torch.distributions.Normal(torch.zeros_like(q.loc), torch.ones_like(q.loc))
    return (like - torch.distributions.kl_divergence(q, prior).sum(1)).mean()

for step in range(100):
    x = data[torch.randint(len(data), (32,))]
    loss = -bound(x)
    opt.zero_grad()
    loss.backward()
    opt.step()
""",
    "two classes, one loop": CLASSES
    + """
data = torch.randn(256, 11)
encoder = Encoder(11, 3).to(device)
decoder = Decoder(3, 11).to(device)
opt = torch.optim.Adam([*encoder.parameters(), *decoder.parameters()])
for x in data.split(32):
    x = x.to(device)
"""
    + _step(4, "encoder", "decoder")
    + """
    loss = rec + kl
    opt.zero_grad()
    loss.backward()
    opt.step()
""",
    "handed to a function": CLASSES
    + """
def train(enc, dec, data, opt, epochs=3):
    for epoch in range(epochs):
        for x in data.split(32):
            x = x.to(device)
"""
    + _step(12, "enc", "dec")
    + """
            loss = rec + kl
            opt.zero_grad()
            loss.backward()
            opt.step()

def main():
    width, latent = 11, 3
    first, second = Encoder(width, latent).to(device), Decoder(latent, width).to(device)
    opt = torch.optim.Adam(list(first.parameters()) + list(second.parameters()))
    train(first, second, torch.randn(256, width), opt)

if __name__ == "__main__":
    main()
""",
    "parts of a trainer": CLASSES
    + """
class Trainer:
    def __init__(self, width=11, latent=3):
        self.encoder = Encoder(width, latent).to(device)
        self.decoder = Decoder(latent, width).to(device)
        both = list(self.encoder.parameters()) + list(self.decoder.parameters())
        self.opt = torch.optim.Adam(both)

    def loss(self, x):
"""
    + _step(8, "self.encoder", "self.decoder")
    + """
        return rec + kl

    def fit(self, data):
        for x in data.split(32):
            loss = self.loss(x.to(device))
            self.opt.zero_grad()
            loss.backward()
            self.opt.step()
""",
    "given to a trainer": CLASSES
    + """
class Trainer:
    def __init__(self, encoder, decoder, lr=1e-3):
        self.encoder = encoder
        self.decoder = decoder
        self.opt = torch.optim.Adam([*encoder.parameters(), *decoder.parameters()], lr=lr)

    def fit(self, data):
        for x in data.split(32):
            x = x.to(device)
"""
    + _step(12, "self.encoder", "self.decoder")
    + """
            loss = rec + kl
            self.opt.zero_grad()
            loss.backward()
            self.opt.step()

if __name__ == "__main__":
    enc = Encoder(11, 3)
    dec = Decoder(3, 11)
    Trainer(enc, dec).fit(torch.randn(256, 11))
""",
    "returned side by side": CLASSES
    + """
def build(latent=3):
    encoder = Encoder(11, latent)
    decoder = Decoder(latent, 11)
    return encoder, decoder

def main():
    inner, outer = build()
    inner.to(device), outer.to(device)
    opt = torch.optim.Adam(list(inner.parameters()) + list(outer.parameters()))
    for x in torch.randn(256, 11).split(32):
        x = x.to(device)
"""
    + _step(8, "inner", "outer")
    + """
        loss = rec + kl
        opt.zero_grad()
        loss.backward()
        opt.step()
""",
    "entries of a dict": CLASSES
    + """
nets = {"enc": Encoder(11, 3).to(device), "dec": Decoder(3, 11).to(device)}
opt = torch.optim.Adam([p for net in nets.values() for p in net.parameters()])
for x in torch.randn(256, 11).split(32):
    x = x.to(device)
"""
    + _step(4, "nets['enc']", "nets['dec']")
    + """
    loss = rec + kl
    opt.zero_grad()
    loss.backward()
    opt.step()
""",
    "one class, built twice": HEAD
    + """
class MLP(nn.Module):
    def __init__(self, a, b):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(a, 20), nn.Tanh(), nn.Linear(20, b))

    def forward(self, x):
        return self.net(x)

enc, dec = MLP(11, 6).to(device), MLP(3, 11).to(device)
judge = MLP(3, 1).to(device)
opt = torch.optim.Adam(list(enc.parameters()) + list(dec.parameters()))
opt_judge = torch.optim.Adam(judge.parameters())
for x in torch.randn(256, 11).split(32):
    x = x.to(device)
    mu, logvar = enc(x).chunk(2, -1)
    z = mu + torch.exp(0.5 * logvar) * torch.randn_like(mu)
    recon = dec(z)
    rec = ((recon - x) ** 2).sum(1).mean()
    kl = -0.5 * (1 + logvar - mu ** 2 - logvar.exp()).sum(1).mean()
    loss = rec + kl
    opt.zero_grad()
    loss.backward()
    opt.step()
    told = judge(z.detach()).mean()
    opt_judge.zero_grad()
    told.backward()
    opt_judge.step()
""",
}


def _report(file: Path, text: str) -> Report:
    file.write_text(text)
    with loaded(str(file)) as subject:
        return examine_subject(subject)


@pytest.mark.parametrize("shape", SHAPES)
def test_the_loop_is_the_model_and_a_healthy_one_stays_silent(shape: str, tmp_path: Path) -> None:
    report = _report(tmp_path / "script.py", SHAPES[shape])
    assert not report.findings
    passed = {o.code for o in report.outcomes if o.status == "passed"}
    assert {"VAE302", "VAE701", "VAE703", "VAE107"} <= passed


@pytest.mark.parametrize("shape", [s for s in SHAPES if s != "no class at all"])
def test_a_bug_in_the_loop_is_told_at_its_line(shape: str, tmp_path: Path) -> None:
    guilty = "z = mu.detach() + torch.exp(0.5 * logvar) * torch.randn_like(mu)"
    text = SHAPES[shape].replace(guilty.replace(".detach()", ""), guilty)
    report = _report(tmp_path / "script.py", text)
    (found,) = report.findings
    lines = text.splitlines()
    assert found.code == "VAE302"
    assert found.at is not None
    assert guilty in lines[found.at.line - 1]


def test_a_part_that_the_optimizer_is_not_given_is_told(tmp_path: Path) -> None:
    shape = SHAPES["two classes, one loop"]
    text = shape.replace("[*encoder.parameters(), *decoder.parameters()]", "encoder.parameters()")
    report = _report(tmp_path / "script.py", text)
    assert [f.code for f in report.findings] == ["VAE107"]


def test_what_another_optimizer_trains_is_no_part(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(SHAPES["one class, built twice"])
    subject = load(str(tmp_path / "script.py"))
    assert [n for n, _ in subject.model.named_children()] == ["enc", "dec"]


ADVERSARIES = (
    CLASSES
    + """
maker, judge = Decoder(3, 11), Encoder(11, 1)
opt_maker = torch.optim.Adam(maker.parameters())
opt_judge = torch.optim.Adam(judge.parameters())
for x in torch.randn(256, 11).split(32):
    made = maker(torch.randn(32, 3))
    loss_judge = (judge(made.detach())[0] - judge(x)[0]).mean()
    loss_judge.backward()
    opt_judge.step()
    loss_maker = -judge(made)[0].mean()
    loss_maker.backward()
    opt_maker.step()
"""
)


@pytest.mark.parametrize("text", [ADVERSARIES, CLASSES], ids=["trained apart", "no loop"])
def test_modules_that_no_loop_trains_together_are_asked_for(text: str, tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(text)
    with pytest.raises(TargetError, match="holds 2 models"):
        load(str(tmp_path / "script.py"))


JUDGE = """
class Judge(nn.Module):
    def __init__(self, width=11):
        super().__init__()
        self.out = nn.Linear(width, 1)

    def forward(self, x):
        return self.out(x)
"""
SAMPLER = """
class Whole(nn.Module):
    def __init__(self, width=11, latent=3):
        super().__init__()
        self.encoder, self.decoder = Encoder(width, latent), Decoder(latent, width)

    def forward(self, x):
        mu, logvar = self.encoder(x)
        return self.decoder(draw(mu, logvar)), mu, logvar

def draw(mu, logvar):
    return mu + torch.randn_like(mu) * torch.exp(0.5 * logvar)
"""


@pytest.mark.parametrize("names", [["Whole"], ["Whole", "Other"]], ids=["one", "two"])
def test_the_only_model_that_draws_noise_is_meant(names: list[str], tmp_path: Path) -> None:
    samplers = [SAMPLER.replace("Whole", n) for n in names]
    (tmp_path / "script.py").write_text("".join([CLASSES, JUDGE, *samplers]))
    if len(names) == 1:
        assert type(load(str(tmp_path / "script.py")).model).__name__ == "Whole"
    else:
        with pytest.raises(TargetError, match="holds 3 models"):
            load(str(tmp_path / "script.py"))


def test_a_script_that_names_no_device_is_not_blamed_for_one(tmp_path: Path) -> None:
    lines = SHAPES["two classes, one loop"].replace(".to(device)", "").splitlines()
    text = "\n".join(line for line in lines if "device" not in line)
    assert not _report(
        tmp_path / "a.py", text.replace("randn_like(mu)", "randn(mu.shape)")
    ).findings
