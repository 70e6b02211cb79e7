"""Small models as source text, for tests that write them into a user's file."""

IMPORTS = "import torch\nfrom torch import nn\n"

VAE = """
class VAE(nn.Module):
    def __init__(self, d=20, z=4):
        super().__init__()
        self.e, self.d = nn.Linear(d, 2 * z), nn.Linear(z, d)

    def forward(self, x):
        mu, logvar = self.e(x).chunk(2, 1)
        return self.d(mu + torch.randn_like(mu) * (logvar / 2).exp()), mu, logvar
"""

ANY_WIDTH = """
class VAE(nn.Module):
    def __init__(self, width=12):
        super().__init__()
        self.up, self.down = nn.Linear(width, 6), nn.Linear(3, width)

    def forward(self, x):
        mu, logvar = self.up(x).chunk(2, -1)
        z = mu + torch.randn_like(mu) * (logvar / 2).exp()
        return self.down(z), mu, logvar
"""
