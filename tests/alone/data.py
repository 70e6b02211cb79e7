"""Classes of which it is hard to tell what data their forward takes."""

DATA = {
    "a whole number for forward": """
        class VAE(nn.Module):
            def __init__(self):
                super().__init__()
                self.up, self.down = nn.Linear(20, 12), nn.Linear(6, 20)
            def forward(self, x, every: int):
                z, mu, logvar = drawn(self.up(x[: x.shape[0] // every]))
                return self.down(z), mu, logvar
    """,
    "a factor that is a column": """
        class VAE(nn.Module):
            def __init__(self):
                super().__init__()
                self.up, self.down = nn.Linear(20, 12), nn.Linear(7, 20)
            def forward(self, x, size_factor):
                z, mu, logvar = drawn(self.up(x))
                return self.down(torch.cat([z, size_factor], 1)), mu, logvar
    """,
    "a picture that lies": """
        class VAE(nn.Module):
            def __init__(self):
                super().__init__()
                self.up = nn.Conv2d(3, 10, 8, 8)
                self.heads, self.back = nn.Linear(10 * 4 * 7, 12), nn.Linear(6, 10 * 4 * 7)
                self.down = nn.ConvTranspose2d(10, 3, 8, 8)
            def forward(self, x):
                z, mu, logvar = drawn(self.heads(self.up(x).flatten(1)))
                return self.down(self.back(z).view(-1, 10, 4, 7)), mu, logvar
    """,
    "a long series that is turned": """
        class VAE(nn.Module):
            def __init__(self, seq_len=1500):
                super().__init__()
                self.up = nn.Conv1d(1, 2, 4, 4)
                self.heads, self.down = nn.Linear(seq_len // 2, 12), nn.Linear(6, seq_len)
            def forward(self, x):
                z, mu, logvar = drawn(self.heads(self.up(x.permute(0, 2, 1)).flatten(1)))
                return self.down(z).unsqueeze(2), mu, logvar
    """,
    "a label that is joined to the picture": """
        class VAE(nn.Module):
            def __init__(self):
                super().__init__()
                self.up, self.heads = nn.Conv2d(2, 4, 4, 4), nn.Linear(4 * 7 * 7, 12)
                self.down = nn.Linear(6, 784)
            def forward(self, x, y):
                plane = torch.ones_like(x) * F.one_hot(y, x.shape[2])[:, None, None]
                h = self.up(torch.cat((x, plane), 1))
                z, mu, logvar = drawn(self.heads(h.flatten(1)))
                return self.down(z).view_as(x), mu, logvar
    """,
    "pictures of one size": """
        class VAE(nn.Module):
            def __init__(self):
                super().__init__()
                self.tags, self.up = nn.Linear(9, 144), nn.Conv2d(4, 2, 4, 4)
                self.heads, self.down = nn.Linear(18, 12), nn.Linear(6, 432)
            def forward(self, x, tags):
                plane = self.tags(tags).reshape(-1, 1, 12, 12)
                h = self.up(torch.cat((x, plane), 1))
                z, mu, logvar = drawn(self.heads(h.flatten(1)))
                return self.down(z).view(-1, 3, 12, 12), mu, logvar
    """,
    "a method `train` that takes data": """
        class VAE(nn.Module):
            def __init__(self):
                super().__init__()
                self.up, self.down = nn.Linear(20, 12), nn.Linear(6, 20)
            def forward(self, x):
                z, mu, logvar = drawn(self.up(x))
                return self.down(z), mu, logvar
            def train(self, table, epochs=3):
                raise RuntimeError(len(table))
    """,
    "a series of a told length": """
        class VAE(nn.Module):
            def __init__(self, ticks=6):
                super().__init__()
                self.ticks = ticks
                self.up, self.heads = nn.GRU(3, 8, batch_first=True), nn.Linear(8, 12)
                self.down = nn.Linear(6, 3)
            def forward(self, x):
                z, mu, logvar = drawn(self.heads(self.up(x)[0][:, -1]))
                return self.down(z[:, None].repeat(1, self.ticks, 1)), mu, logvar
            def loss_function(self, recon, x, mu, logvar):
                kl = -0.5 * (1 + logvar - mu**2 - logvar.exp()).sum(1).mean()
                return (recon - x).square().sum((1, 2)).mean() + kl
    """,
    "data by name, as the annotation says": """
        class VAE(nn.Module):
            def __init__(self):
                super().__init__()
                self.downs = nn.ModuleDict({"red": nn.Linear(6, 9), "blue": nn.Linear(6, 14)})
                self.encs = nn.ModuleDict({"red": nn.Linear(9, 12), "blue": nn.Linear(14, 12)})
            def forward(self, tables: dict[str, torch.Tensor]):
                h = sum(self.encs[k](tables[k]) for k in self.encs if k in tables)
                z, mu, logvar = drawn(h)
                return {k: down(z) for k, down in self.downs.items()}, mu, logvar
    """,
    "data by name inside an object": """
        class VAE(nn.Module):
            def __init__(self):
                super().__init__()
                self.encs = nn.ModuleDict({"red": nn.Linear(9, 12), "blue": nn.Linear(14, 12)})
                self.downs = nn.ModuleDict({"red": nn.Linear(6, 9), "blue": nn.Linear(6, 14)})
            def forward(self, batch):
                h = sum(self.encs[k](batch.tables[k]) for k in batch.tables)
                z, mu, logvar = drawn(h)
                return {k: down(z) for k, down in self.downs.items()}, mu, logvar
    """,
    "an optional part of the kind that gives what is asked, as wide as it gives": """
        class Encoder(nn.Module):
            def __init__(self, x_dim, latent_dim, hidden_dims):
                super().__init__()
                self.up = nn.Linear(x_dim, hidden_dims[0])
                self.heads = nn.Linear(hidden_dims[0], 2 * latent_dim)
            def forward(self, x):
                return {"cont": self.heads(torch.relu(self.up(x)))}
        class JointEncoder(Encoder):
            def __init__(self, x_dim, latent_dim, hidden_dims, n_kinds):
                super().__init__(x_dim, latent_dim, hidden_dims)
                self.kinds = nn.Linear(x_dim, n_kinds + 0 * hidden_dims[2])
            def forward(self, x):
                return {**super().forward(x), "kind": self.kinds(x).softmax(1)}
        class Decoder(nn.Module):
            def __init__(self, latent_dim, x_dim):
                super().__init__()
                self.down = nn.Linear(latent_dim, x_dim)
            def forward(self, z):
                return self.down(z)
        class VAE(nn.Module):
            def __init__(self, x_dim, encoder: nn.Module = None, decoder: nn.Module = None):
                super().__init__()
                self.encoder, self.decoder = encoder, decoder
                self.scale = nn.Linear(x_dim, x_dim)
            def forward(self, x):
                found = self.encoder(self.scale(x))
                z, mu, logvar = drawn(found["cont"])
                return self.decoder(torch.cat((z, found["kind"]), 1)), mu, logvar
    """,
    "two places of one argument, channels last": """
        class VAE(nn.Module):
            def __init__(self, n_kinds: int = 5, length: int = 12):
                super().__init__()
                self.up, self.down = nn.Conv1d(n_kinds, 12, 1), nn.Conv1d(6, n_kinds, 1)
            def forward(self, data):
                seen, masked = data[:][0], data[:][1]
                z, mu, logvar = drawn(self.up(masked.permute(0, 2, 1)))
                return self.down(z).permute(0, 2, 1) * seen.new_ones(()), mu, logvar
    """,
    "a sequence of names": """
        class VAE(nn.Module):
            def __init__(self, kinds: Sequence[str], width: int):
                super().__init__()
                self.ups = nn.ModuleDict({k: nn.Linear(width, 12) for k in kinds})
                self.down = nn.Linear(6, width)
            def forward(self, x):
                z, mu, logvar = drawn(sum(up(x) for up in self.ups.values()))
                return self.down(z), mu, logvar
    """,
    "points with their places": """
        class VAE(nn.Module):
            def __init__(self):
                super().__init__()
                self.table, self.up = nn.Embedding(20, 8), nn.Linear(8 + 3 * 2, 12)
                self.down = nn.Linear(6, 20)
            def forward(self, kinds, coords):
                near = torch.cat([coords, coords.sin(), coords.cos()], -1)
                z, mu, logvar = drawn(self.up(torch.cat([self.table(kinds), near], -1)).mean(1))
                return self.down(z), mu, logvar
    """,
    "a condition that only the decoder takes": """
        class VAE(nn.Module):
            def __init__(self, width, latent_dim, group_dim):
                super().__init__()
                self.up = nn.Linear(width, latent_dim)
                self.down = nn.Linear(latent_dim + group_dim, width)
            def enc(self, x):
                return self.up(x)
            def dec(self, z, group):
                return self.down(torch.cat([z, group], dim=1))
    """,
    "pictures by name, of the shape that each part keeps": """
        class Part(nn.Module):
            def __init__(self, sides):
                super().__init__()
                self.sides = sides
                self.up = nn.Linear(sides[0] * sides[1], 12)
            def forward(self, x):
                assert x.shape[1:] == self.sides, "pictures"
                return self.up(x.flatten(1))
        class VAE(nn.Module):
            def __init__(self):
                super().__init__()
                self.encs = nn.ModuleDict({"red": Part((4, 6)), "blue": Part((5, 7))})
                self.down = nn.Linear(6, 24)
            def forward(self, x):
                z, mu, logvar = drawn(sum(self.encs[k](x[k]) for k in self.encs))
                return self.down(z).view(-1, 4, 6), mu, logvar
    """,
    "a fixed filter before the first layer": """
        class VAE(nn.Module):
            def __init__(self):
                super().__init__()
                self.register_buffer("bands", torch.ones(12, 1, 2, 2))
                self.up, self.down = nn.Conv2d(12, 12, 1), nn.ConvTranspose2d(6, 3, 2, stride=2)
            def forward(self, x):
                h = F.conv2d(x, self.bands.float(), stride=2, groups=3)
                z, mu, logvar = drawn(self.up(h))
                return self.down(z), mu, logvar
    """,
    "a flag among data is a column": """
        class VAE(nn.Module):
            def __init__(self, width):
                super().__init__()
                self.up, self.down = nn.Linear(width, 12), nn.Linear(6, width)
            def forward(self, tensors):
                rows = tensors["table"].new_tensor(tensors["sample"].tolist())
                z, mu, logvar = drawn(self.up(tensors["table"]) + 0 * rows)
                return self.down(z), mu, logvar
    """,
}
