"""
==================================
Sampling without being told a time
==================================

Two circles in 32 columns, and the perfect field of a network that is not told the noise level. The
picture shows

- how well a noised row shows its own noise: the posterior over levels in 2, 8 and 32 columns,
- where a sampler on the schedule's clock ends, in the plane of the circles and away from it,
- where one ends that reads its clock off the points.
"""

# %%
# The law, and its energy for points of unknown noise.

import matplotlib.pyplot as plt
import numpy as np

from skdiffusion import MarginalEnergy
from skdiffusion.datasets import make_embedded_circles
from skdiffusion.samplers import EulerSampler, run_sampler

rng = np.random.default_rng(0)
posteriors = {}
for d in (2, 8, 32):
    X, law, plane = make_embedded_circles(200, d, random_state=0, return_plane=True)
    energy = MarginalEnergy(law, n_nodes=64).fit(X)
    noised = X[:1] + 0.2 * rng.standard_normal((1, d))
    posteriors[d] = energy.noise_posterior(noised), energy.scale_

# %%
# The same start on two clocks: the perfect blind velocity of the straight path in 32 columns.
straight = MarginalEnergy(law, schedule="flow_matching", standardize=False, n_nodes=64).fit(X)
model = straight.blind_model("velocity")
levels = [*np.geomspace(20, 0.01, 30), 0.0]
start = levels[0] * rng.standard_normal((60, 32))
ends = {
    clock: run_sampler(EulerSampler(clock=clock), model, start, levels)
    for clock in ("schedule", "estimated")
}

# %%
# The picture.
figure, axes = plt.subplots(1, 3, figsize=(11, 3.6), layout="constrained")
for d, (found, scale) in posteriors.items():
    order = np.argsort(found.log_levels[0])
    level = scale * np.exp(found.log_levels[0][order])
    axes[0].semilogx(level, np.exp(found.log_density_at_nodes[0][order]), label=f"{d} columns")
axes[0].axvline(0.2, color="0.7", linewidth=1)
axes[0].set(xlim=(0.01, 10), xlabel="noise level", title="posterior of one row with noise 0.2")
axes[0].legend(loc="upper right")
angle = np.linspace(0, 2 * np.pi, 200)
for ax, (clock, x) in zip(axes[1:], ends.items(), strict=True):
    inside = x @ plane
    away = np.linalg.norm(x - inside @ plane.T, axis=1)
    for radius in (0.5, 1.0):
        ax.plot(radius * np.cos(angle), radius * np.sin(angle), color="0.8", zorder=0)
    shown = ax.scatter(*inside.T, c=away, s=14, vmin=0, vmax=0.5)
    ax.set(aspect="equal", title=f"clock: {clock}, {away.mean():.3f} off the plane")
figure.colorbar(shown, ax=axes[1:], label="distance from the plane")
plt.show()
