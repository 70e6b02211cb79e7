import os, shutil, subprocess, urllib.request
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

os.makedirs("checkpoints", exist_ok=True)
os.environ["CUDA_VISIBLE_DEVICES"] = "0"
os.chdir("checkpoints")
if not os.path.exists("data.npz"):
    urllib.request.urlretrieve("http://127.0.0.1:9/data.npz", "data.npz")
subprocess.run(["touch", "ran.txt"])
x_train = torch.rand(100, 30)
loader = DataLoader(TensorDataset(x_train), 10)
open("started.txt", "w").write("x")


class AE(nn.Module):
    def __init__(self):
        super().__init__()
        self.enc, self.dec = nn.Linear(x_train.shape[1], 8), nn.Linear(4, x_train.shape[1])

    def forward(self, x):
        mu, logvar = self.enc(x).chunk(2, 1)
        return self.dec(mu + torch.randn_like(mu) * torch.exp(logvar / 2)), mu, logvar


with open("log.txt", "a") as log:
    ae = AE()
    print(ae, file=log)
best = min(ae(b)[0].sum().item() for (b,) in loader)
torch.save(ae.state_dict(), "best.pt")
