import torch
import typer
from rich.progress import track
from torch import nn

app = typer.Typer()


class LaplaceVAE(nn.Module):
    def __init__(self, sizes: list, latent: int, beta: float):
        super().__init__()
        layers = []
        for a, b in zip(sizes[:-1], sizes[1:]):
            layers += [nn.Linear(a, b), nn.ReLU()]
        self.body = nn.Sequential(*layers)
        self.loc, self.log_scale = nn.Linear(sizes[-1], latent), nn.Linear(sizes[-1], latent)
        self.out = nn.Linear(latent, sizes[0])

    def forward(self, x):
        h = self.body(x)
        q = torch.distributions.Laplace(self.loc(h), self.log_scale(h).exp())
        z = q.rsample()
        return self.out(z), q, z


@app.command()
def train(
    width: int = typer.Option(38, help="features"),
    latent: int = typer.Option(default=5),
    beta: float = 1.0,
    epochs: int = 2,
):
    model = LaplaceVAE([width, 24, 12], latent, beta)
    for _ in track(range(epochs)):
        pass


if __name__ == "__main__":
    app()
