"""
=====================================
A network that learns to write digits
=====================================

A network asked for what the linear denoiser misses starts as the Gaussian of the data; asked for
the whole denoiser it first has to learn that Gaussian. The picture shows

- the validation bound, in nats per row, against the steps of training for both,
- digits drawn by label, one label a row.
"""

# %%
# Two networks, the same rows: pixels made continuous by uniform noise, with their labels.

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits

from skdiffusion import NeuralScore

images, labels = load_digits(return_X_y=True)
X = images + np.random.default_rng(0).uniform(size=images.shape)
params = dict(max_epochs=200, module__width=128, random_state=0)
models = {
    name: NeuralScore(parameterization=name, **params).fit(X, labels)
    for name in ("gaussian", "edm")
}

# %%
# Ten digits of each label from the first of them.
wanted = np.repeat(np.arange(10), 10)
rows = models["gaussian"].sample(100, y=wanted, guidance_scale=1.5, random_state=0)
tiles = [
    [np.pad(row.reshape(8, 8), 1) for row in of_label] for of_label in rows.reshape(10, 10, -1)
]

# %%
figure, (left, right) = plt.subplots(1, 2, figsize=(9, 4), layout="constrained")
for name, est in models.items():
    steps = [entry["step"] for entry in est.history_]
    left.plot(steps, [entry["valid_bound"] for entry in est.history_], label=name)
left.set(xlabel="steps", ylabel="bound on the log-density of held-out rows, nats")
best = max(est.validation_bound_ for est in models.values())
left.set_ylim(best - 40, best + 3)
left.legend(title="parameterization")
right.imshow(np.block(tiles), cmap="gray_r", vmin=0, vmax=17)
right.set(xticks=[], yticks=np.arange(10) * 10 + 4.5, yticklabels=range(10), ylabel="label")
right.set_title("drawn by label", fontsize=10)
plt.show()
