import argparse
import torch
from torch import nn


class Reshape(nn.Module):
    def __init__(self, *shape):
        super().__init__()
        self.shape = shape

    def forward(self, x):
        return x.view(-1, *self.shape)


class ConvVAE(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Conv2d(1, 8, 4, 2, 1), nn.ReLU(), nn.Conv2d(8, 16, 4, 2, 1), nn.ReLU(), nn.Flatten())
        self.fc = nn.Linear(16 * 7 * 7, 2 * args.zdim)
        self.decoder = nn.Sequential(
            nn.Linear(args.zdim, 16 * 7 * 7), Reshape(16, 7, 7),
            nn.ConvTranspose2d(16, 8, 4, 2, 1), nn.ReLU(), nn.ConvTranspose2d(8, 1, 4, 2, 1), nn.Sigmoid())

    def forward(self, x):
        mu, logvar = self.fc(self.encoder(x)).chunk(2, dim=1)
        eps = torch.randn(mu.shape, device=device)
        return self.decoder(mu + eps * torch.exp(logvar / 2)), mu, logvar


def loss_function(recon, x, mu, logvar):
    return nn.functional.binary_cross_entropy(recon, x, reduction='sum') - 0.5 * torch.sum(1 + logvar - mu.pow(2) - logvar.exp())


if __name__ == '__main__':
    parser = argparse.ArgumentParser()
    parser.add_argument('--zdim', type=int, default=9)
    parser.add_argument('--lr', type=float, default=1e-3)
    args = parser.parse_args()
    device = 'cuda' if torch.cuda.is_available() else 'cpu'
    model = ConvVAE().to(device)
    optimizer = torch.optim.RMSprop(model.parameters(), lr=args.lr)
    x = torch.rand(16, 1, 28, 28)
    for _ in range(10):
        optimizer.zero_grad()
        loss = loss_function(*model(x)[:1], x, *model(x)[1:])
        loss.backward()
        optimizer.step()
    torch.save(model, 'model.pt')
