"""What a check-up costs, as ratios in one run: `python tests/benchmark.py`.

Three ratios: a cold `vaedoctor check` against a bare process that imports torch, builds the model
and runs one forward and backward pass; a check against one training step of the model (with
Adam's update, and without any, "passes"), in seconds of the processor; and in peak memory above the
imported libraries. Nothing is asserted: machines differ and drift.
"""

from __future__ import annotations

import itertools
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

BARE = """
import torch
from seedvae import VAE, vae_loss
model = VAE(784, 256, 32, 128)
x = torch.rand(16, 784)
vae_loss(*model(x), x).backward()
"""

SEED = """
import torch
from torch import nn


class Encoder(nn.Module):
    def __init__(self, input_dim, hidden_dim, latent_dim):
        super().__init__()
        self.linear1 = nn.Linear(input_dim, hidden_dim)
        self.linear_mu = nn.Linear(hidden_dim, latent_dim)
        self.linear_logvar = nn.Linear(hidden_dim, latent_dim)

    def forward(self, x):
        h = torch.relu(self.linear1(x))
        return self.linear_mu(h), self.linear_logvar(h)


class VAE(nn.Module):
    def __init__(self, input_dim, hidden_dim, latent_dim, linear_output_dim):
        super().__init__()
        self.encoder = Encoder(input_dim, hidden_dim, latent_dim)
        self.linear_latent = nn.Linear(latent_dim, linear_output_dim)
        self.decoder = nn.Linear(linear_output_dim, input_dim)

    def forward(self, x):
        mu, logvar = self.encoder(x)
        z = mu + torch.randn_like(mu) * torch.exp(0.5 * logvar)
        return self.decoder(self.linear_latent(z)), mu, logvar


def vae_loss(recon, mu, logvar, x):
    kl = -0.5 * (1 + logvar - mu**2 - logvar.exp()).sum()
    return (0.5 * (recon - x) ** 2).sum() + kl


if __name__ == "__main__":
    vae = VAE(784, 256, 32, 128)
    recon, mu, logvar = vae(torch.rand(16, 784))
    print(vae_loss(recon, mu, logvar, torch.rand(16, 784)))
"""


def seed() -> tuple[Any, Any, Any]:
    import torch

    space: dict[str, Any] = {"__name__": "seedvae"}
    exec(SEED, space)
    model = space["VAE"](784, 256, 32, 128)
    x = torch.rand(16, 784)
    return model, x, lambda m, x: space["vae_loss"](*m(x), x)


