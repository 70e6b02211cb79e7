"""A class that reads the command line through a global, as research code does."""
import argparse
import os
import time

import torch
import torch.nn as nn
import torch.nn.functional as F
import wandb


def get_args():
    parser = argparse.ArgumentParser()
    group = parser.add_argument_group("model")
    group.add_argument("-z", "--latent_dim", type=int, default="16")
    group.add_argument("--hidden", type=int, nargs="+", default=[48, 24])
    group.add_argument("--beta", type=float, required=True)
    parser.add_argument("--dataset", choices=["mnist", "omniglot"], required=True)
    parser.add_argument("--tag", type=str)
    return parser.parse_args()


opt = vars(get_args())
run_dir = os.path.join("runs", time.strftime("%Y%m%d"))
os.makedirs(run_dir)
wandb.init(project="vae", config=opt)
Z = opt["latent_dim"]


class BetaVAE(nn.Module):
    def __init__(self):
        super().__init__()
        sizes = [196] + opt["hidden"]
        self.down = nn.ModuleList(nn.Linear(a, b) for a, b in zip(sizes, sizes[1:]))
        self.heads = nn.Linear(sizes[-1], 2 * Z)
        self.up = nn.Linear(Z, 196)

    def forward(self, x):
        for layer in self.down:
            x = F.elu(layer(x))
        mu, logvar = self.heads(x).chunk(2, 1)
        z = mu + (0.5 * logvar).exp() * torch.randn_like(mu)
        return self.up(z), mu, logvar


net = BetaVAE()
wandb.watch(net)
opt_g = torch.optim.Adam(net.parameters(), 1e-3)
