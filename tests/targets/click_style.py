import click
import torch
from torch import nn


class MLP(nn.Sequential):
    def __init__(self, i, h, o):
        super().__init__(nn.Linear(i, h), nn.ReLU(), nn.Linear(h, o))


class VAE(nn.Module):
    def __init__(self, x_dim, z_dim, hidden):
        super().__init__()
        self.enc = MLP(x_dim, hidden, 2 * z_dim)
        self.dec = MLP(z_dim, hidden, x_dim)

    def forward(self, x):
        mu, log_var = self.enc(x).chunk(2, dim=-1)
        z = mu + torch.exp(log_var / 2) * torch.randn_like(mu)
        return self.dec(z), mu, log_var


@click.command()
@click.option("--x-dim", default=33, show_default=True)
@click.option("--z-dim", default=5)
@click.option("--hidden", "-h", type=int, default=21)
@click.option("--out", type=click.Path(), default="out")
def train(x_dim, z_dim, hidden, out):
    model = VAE(x_dim, z_dim, hidden)
    opt = torch.optim.SGD(model.parameters(), lr=0.01)
    torch.save(model.state_dict(), out)


if __name__ == "__main__":
    train()
