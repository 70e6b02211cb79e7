import numpy as np
import torch
import torch.nn as nn
import torchvision
from torch.utils.tensorboard import SummaryWriter

device = "cuda"
torch.backends.cudnn.benchmark = True
writer = SummaryWriter()
batch_size, lr, z_dim = 64, 2e-4, 10
image_size = 28 * 28


class VAE(nn.Module):
    def __init__(self, image_size=784, h_dim=50, z_dim=10):
        super().__init__()
        self.enc = nn.Sequential(nn.Linear(image_size, h_dim), nn.LeakyReLU(0.2), nn.Linear(h_dim, z_dim * 2))
        self.dec = nn.Sequential(nn.Linear(z_dim, h_dim), nn.ReLU(), nn.Linear(h_dim, image_size), nn.Sigmoid())

    def reparameterize(self, mu, logvar):
        std = logvar.mul(0.5).exp_()
        esp = torch.randn(*mu.size()).to(device)
        return mu + std * esp

    def forward(self, x):
        mu, logvar = torch.chunk(self.enc(x), 2, dim=1)
        z = self.reparameterize(mu, logvar)
        return self.dec(z), mu, logvar


vae = VAE(image_size, 50, z_dim).cuda()
optimizer = torch.optim.Adam(vae.parameters(), lr=lr)
dataset = torchvision.datasets.MNIST("./data", train=True, transform=torchvision.transforms.ToTensor(), download=True)
loader = torch.utils.data.DataLoader(dataset, batch_size=batch_size, shuffle=True)


def loss_fn(recon_x, x, mu, logvar):
    bce = nn.functional.binary_cross_entropy(recon_x, x, reduction="sum")
    kld = -0.5 * torch.sum(1 + logvar - mu ** 2 - logvar.exp())
    return bce + kld


for epoch in range(50):
    for images, _ in loader:
        images = images.view(images.size(0), -1).cuda()
        recon, mu, logvar = vae(images)
        loss = loss_fn(recon, images, mu, logvar)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    writer.add_scalar("loss", loss.item(), epoch)
    torch.save(vae.state_dict(), "vae.torch")
