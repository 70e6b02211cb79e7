from absl import app, flags
import torch
import torch.nn as nn

FLAGS = flags.FLAGS
flags.DEFINE_integer('absl_style_latent', 11, 'size of z')
flags.DEFINE_integer('absl_style_hidden', 37, 'width', lower_bound=1)


class VAE(nn.Module):

  def __init__(self):
    super(VAE, self).__init__()
    self.a = nn.Linear(90, FLAGS.absl_style_hidden)
    self.b = nn.Linear(FLAGS.absl_style_hidden, 2 * FLAGS.absl_style_latent)
    self.c = nn.Linear(FLAGS.absl_style_latent, 90)

  def forward(self, x):
    mu, logvar = self.b(torch.relu(self.a(x))).chunk(2, 1)
    z = mu + torch.exp(logvar * .5) * torch.randn_like(logvar)
    return self.c(z), mu, logvar


def main(argv):
  vae = VAE()
  print(vae)


if __name__ == '__main__':
  app.run(main)
