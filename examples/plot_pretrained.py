"""
=========================================
A network of one's own, seen as estimator
=========================================

A perceptron is trained to denoise the digits by a plain loop of torch: no class of this package
is involved, and any other network would do. ``PretrainedScore`` then makes an estimator of it,
with samples, densities, latent codes and a score that compares it to closed forms on rows that
none of them has seen. The picture shows

- rows drawn from the network by the default sampler,
- its denoising error at every noise level, as a share of the best linear denoiser's, beside
  that of a mixture of Gaussians.
"""

# %%
# The network and its training (Karras et al. 2022): it sees ``c_in x`` and a quarter of the log
# level, and what it predicts has unit variance at every level. The data are scaled to a standard
# deviation of one.

import matplotlib.pyplot as plt
import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from skdiffusion import GaussianScore, GMMScore, PretrainedScore

X = load_digits().data
X = (X - X.mean()) / X.std()
train, test = train_test_split(X, test_size=0.3, random_state=0)


class Network(torch.nn.Module):
    def __init__(self, width=256):
        super().__init__()
        self.first = torch.nn.Linear(64 + 16, width)
        self.middle = torch.nn.ModuleList(torch.nn.Linear(width, width) for _ in range(2))
        self.last = torch.nn.Linear(width, 64)
        torch.nn.init.zeros_(self.last.weight)

    def forward(self, x, noise):
        angles = noise[:, None] * torch.logspace(-0.6, 0.6, 8).to(noise) * 2 * torch.pi
        hidden = self.first(torch.cat([x, angles.sin(), angles.cos()], dim=1))
        for layer in self.middle:
            hidden = hidden + layer(torch.nn.functional.silu(hidden))
        return self.last(torch.nn.functional.silu(hidden))


def trained(rows, n_steps=3000, batch=128, rate=2e-3):
    generator = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    network = Network()
    optimizer = torch.optim.Adam(network.parameters(), rate)
    for step in range(n_steps):
        optimizer.param_groups[0]["lr"] = rate * min(1, 2 - 2 * step / n_steps)
        x0 = rows[torch.randint(len(rows), (batch,), generator=generator)]
        sigma = torch.exp(1.2 * torch.randn(batch, 1, generator=generator) - 0.8)
        x = x0 + sigma * torch.randn(x0.shape, generator=generator)
        total = sigma**2 + 1
        target = (x0 - x / total) * total**0.5 / sigma
        loss = ((network(x / total**0.5, sigma[:, 0].log() / 4) - target) ** 2).mean()
        optimizer.zero_grad(), loss.backward(), optimizer.step()
    return network.eval()


network = trained(torch.tensor(train, dtype=torch.float32))

# %%
# An estimator of it: ``fit`` learns the far field, the scale and the range of noise levels from
# the rows, and leaves the weights alone. The network is asked at the levels it was trained at;
# at others the score takes the linear denoiser, as if there were nothing better.
est = PretrainedScore(network, prediction="edm", sigma_data=1.0, sigma_range=(0.03, 8)).fit(train)
linear = GaussianScore("ledoit_wolf").fit(train)
mixture = GMMScore(10, covariance_type="low_rank", random_state=0).fit(train)
for name, model in {"network": est, "mixture": mixture, "Gaussian": linear}.items():
    print(f"{name:9s} held-out score {model.denoising_bound(test).score:8.2f} nats")

levels = np.geomspace(0.05, 5, 12)
noise = np.random.default_rng(0).standard_normal(test.shape)


def error(model, level):
    return np.mean((model.denoise(test + level * noise, level) - test) ** 2)


# %%
figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.5), width_ratios=[1.1, 1])
images = est.sample(48, random_state=0).reshape(6, 8, 8, 8)
images = np.pad(images, ((0, 0), (0, 0), (1, 1), (1, 1)), constant_values=-0.8)
left.imshow(images.transpose(0, 2, 1, 3).reshape(60, 80), cmap="gray_r", vmin=-0.8, vmax=1.8)
left.set(title="drawn from the network", xticks=[], yticks=[])
for name, model in {"network": est, "mixture of 10": mixture}.items():
    right.semilogx(levels, [error(model, s) / error(linear, s) for s in levels], label=name)
right.axhline(1, color="0.6", linestyle=":", label="linear denoiser")
right.set(
    xlabel="noise level / standard deviation of the data",
    ylabel="denoising error / the linear denoiser's",
    title="on held-out digits",
)
right.legend(frameon=False)
figure.tight_layout()
plt.show()
