"""
====================================
Learning, and then learning by heart
====================================

A denoiser that is linear in random features is trained in closed form, at every training time at
once. Forty points of two moons, and the same two hundred codes carried from noise to data by the
model after six training times. The picture shows

- the samples: a Gaussian at first, then the moons, at last the forty points themselves,
- the exact loss on the training points and on fresh ones: the second turns up where the first
  goes on falling,
- how far samples are from the nearest training point.
"""

# %%
# One fit; everything below is a function of training time.

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import make_moons
from sklearn.neighbors import NearestNeighbors

from skdiffusion import RandomFeatureScore
from skdiffusion.samplers import check_sampler, run_sampler

X = make_moons(40, noise=0.05, random_state=0)[0]
fresh = make_moons(2000, noise=0.05, random_state=1)[0]
est = RandomFeatureScore(400, length_scale=0.3, alpha=0.0, n_levels=24, random_state=0).fit(X)

times = np.geomspace(1e-1, 1e7, 60)
train, test = est.denoising_loss(X, times), est.denoising_loss(fresh, times)
best = float(f"{times[test.argmin()]:.1g}")

# %%
# The same codes after several training times.
levels = est.noise_levels(60)
codes = np.random.default_rng(0).standard_normal((200, 2))
start = est.far_field_.from_latent(codes, levels[0])
neighbours = NearestNeighbors(n_neighbors=1).fit(X)


def generated(model):
    return run_sampler(check_sampler("heun"), model, start, [*levels, 0.0])


shown = [0.1, best / 10, best, 100 * best, 1e4 * best, 1e6 * best]
samples = [generated(model) for model in est.path(shown)]

# %%
# The picture.
figure = plt.figure(figsize=(11, 7.2), layout="constrained")
panels = figure.subplot_mosaic([["0", "1", "2"], ["3", "4", "5"], ["loss", "loss", "near"]])
for k, (time, rows) in enumerate(zip(shown, samples, strict=True)):
    axes = panels[str(k)]
    axes.scatter(*rows.T, s=6, color="C0", alpha=0.6, label="samples")
    axes.scatter(*X.T, s=14, facecolors="none", edgecolors="C3", label="training points")
    axes.set(title=f"training time {time:g}", xlim=(-2, 3), ylim=(-1.3, 1.8))
    axes.set(xticks=[], yticks=[])
panels["0"].legend(loc="upper right", fontsize=7)

panels["loss"].semilogx(times, train, label="training points")
panels["loss"].semilogx(times, test, label="fresh points")
panels["loss"].axvline(best, color="grey", lw=0.8, ls=":")
panels["loss"].set(xlabel="training time", ylabel="exact denoising loss")
panels["loss"].set(ylim=(0.9 * train.min(), 1.2 * test[0]))
panels["loss"].legend()

distances = [np.median(neighbours.kneighbors(rows)[0]) for rows in samples]
floor = np.median(neighbours.kneighbors(fresh)[0])
panels["near"].loglog(shown, distances, "o-")
panels["near"].axhline(floor, color="grey", lw=0.8, ls=":", label="fresh points")
panels["near"].set(xlabel="training time", title="median distance to a training point")
panels["near"].legend()
plt.show()
