"""
===============================
Filaments on a globe, or plates
===============================

Ridges of a density on the sphere: latitudes and longitudes in degrees, distances along great
circles. The picture shows noisy points on three circles of a globe with some that belong to none,
the ridges of their density at two noise levels, and the circles. A fine level follows every clump
of points with short spurs; a coarse one gives smooth lines, which bend towards each other where
circles meet and have gaps where a line is no crest any more.

With a catalogue of earthquakes the same lines trace the rims of the tectonic plates
(:doc:`/results/filaments`). It is not part of the package: the environment variable
``SKDIFFUSION_DATA`` names a folder with ``earthquakes/earthquakes_2020_10_2021_03.npz`` (``X``:
latitude, longitude, depth, magnitude) and ``earthquakes/tectonic_boundaries.npz``, which are used
where they are found.
"""

# %%
# Rows are latitudes and longitudes in degrees.
import os
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from sklearn.neighbors import BallTree

from skdiffusion import RidgeProjector

folder = Path(os.environ.get("SKDIFFUSION_DATA", "")) / "earthquakes"


def circles(random_state=0):
    """Noisy points on three circles, uniform background, and the circles themselves."""
    rng = np.random.default_rng(random_state)
    lines, noisy = [], []
    for pole, radius in [((70, 20), 80), ((10, 120), 45), ((-40, -70), 30)]:
        turn = np.linspace(0, 2 * np.pi, 400)
        latitude, longitude = np.radians(pole)
        up = [np.cos(latitude) * np.cos(longitude), np.cos(latitude) * np.sin(longitude)]
        axes = np.linalg.svd(np.array([[*up, np.sin(latitude)]]))[2]
        away = np.radians(radius)
        line = np.cos(away) * axes[:1] + np.sin(away) * (
            np.cos(turn)[:, None] * axes[1] + np.sin(turn)[:, None] * axes[2]
        )
        lines.append(line)
        noisy.append(line[rng.integers(400, size=1500)] + 0.03 * rng.standard_normal((1500, 3)))
    noisy.append(rng.standard_normal((200, 3)))

    def degrees(points):
        x, y, z = np.concatenate(points).T
        return np.degrees(np.stack([np.arctan2(z, np.hypot(x, y)), np.arctan2(y, x)], axis=1))

    return degrees(noisy), degrees(lines)


if (folder / "earthquakes_2020_10_2021_03.npz").exists():
    X = np.load(folder / "earthquakes_2020_10_2021_03.npz")["X"]
    X = X[X[:, 3] >= 4, :2]  # smaller ones are recorded in some countries only
    truth = np.load(folder / "tectonic_boundaries.npz")["X"]
    names = "epicentres", "plate boundaries"
else:
    X, truth = circles()
    names = "points", "circles"

# %%
# Two noise levels: fine and coarse. The loneliest tenth of the rows is left out.
tree = BallTree(np.radians(truth), metric="haversine")
figure, axes = plt.subplots(2, 1, figsize=(9, 9.5), layout="constrained")
for ax, level in zip(axes, (1.0, 4.0), strict=True):
    ridge = RidgeProjector(bandwidth=level, metric="haversine").fit(X)
    density = ridge.score_samples(X)
    found = ridge.diagnostics(X[density > np.quantile(density, 0.1)])
    lines = found.points[found.on_ridge]
    distance = np.degrees(tree.query(np.radians(lines))[0])
    print(f"level {level}: median distance to the {names[1]} {np.median(distance):.2f} degrees")
    ax.plot(truth[:, 1], truth[:, 0], ".", color="tab:blue", ms=1.5, label=names[1])
    ax.plot(X[:, 1], X[:, 0], ".", color="0.75", ms=1.5, label=names[0], zorder=0)
    # longitudes on the same turn as the map
    east = (lines[:, 1] + 180) % 360 - 180
    ax.plot(east, lines[:, 0], ".", color="tab:red", ms=2, label="ridge")
    ax.set(xlim=(-180, 180), ylim=(-80, 90), xlabel="longitude", ylabel="latitude")
    ax.set_title(f"ridge of the density, level {level:g} degrees", fontsize=10)
    ax.legend(loc="lower center", ncol=3, fontsize=8, markerscale=4)
plt.show()
