import os
import yaml
import torch
from torch import nn

with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "yaml_config.yaml")) as f:
    cfg = yaml.safe_load(f)

LOG = open("log.txt", "w")
LOG.write("started\n")


class VAE(nn.Module):
    def __init__(self, cfg=cfg["model"]):
        super().__init__()
        self.e = nn.Linear(cfg["x_dim"], 2 * cfg["z_dim"])
        self.d = nn.Linear(cfg["z_dim"], cfg["x_dim"])

    def forward(self, x):
        mu, s = self.e(x).chunk(2, -1)
        return self.d(mu + torch.exp(s) * torch.randn_like(s)), mu, s
