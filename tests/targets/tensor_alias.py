import argparse
import os
import numpy as np
import itertools

import torchvision.transforms as transforms
from torchvision.utils import save_image
from torch.utils.data import DataLoader
from torchvision import datasets
from torch.autograd import Variable

import torch.nn as nn
import torch.nn.functional as F
import torch

os.makedirs("images", exist_ok=True)

parser = argparse.ArgumentParser()
parser.add_argument("--n_epochs", type=int, default=200, help="number of epochs of training")
parser.add_argument("--latent_dim", type=int, default=10, help="dimensionality of the latent code")
parser.add_argument("--img_size", type=int, default=16, help="size of each image dimension")
parser.add_argument("--channels", type=int, default=1, help="number of image channels")
opt = parser.parse_args()
print(opt)

img_shape = (opt.channels, opt.img_size, opt.img_size)
cuda = True if torch.cuda.is_available() else False
Tensor = torch.cuda.FloatTensor if cuda else torch.FloatTensor


def reparameterization(mu, logvar):
    std = torch.exp(logvar / 2)
    sampled_z = Variable(Tensor(np.random.normal(0, 1, (mu.size(0), opt.latent_dim))))
    z = sampled_z * std + mu
    return z


class Encoder(nn.Module):
    def __init__(self):
        super(Encoder, self).__init__()
        self.model = nn.Sequential(nn.Linear(int(np.prod(img_shape)), 64), nn.LeakyReLU(0.2, inplace=True))
        self.mu = nn.Linear(64, opt.latent_dim)
        self.logvar = nn.Linear(64, opt.latent_dim)

    def forward(self, img):
        x = self.model(img.view(img.shape[0], -1))
        return reparameterization(self.mu(x), self.logvar(x))


class Autoencoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = Encoder()
        self.decoder = nn.Sequential(nn.Linear(opt.latent_dim, int(np.prod(img_shape))), nn.Tanh())

    def forward(self, img):
        return self.decoder(self.encoder(img)).view(-1, *img_shape)


if cuda:
    torch.backends.cudnn.deterministic = True
net = Autoencoder()
optimizer_G = torch.optim.Adam(itertools.chain(net.encoder.parameters(), net.decoder.parameters()), lr=2e-4)
dataloader = DataLoader(datasets.MNIST("../../data/mnist", train=True, download=True), batch_size=64)
for epoch in range(opt.n_epochs):
    for i, (imgs, _) in enumerate(dataloader):
        save_image(net(imgs), "images/%d.png" % i)
