import fire
import torch
from torch import nn, Tensor


class Autoencoder(nn.Module):
    def __init__(self, features: int, code: int) -> None:
        super().__init__()
        self.to_code = nn.Linear(features, 2 * code)
        self.from_code = nn.Linear(code, features)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        loc, scale = self.to_code(x).chunk(2, -1)
        scale = nn.functional.softplus(scale)
        return self.from_code(torch.distributions.Normal(loc, scale).rsample()), loc, scale


def train(features: int = 64, code: int = 3, epochs: int = 5):
    model = Autoencoder(features, code)
    optimizer = torch.optim.Adam(model.parameters())
    return model, optimizer


fire.Fire(train)
