import torch
from sacred import Experiment
from sacred.observers import FileStorageObserver
from torch import nn

ex = Experiment("vae")
ex.observers.append(FileStorageObserver("my_runs"))


@ex.config
def cfg():
    latent_dim = 6
    hidden_dim = 29
    input_dim = 3 * hidden_dim


class VAE(nn.Module):
    def __init__(self, input_dim, hidden_dim, latent_dim):
        super().__init__()
        self.h = nn.Linear(input_dim, hidden_dim)
        self.m = nn.Linear(hidden_dim, latent_dim)
        self.s = nn.Linear(hidden_dim, latent_dim)
        self.d = nn.Linear(latent_dim, input_dim)

    def forward(self, x):
        h = torch.relu(self.h(x))
        m, s = self.m(h), self.s(h)
        return self.d(m + torch.exp(.5 * s) * torch.randn_like(s)), m, s


@ex.capture
def build(input_dim, hidden_dim, latent_dim):
    return VAE(input_dim, hidden_dim, latent_dim)


@ex.automain
def main(input_dim, hidden_dim, latent_dim):
    model = VAE(input_dim, hidden_dim, latent_dim)
    torch.save(model, "model.pt")
