import os
import torch
from torch import nn
os.environ['CUDA_DEVICE_ORDER'] = 'PCI_BUS_ID'
os.environ['CUDA_VISIBLE_DEVICES'] = '1'
gpu_id = 0
torch.cuda.set_device(gpu_id)
torch.set_default_tensor_type('torch.cuda.FloatTensor')
DEVICE = torch.device(f'cuda:{gpu_id}')


class CVAE(nn.Module):
    def __init__(self, dim=18, classes=5, latent=4, device='cuda'):
        super().__init__()
        self.device, self.classes = device, classes
        self.e = nn.Linear(dim + classes, 2 * latent).cuda()
        self.d = nn.Linear(latent + classes, dim).to(device)
        self.prior_mean = torch.zeros(latent, device=DEVICE)
        self.to(device)

    def forward(self, x, y):
        c = nn.functional.one_hot(y, self.classes).float()
        mu, lv = self.e(torch.cat([x, c], 1)).chunk(2, 1)
        z = mu + self.prior_mean + torch.randn_like(mu) * (lv / 2).exp()
        return self.d(torch.cat([z, c], 1)), mu, lv


model = CVAE().cuda()
x, y = torch.rand(8, 18).to(DEVICE), torch.randint(0, 5, (8,)).cuda()
out = model(x, y)
print(torch.cuda.memory_allocated())
