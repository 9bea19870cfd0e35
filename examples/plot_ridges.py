"""
=======================================================
Ridges, and where the samples of a diffusion model land
=======================================================

:class:`~skdiffusion.RidgeProjector` moves noisy points to the crest lines of their density. The
picture shows

- noisy points on two half circles and their projections on the ridge;
- the ridge of thirteen points at three noise levels: from a line to a curve through them;
- handwritten threes and their projections on a surface in 64 columns;
- reach, align, slide: how samples of a model that does not memorise come to the ridge of the
  thirteen points, how their distance settles, and how they move along it.
"""

# %%
# Noisy curves. The bandwidth comes from the data.
import warnings

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits

from skdiffusion import EmpiricalScore, RidgeProjector
from skdiffusion.datasets import make_moons, make_thirteen_points
from skdiffusion.inspection import ReachAlignSlideDisplay

moons, _ = make_moons(800, noise=0.12, random_state=0)
ridge = RidgeProjector().fit(moons)
found = ridge.diagnostics(moons)
projected = found.points[found.on_ridge]
print(found)
print(f"bandwidth {ridge.bandwidth_:.3f}, ratios along and across {ridge.ratios_.round(2)}")

# %%
# The ridge of thirteen points depends on the noise level at which it is looked at; ``trace``
# follows points from coarse to fine.
points, _ = make_thirteen_points()
levels = [1.2, 0.6, 0.25]
family = RidgeProjector(bandwidth=0.3).fit(points)
starts = np.stack([np.linspace(-2, 2, 300), np.zeros(300)], axis=1)
traced = family.trace(starts, levels)

# %%
# In 64 columns: threes, and what is left of them on a two-dimensional ridge.
digits = load_digits()
threes = digits.data[digits.target == 3]
surface = RidgeProjector(2, bandwidth=10.0).fit(threes)
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # a few digits are far from the others
    smooth = surface.transform(threes)
    distance = surface.normal_distance(threes)
shown = np.argsort(distance)[[5, len(threes) // 2, np.isfinite(distance).sum() - 2]]

# %%
# A model that does not memorise: a score averaged over perturbations. Its samples end beside the
# ridge, by what its errors across the ridge add up to.
model = EmpiricalScore(0.1, smoothing=0.3, scaling="none", random_state=0).fit(points)

figure = plt.figure(figsize=(10, 8.6), layout="constrained")
above, below = figure.subfigures(2, 1, height_ratios=[1.0, 1.15])
axes = above.subplots(1, 3)
axes[0].plot(*moons.T, ".", color="0.7", ms=3, label="data")
axes[0].plot(*projected.T, ".", color="tab:red", ms=3, label="on the ridge")
axes[0].set_aspect("equal")
axes[0].set_title("noisy curves", fontsize=10)
axes[0].legend(fontsize=8, loc="upper right")

for k, level in enumerate(levels):
    on_ridge = traced.points[k][traced.on_ridge[k]]
    order = np.argsort(on_ridge[:, 0])
    axes[1].plot(*on_ridge[order].T, color=plt.cm.viridis(k / 2.5), label=f"$\\sigma$ = {level}")
axes[1].plot(*points.T, "o", color="tab:red", mfc="none")
axes[1].set_aspect("equal")
axes[1].set_title("one ridge for every noise level", fontsize=10)
axes[1].legend(fontsize=8, loc="upper left")

strip = np.concatenate(
    [np.hstack([threes[i].reshape(8, 8), smooth[i].reshape(8, 8)]) for i in shown]
)
axes[2].imshow(strip, cmap="gray_r")
axes[2].axhline(7.5, color="w", lw=3)
axes[2].axhline(15.5, color="w", lw=3)
axes[2].axvline(7.5, color="w", lw=3)
axes[2].set(xticks=[], yticks=[])
axes[2].set_title("threes, and on their 2-dimensional ridge:\nnear, typical, far", fontsize=10)

display = ReachAlignSlideDisplay.from_estimator(
    model, family, ax=below.subplots(1, 2), n_samples=200, random_state=0
)
print(display.report)
plt.show()