def convolutional() -> tuple[Any, Any, Any]:
    import torch
    from torch import nn

    class ConvVAE(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            widths = (3, 32, 64, 128)
            down = [
                nn.Sequential(nn.Conv2d(a, b, 4, 2, 1), nn.BatchNorm2d(b), nn.ReLU())
                for a, b in itertools.pairwise(widths)
            ]
            self.encoder = nn.Sequential(*down, nn.Flatten())
            self.mu, self.logvar = nn.Linear(8192, 64), nn.Linear(8192, 64)
            self.start = nn.Linear(64, 8192)
            up = [
                nn.Sequential(nn.ConvTranspose2d(a, b, 4, 2, 1), nn.ReLU())
                for a, b in ((128, 64), (64, 32))
            ]
            self.decoder = nn.Sequential(*up, nn.ConvTranspose2d(32, 3, 4, 2, 1))

        def forward(self, x: Any) -> Any:
            h = self.encoder(x)
            mu, logvar = self.mu(h), self.logvar(h)
            z = mu + torch.randn_like(mu) * torch.exp(0.5 * logvar)
            return self.decoder(self.start(z).view(-1, 128, 8, 8)), mu, logvar

    def loss(model: Any, x: Any) -> Any:
        x_hat, mu, logvar = model(x)
        kl = -0.5 * (1 + logvar - mu**2 - logvar.exp()).sum()
        return 0.5 * (x_hat - x).square().sum() + kl

    return ConvVAE(), torch.rand(8, 3, 64, 64), loss


def diffusion(channels: tuple[int, ...], size: int) -> tuple[Any, Any, Any]:
    import torch
    from diffusers import AutoencoderKL

    model = AutoencoderKL(
        block_out_channels=channels,
        down_block_types=("DownEncoderBlock2D",) * len(channels),
        up_block_types=("UpDecoderBlock2D",) * len(channels),
        norm_num_groups=4,
        latent_channels=4,
    )

    def loss(model: Any, x: Any) -> Any:
        posterior = model.encode(x).latent_dist
        x_hat = model.decode(posterior.sample()).sample
        return (x_hat - x).square().sum() + 1e-6 * posterior.kl().sum()

    return model, torch.rand(4, 3, size, size), loss


MODELS: dict[str, Callable[[], tuple[Any, Any, Any]]] = {
    "the seed's VAE": seed,
    "convolutional, 3x64x64": convolutional,
    "AutoencoderKL (8, 16), 32x32": lambda: diffusion((8, 16), 32),
    "AutoencoderKL (32, 64), 64x64": lambda: diffusion((32, 64), 64),
}


def measure(name: str, what: str) -> None:
    """In a process of its own: seconds of the processor, or peak memory above the imports."""
    import torch

    import vaedoctor.checkup
    from vaedoctor.rule import all_rules

    all_rules()  # else imported at the first check, and counted as memory of the model's
    torch.set_num_threads(1)
    model, x, loss = MODELS[name]()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-5)

    def step() -> None:
        optimizer.zero_grad()
        loss(model, x).backward()
        if what != "pass":
            optimizer.step()

    def check() -> None:
        report = vaedoctor.check(model, x, objective=loss)
        assert report.ok, f"{report}"

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    if what in ("time", "pass"):  # a step after every check: both meet the same load of the machine
        pairs = [(_seconds(check), _seconds(step)) for _ in range(4)][1:]
        print(*(statistics.median(side) for side in zip(*pairs, strict=True)))
        return
    for _ in range(3):
        step() if what == "step" else check()
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print((after - before) / 1024)


def _seconds(run: Callable[[], None]) -> float:
    """Seconds of the processor that one run takes, of a short one the mean of several."""
    start, count = time.process_time(), 0
    while not count or time.process_time() - start < 0.2:
        run()
        count += 1
    return (time.process_time() - start) / count


def _spawn(*words: str, cwd: str | None = None) -> tuple[str, float]:
    start = time.perf_counter()
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(words, capture_output=True, text=True, cwd=cwd, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout, time.perf_counter() - start


def cold(pairs: int = 5) -> None:
    """The ratio of whole processes, pair by pair."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "seedvae.py").write_text(SEED)
        (Path(folder) / "bare.py").write_text(BARE)
        check = (sys.executable, "-m", "vaedoctor", "check", "seedvae.py")
        ratios = []
        for i in range(pairs + 1):
            bare = _spawn(sys.executable, "bare.py", cwd=folder)[1]
            ratio = _spawn(*check, cwd=folder)[1] / bare
            ratios += [ratio] if i else []  # the first pair warms the disk
    print(f"cold check / bare process: {statistics.median(ratios):.2f} (median of {pairs} pairs)")


def main() -> None:
    cold()
    print(
        f"{'model':32} {'step ms':>8} {'check ms':>9} {'steps':>6} {'passes':>6} {'MB':>6}"
        f" {'check MB':>9}"
    )
    for name in MODELS:
        check, step = _numbers(name, "time")
        again, passes = _numbers(name, "pass")
        (memory,), (most,) = _numbers(name, "step"), _numbers(name, "check")
        print(
            f"{name:32} {step * 1e3:8.1f} {check * 1e3:9.0f} {check / step:6.1f}"
            f" {again / passes:6.1f} {memory:6.0f} {most:9.0f}"
        )


def _numbers(name: str, what: str) -> list[float]:
    out, _ = _spawn(sys.executable, __file__, name, what)
    return [float(word) for word in out.splitlines()[-1].split()]


if __name__ == "__main__":
    measure(*sys.argv[1:]) if len(sys.argv) == 3 else main()
