"""
====================================================
A Gaussian diffusion model of digits, in closed form
====================================================

One :class:`~skdiffusion.GaussianScore` per digit is a generative model without any training:
its samples, its flow from noise to data and its denoiser are formulas. The picture shows, on
the 8 x 8 digits that ship with scikit-learn,

- samples beside data,
- a trajectory: one code carried from pure noise to a digit, and what the denoiser already
  sees in it at each noise level,
- the spectrum of the data, and the noise level at which each principal axis emerges: large
  variances first.

The exact log-density is a classifier for free: a row belongs to the model that finds it
likeliest.
"""

# %%
# Fit one Gaussian per class. Shrinkage keeps 64 x 64 covariances honest at about 130 rows each.
import argparse
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from skdiffusion import GaussianScore

X, y = load_digits(return_X_y=True)
X_train, X_test, y_train, y_test = train_test_split(X, y, random_state=0, stratify=y)
models = [GaussianScore("ledoit_wolf").fit(X_train[y_train == k]) for k in range(10)]

# %%
# The densities of held-out rows under the ten models classify them.
densities = np.stack([model.score_samples(X_test) for model in models], axis=1)
accuracy = np.mean(densities.argmax(1) == y_test)
own = densities[np.arange(len(y_test)), y_test].mean()
print(f"held-out log-density of a digit under its own model: {own:.1f} nats")
print(f"accuracy of the likeliest model: {accuracy:.1%}")

# %%
# One sample of each digit, and the whole way of one of them from noise.
samples = np.concatenate([model.sample(1, random_state=1) for model in models])
shown = models[3]
codes = np.random.default_rng(5).standard_normal((1, X.shape[1]))
path_levels = np.geomspace(60.0, 0.3, 10)
path = np.concatenate([shown.model_.from_latent(codes, level) for level in path_levels])
seen = shown.denoise(path, path_levels)

# %%
# Spectrum of all digits together, by probabilistic PCA.
pooled = GaussianScore("low_rank", rank=40).fit(X_train)
emergence = pooled.emergence_levels(fraction=0.5)


# %%
# The picture. Digits are shown over their own range of ink, 0 to 16; noise over all of its range.
INK = (0, 16)


def strip(figure, images, limits, title, names=None):
    axes = figure.subplots(len(images), len(images[0]))
    figure.suptitle(title, fontsize=10, x=0.02, ha="left")
    for row, ax_row, (low, high) in zip(images, axes, limits, strict=True):
        for k, (image, ax) in enumerate(zip(row, ax_row, strict=True)):
            ax.imshow(image.reshape(8, 8), cmap="gray_r", vmin=low, vmax=high)
            ax.set_xticks([])
            ax.set_yticks([])
            for spine in ax.spines.values():
                spine.set_visible(False)
            if names is not None and row is images[-1]:
                ax.set_xlabel(names[k], fontsize=7)


figure = plt.figure(figsize=(9.5, 8.5), layout="constrained")
top, middle, bottom = figure.subfigures(3, 1, height_ratios=[1.0, 1.05, 1.5])
data = np.stack([X_train[y_train == k][3] for k in range(10)])
strip(top, [data, samples], [INK, INK], "data (above) and samples of GaussianScore (below)")
strip(
    middle,
    [path, seen],
    [(None, None), INK],
    "one trajectory, from noise to data (above), and what the denoiser sees in it (below)",
    [f"$\\sigma$ = {level:.2g}" for level in path_levels],
)
left, right = bottom.subplots(1, 2)
rank = np.arange(1, 41)
left.semilogy(rank, pooled.explained_variance_, "o-", ms=3, label="principal axes")
left.axhline(pooled.noise_variance_, color="C3", lw=1, ls="--", label="isotropic rest")
left.set(xlabel="principal axis", ylabel="variance $\\lambda$", title="spectrum of all digits")
left.legend(frameon=False)
sigma = np.geomspace(200, 0.2, 300)
for k in (0, 1, 3, 7, 15, 31):
    variance = pooled.explained_variance_[k]
    curve = 1 / np.sqrt(1 + sigma**2 / variance)
    (line,) = right.semilogx(sigma, curve, label=f"axis {k + 1}")
    right.plot(emergence[k], 0.5, "o", ms=4, color=line.get_color())
right.invert_xaxis()
right.set(
    xlabel="noise level $\\sigma$ (from noise to data)",
    ylabel="share of the axis that has emerged",
    title="large variances emerge first",
)
right.legend(frameon=False, fontsize=8)

# %%
# As a script, ``--save`` leaves the picture in a folder instead of showing it.
if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--save", type=Path, help="folder for the picture")
    folder = parser.parse_known_args()[0].save
    if folder is None:
        plt.show()
    else:
        folder.mkdir(parents=True, exist_ok=True)
        target = folder / "gaussian_digits.png"
        figure.savefig(target, dpi=150)
        print(f"the picture is in {target}")
