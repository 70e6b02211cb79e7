import sys
sys.path.append('..')
import torch
from torch import nn
import torchvision.transforms as T

BATCH_SIZE = 32
CONFIG = dict(x=24, h=18, z=4)
sizes = []
for key in ('x', 'h', 'z'):
    sizes.append(CONFIG[key])
layers = {}
layers['act'] = nn.ReLU
layers.update(last=nn.Sigmoid)
transform = T.Compose([T.ToTensor(), T.Normalize((0.5,), (0.5,))])


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        x, h, z = sizes
        self.e = nn.Sequential(nn.Linear(x, h), layers['act'](), nn.Linear(h, z + z))
        self.d = nn.Sequential(nn.Linear(z, h), layers['act'](), nn.Linear(h, x), layers['last']())

    def forward(self, x):
        mu, lv = self.e(x).split(sizes[-1], 1)
        return self.d(mu + torch.randn_like(lv) * (lv / 2).exp()), mu, lv


def make_data(n=1000):
    raise RuntimeError('no data here')


data = make_data()
net = Net()
print(net(data[:BATCH_SIZE])[0].mean())
