"""The seed's file and every wrong way to add the layer: lines replaced, the guilty one marked.

The file is the answer's three snippets joined, with its example at the bottom. The line that a
finding must name ends in `#!`.
"""

from __future__ import annotations

from dataclasses import dataclass

from vaedoctor import Severity

SEED = """\
import torch
import torch.nn as nn
import torch.distributions as distributions

class Encoder(nn.Module):
    def __init__(self, input_dim, hidden_dim, latent_dim):
        super(Encoder, self).__init__()
        self.linear1 = nn.Linear(input_dim, hidden_dim)
        self.linear_mu = nn.Linear(hidden_dim, latent_dim)
        self.linear_logvar = nn.Linear(hidden_dim, latent_dim)
        self.relu = nn.ReLU()


    def forward(self, x):
        x = self.relu(self.linear1(x))
        mu = self.linear_mu(x)
        logvar = self.linear_logvar(x)
        return mu, logvar

class LatentLayer(nn.Module):
  def __init__(self, latent_dim, output_dim):
    super(LatentLayer, self).__init__()
    self.linear_latent = nn.Linear(latent_dim, output_dim)

  def reparameterize(self, mu, logvar):
        std = torch.exp(0.5 * logvar)
        eps = torch.randn_like(std)
        return mu + eps * std

  def forward(self, mu, logvar):
      z = self.reparameterize(mu, logvar)
      output = self.linear_latent(z)
      return output

class VAE(nn.Module):
    def __init__(self, input_dim, hidden_dim, latent_dim, linear_output_dim):
        super(VAE, self).__init__()
        self.encoder = Encoder(input_dim, hidden_dim, latent_dim)
        self.latent_layer = LatentLayer(latent_dim, linear_output_dim)
        self.decoder = nn.Linear(linear_output_dim, input_dim)

    def forward(self, x):
      mu, logvar = self.encoder(x)
      latent_output = self.latent_layer(mu, logvar)
      reconstructed = self.decoder(latent_output)
      return reconstructed, mu, logvar


#example usage
input_dim = 784 # assuming 28x28 images
hidden_dim = 256
latent_dim = 32
linear_output_dim = 128

vae = VAE(input_dim, hidden_dim, latent_dim, linear_output_dim)

# random input
input_data = torch.randn(16, input_dim)
reconstructed, mu, logvar = vae(input_data)
print("shape of reconstructed image:", reconstructed.shape)
"""

LOSS = """

def loss_function(reconstructed, x, mu, logvar):
    reconstruction = ((reconstructed - x) ** 2).sum() / 2
    kl = -0.5 * torch.sum(1 + logvar - mu.pow(2) - logvar.exp())
    return reconstruction + kl

"""

TRAINING = """
for step in range(10):
    optimizer.zero_grad()
    reconstructed, mu, logvar = vae(input_data)
    loss = loss_function(reconstructed, input_data, mu, logvar)
    loss.backward()
    optimizer.step()
"""

REGISTERED = "    self.linear_latent = nn.Linear(latent_dim, output_dim)\n"
SAMPLED = "      z = self.reparameterize(mu, logvar)\n"
APPLIED = "      output = self.linear_latent(z)\n"
NOISE = "        eps = torch.randn_like(std)\n"
MADE = "        return mu + eps * std\n"
LATENT = "      latent_output = self.latent_layer(mu, logvar)\n"
DECODED = "      reconstructed = self.decoder(latent_output)\n"
OWNED = "        self.latent_layer = LatentLayer(latent_dim, linear_output_dim)\n"
DECODER = "        self.decoder = nn.Linear(linear_output_dim, input_dim)\n"
MODEL = "vae = VAE(input_dim, hidden_dim, latent_dim, linear_output_dim)\n"


@dataclass(frozen=True)
class Bug:
    """One way to write it wrong: lines to replace, and what must be said about it."""

    code: str
    name: str
    edits: tuple[tuple[str, str], ...]
    severity: Severity = Severity.ERROR

    def source(self, *, loss: bool) -> str:
        text = f"{SEED}{TRAINING}" if self.code == "VAE107" else SEED
        for old, new in self.edits:
            assert old in text, old
            text = text.replace(old, new, 1)
        if loss or self.code == "VAE107":
            text = text.replace("\n#example usage", f"{LOSS}#example usage")
        return text


