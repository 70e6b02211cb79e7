#!/usr/bin/env python3
# -*- coding: utf-8 -*-
import argparse
import logging
import random
import sys
from pathlib import Path

import matplotlib
matplotlib.use("Agg")
import matplotlib.pyplot as plt
import pandas as pd
import torch
from torch import nn
from torch.distributions import Normal, kl_divergence
from tqdm import tqdm

logging.basicConfig(filename="train.log", level=logging.INFO)
logger = logging.getLogger(__name__)


class VAE(nn.Module):
    def __init__(self, args):
        super().__init__()
        self.args = args
        self.enc = nn.Sequential(nn.Linear(args.input_dim, args.hidden_dim), nn.Tanh())
        self.loc = nn.Linear(args.hidden_dim, args.latent_dim)
        self.scale = nn.Linear(args.hidden_dim, args.latent_dim)
        self.dec = nn.Sequential(nn.Linear(args.latent_dim, args.hidden_dim), nn.Tanh(), nn.Linear(args.hidden_dim, args.input_dim))

    def forward(self, x):
        h = self.enc(x)
        q = Normal(self.loc(h), nn.functional.softplus(self.scale(h)) + 1e-4)
        z = q.rsample()
        recon = self.dec(z)
        kl = kl_divergence(q, Normal(0., 1.)).sum(-1).mean()
        rec = nn.functional.mse_loss(recon, x, reduction="none").sum(-1).mean() / 2
        return {"loss": rec + self.args.beta * kl, "recon": recon, "z": z}


def main(argv=None):
    parser = argparse.ArgumentParser()
    parser.add_argument("data", type=Path, help="a csv")
    parser.add_argument("--input-dim", type=int, default=42)
    parser.add_argument("--hidden-dim", type=int, default=31)
    parser.add_argument("--latent-dim", type=int, default=7)
    parser.add_argument("--beta", type=float, default=1.0)
    parser.add_argument("--gpu", action="store_true")
    args, _ = parser.parse_known_args(argv)
    df = pd.read_csv(args.data)
    model = VAE(args)
    if args.gpu:
        model = model.cuda()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    for _ in tqdm(range(100)):
        batch = torch.tensor(df.sample(32).values)
        loss = model(batch)["loss"]
        loss.backward()
        optimizer.step()
    plt.savefig("loss.png")


if __name__ == "__main__":
    sys.exit(main())
