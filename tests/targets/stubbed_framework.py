import catalyst.dl as pl
import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision.datasets import CIFAR10
from torchvision.transforms import ToTensor


class Data(pl.DataModule):
    def __init__(self, transform=ToTensor()):
        super().__init__()

    def train_dataloader(self):
        return DataLoader(CIFAR10(".", download=True))


class Tiny(Dataset):
    def __len__(self):
        return 3


class ImageVAE(nn.Module):
    def __init__(self, channels: int = 3, latent: int = 7):
        super().__init__()
        self.conv = nn.Conv2d(channels, 6, 4, stride=4)
        self.heads = nn.Linear(6 * 49, 2 * latent)
        self.lift = nn.Linear(latent, 6 * 49)
        self.deconv = nn.ConvTranspose2d(6, channels, 4, stride=4)

    def forward(self, x: Float[Tensor, "b c h w"]) -> "tuple[Float[Tensor, 'b c h w'], Tensor, Tensor]":
        h = torch.relu(self.conv(x)).flatten(1)
        mu, logvar = self.heads(h).chunk(2, 1)
        z = mu + torch.randn_like(mu) * torch.exp(logvar / 2)
        return self.deconv(self.lift(z).view(-1, 6, 7, 7)), mu, logvar


class LitVAE(pl.Runner):
    def __init__(self):
        super().__init__()
        self.net = ImageVAE()


trainer = pl.Trainer(max_epochs=3)
trainer.fit(LitVAE(), Data())