def linear(code: str, name: str, attribute: str, call: str) -> Bug:
    """The latent's own layer, made and called in another way."""
    edits = (REGISTERED, f"    {attribute}\n"), (APPLIED, f"      output = {call}\n")
    return Bug(code, name, edits)


def in_the_vae(code: str, name: str, *, layer: str, forward: str) -> Bug:
    """The layer added to the VAE itself instead of a module of its own."""
    edits = (OWNED, f"        {layer}\n"), (LATENT, f"      {forward}\n")
    return Bug(code, name, edits)


def sampled(code: str, name: str, body: str, severity: Severity = Severity.ERROR) -> Bug:
    """Other lines in the place of drawing the noise and using it."""
    lines = "".join(f"        {line}\n" for line in body.split("; "))
    return Bug(code, name, ((NOISE + MADE, lines),), severity)


def kept(code: str, name: str, made: str, eps: str, severity: Severity = Severity.ERROR) -> Bug:
    """Noise that is made in the constructor and used in every pass."""
    used = (NOISE + MADE, f"        return mu + {eps} * std  #!\n")
    return Bug(code, name, ((REGISTERED, f"{REGISTERED}    {made}\n"), used), severity)


def trained(name: str, made: str) -> Bug:
    """An optimizer that is built too early, or from a part of the model."""
    return Bug("VAE107", name, ((MODEL, f"{MODEL}{made}\n"),))


