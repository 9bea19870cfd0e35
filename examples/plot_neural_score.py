"""
=====================================
A network that learns to write digits
=====================================

By default a network of rows adds to a Gaussian mixture that it sees, and starts as that density of
the digits. Asked for what the linear denoiser misses (``"gaussian"``) it starts as the Gaussian of
the data; asked for the whole denoiser (``"edm"``) it first has to learn that Gaussian. The picture
shows

- the validation bound, in nats per row, against the steps of training for the three,
- digits drawn by label, one label a row. With labels the default is ``"gaussian"``: a mixture of
  all digits would have to be told first which of them are meant.
"""

# %%
# Three networks, the same rows: pixels made continuous by uniform noise.

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits

from skdiffusion import NeuralScore

images, labels = load_digits(return_X_y=True)
X = images + np.random.default_rng(0).uniform(size=images.shape)
params = dict(module__width=128, random_state=0)
models = {
    name: NeuralScore(parameterization=name, max_epochs=80, **params).fit(X)
    for name in ("auto", "gaussian", "edm")
}

# %%
# One for all labels, and ten digits of each from it.
conditional = NeuralScore(max_epochs=200, **params).fit(X, labels)
wanted = np.repeat(np.arange(10), 10)
rows = conditional.sample(100, y=wanted, guidance_scale=1.5, random_state=0)
tiles = [
    [np.pad(row.reshape(8, 8), 1) for row in of_label] for of_label in rows.reshape(10, 10, -1)
]

# %%
figure, (left, right) = plt.subplots(1, 2, figsize=(9, 4), layout="constrained")
for name, est in models.items():
    steps = [entry["step"] for entry in est.history_]
    shown = '"auto", the default' if name == "auto" else f'"{name}"'
    left.plot(steps, [entry["valid_bound"] for entry in est.history_], label=shown)
left.set(xlabel="steps", ylabel="bound on the log-density of held-out rows, nats")
best = max(est.validation_bound_ for est in models.values())
left.set_ylim(best - 70, best + 5)
left.legend(title="parameterization")
right.imshow(np.block(tiles), cmap="gray_r", vmin=0, vmax=17)
right.set(xticks=[], yticks=np.arange(10) * 10 + 4.5, yticklabels=range(10), ylabel="label")
right.set_title("drawn by label", fontsize=10)
plt.show()
