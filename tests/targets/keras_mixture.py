import tensorflow as tf
import keras
from keras.datasets import mnist
from tensorflow.keras import layers
import torch, torch.nn as tnn
import seaborn as sns
sns.set()
tf.random.set_seed(1)
(x_train, _), (x_test, _) = mnist.load_data()
x_train = x_train.astype('float32') / 255.


class KerasVAE(keras.Model):
    def call(self, x):
        return x


class Sampling(layers.Layer):
    pass


class TorchVAE(tnn.Module):
    def __init__(self, original_dim=64, latent_dim=2):
        super().__init__()
        self.h, self.out = tnn.Linear(original_dim, 2 * latent_dim), tnn.Linear(latent_dim, original_dim)

    def forward(self, x):
        z_mean, z_log_var = torch.split(self.h(x), 2, dim=1)
        z = z_mean + torch.exp(0.5 * z_log_var) * torch.randn_like(z_mean)
        return torch.sigmoid(self.out(z)), z_mean, z_log_var


vae = TorchVAE(x_train.shape[1])
