import argparse, json, os, sys

import numpy as np
import torch
import torch.nn as nn
from sklearn.datasets import fetch_openml
from torch.utils.data import DataLoader


def parse_arguments():
    p = argparse.ArgumentParser(formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    p.add_argument('--dims', type=lambda s: [int(i) for i in s.split(',')], default=[52, 30, 14])
    p.add_argument('--latent-size', '-l', dest='z', type=int, default=4)
    p.add_argument('--dropout', default=0.1, type=float)
    g = p.add_mutually_exclusive_group()
    g.add_argument('--gpu', action='store_true')
    g.add_argument('--cpu', dest='gpu', action='store_false')
    args = p.parse_args()
    return args


class Encoder(nn.Module):
    def __init__(self, dims, z):
        super().__init__()
        self.layers = nn.Sequential(*[m for a, b in zip(dims, dims[1:]) for m in (nn.Linear(a, b), nn.ReLU())])
        self.mu, self.ls = nn.Linear(dims[-1], z), nn.Linear(dims[-1], z)

    def forward(self, x):
        h = self.layers(x)
        return self.mu(h), self.ls(h)


class VAE(nn.Module):
    def __init__(self, opt):
        super().__init__()
        self.opt = opt
        self.encoder = Encoder(opt.dims, opt.z)
        self.decoder = nn.Linear(opt.z, opt.dims[0])
        self.name = opt.run_name

    def forward(self, x):
        mu, log_sigma = self.encoder(x)
        z = mu + torch.exp(log_sigma) * torch.randn_like(mu)
        return self.decoder(z), mu, log_sigma


def main():
    args = parse_arguments()
    args.run_name = 'run-%d' % args.z
    x = fetch_openml('mnist_784')
    loader = DataLoader(x, 100)
    model = VAE(args)
    optim = torch.optim.Adam(model.parameters())
    best = np.inf
    json.dump(vars(args), open(os.path.join('out', 'args.json'), 'w'))


main()
