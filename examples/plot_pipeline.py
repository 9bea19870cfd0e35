"""
=========================================
One law of the digits, put to daily use
=========================================

A pipeline of principal axes and a mixture is fitted to half of the digits of scikit-learn. It is a
density in the units of the 64 pixels, because the axes that were dropped keep their variance. The
picture shows

- a search over scalers by the plain ``Pipeline`` and by ``DensityPipeline``: the first picks the
  smallest units, the second sees that they do not matter,
- digits from the pipeline, in whole grey levels from 0 to 16, as the data are,
- digits of which the lower half is missing, completed by their expectation and by draws,
- how likely each digit of the other half is, and which look the oddest.
"""

# %%
# The units of a scaler are worth hundreds of nats to a pipeline that forgets its Jacobian.

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import MinMaxScaler, StandardScaler

from skdiffusion import GaussianScore, GMMScore
from skdiffusion.compose import (
    DensityPipeline,
    DiffusionImputer,
    ScoreOutlierDetector,
    make_density_pipeline,
)

X, labels = load_digits(return_X_y=True)
train, test = X[::2], X[1::2]
few = PCA(16).fit(train)  # sixteen columns for the search over scalers
scalers = {
    "none": "passthrough",
    "StandardScaler": StandardScaler(),
    "MinMaxScaler": MinMaxScaler(),
    "MinMaxScaler to 1e-3": MinMaxScaler((0, 1e-3)),
}
found = {
    cls.__name__: [
        cls([("scale", scaler), ("density", GaussianScore())])
        .fit(few.transform(train))
        .score(few.transform(test))
        for scaler in scalers.values()
    ]
    for cls in (Pipeline, DensityPipeline)
}
for name, values in found.items():
    print(f"{name:16s}", np.round(values, 2))

# %%
# A density of all pixels from sixteen axes, and digits that look like the data.
pipeline = make_density_pipeline(
    PCA(16), GMMScore(20, random_state=0), noise="residual", round_integers=True, clip=True
).fit(train)
print(f"held-out log-density: {pipeline.score(test):.1f} nats in the units of the pixels")
drawn = pipeline.sample(30, random_state=0)

# %%
# The lower half of some digits is hidden. The mixture's conditional law is exact.
hidden = test[:10].copy()
hidden[:, 32:] = np.nan
imputer = DiffusionImputer(GMMScore(20, random_state=0)).fit(train)
completed = imputer.transform(hidden)
draws = imputer.impute(hidden, 2, random_state=0)

# %%
# The oddest of the held-out digits: those that look noisiest.
detector = ScoreOutlierDetector(contamination=0.02).fit(train)
normality = detector.score_samples(test)
odd = test[np.argsort(normality)[:30]]


def sheet(rows, n_columns):
    """Images side by side; what is missing is half-way grey."""
    tiles = [np.pad(np.nan_to_num(r, nan=8.0).reshape(8, 8), 1) for r in rows]
    lines = [np.hstack(tiles[k : k + n_columns]) for k in range(0, len(tiles), n_columns)]
    return np.vstack(lines)


figure, axes = plt.subplots(2, 2, figsize=(11, 7), layout="constrained")
axis = axes[0, 0]
place = np.arange(len(scalers))
for k, (name, values) in enumerate(found.items()):
    bars = axis.barh(place + 0.4 * k, values, height=0.38, label=name)
    axis.bar_label(bars, fmt="%.1f", padding=3)
axis.set_yticks(place + 0.2, list(scalers))
axis.set_xlabel("held-out score, nats")
axis.set_xlim(1.5 * min(map(min, found.values())), 1.25 * max(map(max, found.values())))
axis.legend(frameon=False, loc="lower right")
axis.set_title("the same Gaussian behind four scalers")
shown = {
    (0, 1): (sheet(drawn, 10), "digits from PCA(16) + mixture + residual"),
    (1, 0): (
        sheet([*test[:10], *hidden, *completed, *draws[0], *draws[1]], 10),
        "true, seen, expected, two draws",
    ),
    (1, 1): (sheet(odd, 10), "the held-out digits that look noisiest"),
}
for place, (image, title) in shown.items():
    axes[place].imshow(image, cmap="gray_r", vmin=0, vmax=16)
    axes[place].set_title(title)
    axes[place].set_axis_off()
plt.show()
