from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import torch
import tyro
from accelerate import Accelerator
from torch import nn


@dataclass
class Config:
    """Arguments of the run."""
    out: Path = Path("out")
    width: int = 34
    latent: int = 5
    hidden: list[int] = field(default_factory=lambda: [20, 11])


class Model(nn.Module):
    def __init__(self, config: Config):
        super().__init__()
        dims = [config.width, *config.hidden]
        self.net = nn.Sequential(*(nn.Linear(a, b) for a, b in zip(dims, dims[1:])))
        self.stats = nn.Linear(dims[-1], 2 * config.latent)
        self.dec = nn.Linear(config.latent, config.width)

    def forward(self, x):
        mean, log_std = self.stats(self.net(x)).chunk(2, -1)
        return self.dec(torch.normal(mean, log_std.exp()) * 0 + mean + log_std.exp() * torch.randn_like(mean)), mean, log_std


if __name__ == "__main__":
    config = tyro.cli(Config)
    config.out.mkdir(parents=True)
    model = Accelerator().prepare(Model(config))