LAYER = "nn.Linear(latent_dim, output_dim)"
BUGS = [
    linear("VAE101", "list", f"self.layers = [{LAYER}]  #!", "self.layers[0](z)"),
    linear(
        "VAE101", "dict", f"self.layers = {{'latent': {LAYER}}}  #!", "self.layers['latent'](z)"
    ),
    linear("VAE101", "tuple", f"self.layers = (nn.Identity(), {LAYER})  #!", "self.layers[1](z)"),
    linear(
        "VAE101",
        "lambda",
        f"layer = {LAYER}\n    self.layer = lambda z: layer(z)  #!",
        "self.layer(z)",
    ),
    linear(
        "VAE101",
        "appended",
        f"self.layers = []  #!\n    self.layers.append({LAYER})",
        "self.layers[-1](z)",
    ),
    in_the_vae(
        "VAE101",
        "list-in-the-vae",
        layer="self.extra = [LatentLayer(latent_dim, linear_output_dim)]  #!",
        forward="latent_output = self.extra[0](mu, logvar)",
    ),
    in_the_vae(
        "VAE101",
        "dict-in-the-vae",
        layer="self.extra = dict(layer=LatentLayer(latent_dim, linear_output_dim))  #!",
        forward="latent_output = self.extra['layer'](mu, logvar)",
    ),
    Bug(
        "VAE101",
        "decoder-in-a-list",
        (
            (DECODER, "        self.decoder = [nn.Linear(linear_output_dim, input_dim)]  #!\n"),
            (DECODED, "      reconstructed = self.decoder[0](latent_output)\n"),
        ),
    ),
    linear("VAE103", "layer", "self.size = output_dim", "nn.Linear(z.shape[1], self.size)(z)  #!"),
    linear(
        "VAE103",
        "attribute",
        "self.size = output_dim",
        "z\n      self.layer = nn.Linear(z.shape[1], self.size)  #!\n      output = self.layer(z)",
    ),
    in_the_vae(
        "VAE103",
        "module-in-the-vae",
        layer="self.sizes = latent_dim, linear_output_dim",
        forward="latent_output = LatentLayer(*self.sizes)(mu, logvar)  #!",
    ),
    in_the_vae(
        "VAE103",
        "sequential-in-the-vae",
        layer="self.sample = LatentLayer(latent_dim, linear_output_dim)",
        forward="block = nn.Sequential(nn.Linear(128, 128), nn.ReLU())  #!\n"
        "      latent_output = block(self.sample(mu, logvar))",
    ),
    Bug(
        "VAE104",
        "never-called",
        (
            (REGISTERED, f"    self.linear_latent = {LAYER}  #!\n"),
            (APPLIED, "      output = z\n"),
            (DECODER, "        self.decoder = nn.Linear(latent_dim, input_dim)\n"),
        ),
    ),
    Bug(
        "VAE104",
        "beside-another",
        ((REGISTERED, f"{REGISTERED}    self.added = nn.Linear(output_dim, output_dim)  #!\n"),),
    ),
    Bug(
        "VAE104",
        "added-to-the-vae",
        ((DECODER, f"{DECODER}        self.added = nn.Linear(latent_dim, latent_dim)  #!\n"),),
    ),
    Bug(
        "VAE104",
        "block-added-to-the-vae",
        (
            (
                DECODER,
                f"{DECODER}        self.added = nn.Sequential(nn.Linear(32, 32), nn.ReLU())  #!\n",
            ),
        ),
    ),
    Bug("VAE401", "mu", ((SAMPLED, ""), (APPLIED, "      output = self.linear_latent(mu)  #!\n"))),
    Bug(
        "VAE401", "mu-beside-a-sample", ((APPLIED, "      output = self.linear_latent(mu)  #!\n"),)
    ),
    Bug(
        "VAE401",
        "logvar",
        ((SAMPLED, ""), (APPLIED, "      output = self.linear_latent(logvar)  #!\n")),
    ),
    Bug(
        "VAE401",
        "cat",
        (
            (REGISTERED, "    self.linear_latent = nn.Linear(2 * latent_dim, output_dim)\n"),
            (SAMPLED, ""),
            (APPLIED, "      output = self.linear_latent(torch.cat([mu, logvar], dim=1))  #!\n"),
        ),
    ),
    Bug(
        "VAE401",
        "cat-beside-a-sample",
        (
            (REGISTERED, "    self.linear_latent = nn.Linear(2 * latent_dim, output_dim)\n"),
            (APPLIED, "      output = self.linear_latent(torch.cat((mu, logvar), -1))  #!\n"),
        ),
    ),
    Bug(
        "VAE401",
        "cat-with-the-sample",
        (
            (REGISTERED, "    self.linear_latent = nn.Linear(2 * latent_dim, output_dim)\n"),
            (APPLIED, "      output = self.linear_latent(torch.cat([z, mu], 1))  #!\n"),
        ),
        Severity.WARNING,
    ),
    in_the_vae(
        "VAE401",
        "mu-in-the-vae",
        layer="self.added = nn.Linear(latent_dim, linear_output_dim)",
        forward="latent_output = self.added(mu)  #!",
    ),
    in_the_vae(
        "VAE401",
        "cat-in-the-vae",
        layer="self.added = nn.Linear(2 * latent_dim, linear_output_dim)",
        forward="latent_output = self.added(torch.cat([mu, logvar], dim=1))  #!",
    ),
    sampled("VAE302", "sample", "return distributions.Normal(mu, std).sample()  #!"),
    sampled(
        "VAE302",
        "independent-sample",
        "normal = distributions.Normal(mu, std); "
        "return distributions.Independent(normal, 1).sample()  #!",
    ),
    sampled("VAE302", "normal", "return torch.normal(mu, std)  #!"),
    sampled(
        "VAE302", "detach", "eps = torch.randn_like(std); return (mu + eps * std).detach()  #!"
    ),
    sampled("VAE302", "data", "eps = torch.randn_like(std); z = mu + eps * std; return z.data  #!"),
    sampled(
        "VAE302",
        "no-grad",
        "with torch.no_grad():  #!;     eps = torch.randn_like(std);     return mu + eps * std",
    ),
    sampled(
        "VAE302",
        "tolist",
        "z = mu + torch.randn_like(std) * std; return torch.tensor(z.tolist())  #!",
    ),
    sampled(
        "VAE302",
        "numpy",
        "z = mu + torch.randn_like(std) * std; return torch.from_numpy(z.detach().numpy())  #!",
    ),
    sampled(
        "VAE302",
        "both-detached",
        "eps = torch.randn_like(std); return mu.detach() + eps * std.detach()  #!",
    ),
    Bug(
        "VAE302",
        "decorated",
        (("  def reparameterize", "  @torch.no_grad()  #!\n  def reparameterize"),),
    ),
    Bug(
        "VAE302",
        "detached-where-it-is-used",
        ((APPLIED, "      output = self.linear_latent(z.detach())  #!\n"),),
    ),
    Bug(
        "VAE601",
        "layer-detached",
        ((DECODED, "      reconstructed = self.decoder(latent_output.detach())  #!\n"),),
    ),
    in_the_vae(
        "VAE302",
        "sample-in-the-vae",
        layer="self.added = nn.Linear(latent_dim, linear_output_dim)",
        forward="z = distributions.Normal(mu, logvar.exp().sqrt()).sample()  #!\n"
        "      latent_output = self.added(z)",
    ),
    in_the_vae(
        "VAE302",
        "rebuilt-in-the-vae",
        layer="self.added = nn.Linear(latent_dim, linear_output_dim)",
        forward="z = mu + torch.randn_like(mu) * (logvar / 2).exp()\n"
        "      latent_output = self.added(torch.tensor(z.tolist()))  #!",
    ),
    sampled(
        "VAE305",
        "one-row",
        "eps = torch.randn(std.shape[1])  #!; return mu + eps * std",  # and it stays on the CPU
    ),
    sampled(
        "VAE305",
        "row-of-one",
        "eps = torch.randn(1, std.size(1), device=std.device)  #!; return mu + eps * std",
        Severity.WARNING,
    ),
    sampled(
        "VAE305",
        "like-the-first-row",
        "eps = torch.randn_like(std[0])  #!; return mu + eps * std",
        Severity.WARNING,
    ),
    sampled(
        "VAE305",
        "expanded",
        "eps = torch.randn_like(std[:1]).expand_as(std)  #!; return mu + eps * std",
        Severity.WARNING,
    ),
    sampled("VAE305", "scalar", "return mu + torch.randn(1) * std  #!"),
    kept("VAE306", "cached", "self.eps = torch.randn(latent_dim)", "self.eps"),
    kept(
        "VAE306", "buffer", 'self.register_buffer("eps", torch.randn(16, latent_dim))', "self.eps"
    ),
    kept(
        "VAE306", "cached-rows", "self.eps = torch.randn(1000, latent_dim)", "self.eps[: len(mu)]"
    ),
    sampled(
        "VAE306",
        "seeded",
        "torch.manual_seed(0)  #!; eps = torch.randn_like(std); return mu + eps * std",
    ),
    sampled(
        "VAE306",
        "generator",
        "g = torch.Generator().manual_seed(1); "
        "eps = torch.randn(std.shape, generator=g)  #!; return mu + eps * std",
    ),
    Bug(
        "VAE501",
        "decoder-in",
        (
            (DECODER, "        self.decoder = nn.Linear(latent_dim, input_dim)\n"),
            (DECODED, DECODED.replace("\n", "  #!\n")),
        ),
    ),
    Bug(
        "VAE501",
        "layer-in",
        (
            (REGISTERED, "    self.linear_latent = nn.Linear(2 * latent_dim, output_dim)\n"),
            (APPLIED, APPLIED.replace("\n", "  #!\n")),
        ),
    ),
    Bug(
        "VAE502",
        "decoder-out",
        (
            (DECODER, "        self.decoder = nn.Linear(linear_output_dim, input_dim // 2)\n"),
            (DECODED, DECODED.replace("\n", "  #!\n")),
        ),
    ),
    trained(
        "layer-added-later",
        "optimizer = torch.optim.Adam(vae.parameters())  #!\n"
        "vae.latent_layer.linear_latent = nn.Linear(latent_dim, linear_output_dim)",
    ),
    trained(
        "decoder-replaced-later",
        "optimizer = torch.optim.SGD(vae.parameters(), lr=0.1)  #!\n"
        "vae.decoder = nn.Sequential(nn.Linear(128, 200), nn.ReLU(), nn.Linear(200, 784))",
    ),
    trained(
        "encoder-and-decoder-only",
        "optimizer = torch.optim.Adam([*vae.encoder.parameters(), *vae.decoder.parameters()])  #!",
    ),
]
