"""
==============================
Other paths to the same flower
==============================

A mixture fitted to two principal axes of the iris has an exact score. A gauge field added to it
turns every path and moves no marginal: the freedom of Horvat & Pfister (2024, section 4). The
picture shows

- paths of the probability flow from the same four starts, with and without the gauge,
- where they end: samples of the same law,
- the field at one noise level split by regression, into the gradient that matters and the gauge,
- the share of the gradient per noise level, as estimated from the rows alone, beside the truth.
"""

# %%
# The law, the gauge, and the paths.

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_iris
from sklearn.decomposition import PCA

from skdiffusion import ConservativityDecomposer, GMMScore
from skdiffusion.inspection import ConservativityDisplay
from skdiffusion.likelihood import flow_log_prob
from skdiffusion.models import AdditiveGauge
from skdiffusion.samplers import HeunSampler, run_sampler

X = PCA(2, random_state=0).fit_transform(load_iris().data)
est = GMMScore(3, random_state=0).fit(X)
law = est.model_
turn = np.array([[0.0, -1.0], [1.0, 0.0]])
turned = AdditiveGauge(law, 1.5 * turn, fade=8.0)

levels = [*np.geomspace(est.sigma_max_, 0.01, 120), 0.0]
codes = np.random.default_rng(3).standard_normal((600, 2))
start = est.far_field_.from_latent(codes, levels[0])
paths = {
    name: run_sampler(HeunSampler(), model, start, levels, return_trajectory=True)
    for name, model in {"score": law, "score + gauge": turned}.items()
}

# %%
# Densities along either flow agree.
rows = X[:20]
likelihoods = [
    flow_log_prob(model, rows, est.far_field_, 0.05, 1e4, tol=1e-10).log_prob
    for model in (law, turned)
]
moved = np.median(np.linalg.norm(paths["score"][0] - paths["score + gauge"][0], axis=1))
print(f"log-densities along the two flows agree to {np.ptp(likelihoods, axis=0).max():.0e} nats")
print(f"the same start ends elsewhere: {moved:.2f} apart, at a scale of {est.scale_:.2f}")

# %%
# The split, from rows and values of the field: neither law nor score enters.
dec = ConservativityDecomposer(score_estimator=turned, random_state=0).fit(X)
level = float(dec.levels_[4])
grid = np.stack(np.meshgrid(np.linspace(-4, 4.5, 15), np.linspace(-2, 2, 11)), -1).reshape(-1, 2)
grid = grid[law.log_prob(grid, level) > -5]
gradient, gauge = dec.decompose(grid, sigma=level)
off = np.linalg.norm(gradient - law.score(grid, level)) / np.linalg.norm(law.score(grid, level))
print(
    f"at noise level {level:.2f} the gradient part is off by {off:.0%} on the grid of the picture"
)

# %%
figure, axes = plt.subplots(2, 2, figsize=(11, 8), layout="constrained")
axis = axes[0, 0]
axis.scatter(*X.T, s=6, color="0.8")
for name, color in (("score", "C0"), ("score + gauge", "C3")):
    for k in range(4):
        line = paths[name][1][40:, k]
        axis.plot(*line.T, color=color, lw=1.2, label=name if k == 0 else None)
        axis.plot(*line[-1], "o", color=color, ms=5)
axis.set(title="four paths of the flow", xlim=(-5, 6), ylim=(-4, 4))
axis.legend(frameon=False)

axis = axes[0, 1]
for name, color in (("score", "C0"), ("score + gauge", "C3")):
    axis.scatter(*paths[name][0].T, s=5, alpha=0.6, color=color, label=name)
axis.set(title="where 600 paths end", xlim=axes[0, 0].get_xlim(), ylim=axes[0, 0].get_ylim())
axis.legend(frameon=False)

axis = axes[1, 0]
axis.scatter(*X.T, s=6, color="0.8")
options = {"angles": "xy", "scale_units": "xy", "scale": 8, "width": 0.003}
axis.quiver(*grid.T, *gradient.T, color="C0", label="gradient part", **options)
axis.quiver(*grid.T, *gauge.T, color="C1", label="gauge part", **options)
axis.set(title=f"the field at noise level {level:.2f}, split")
axis.legend(loc="upper left")

axis = axes[1, 1]
ConservativityDisplay.from_estimator(dec, ax=axis, color="C0", label="from the rows")
fine = np.geomspace(dec.levels_[0], dec.levels_[-1], 100)
strength = 1.5 / (1 + (fine / 8) ** 4)
axis.plot(fine, 1 / (1 + strength**2), color="0.4", ls="--", label="truth")
axis.set(title="share of the gradient", ylim=(0, 1))
axis.legend(frameon=False)
plt.show()
