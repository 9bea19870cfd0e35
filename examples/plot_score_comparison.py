"""
========================================
What a learned score of digits has in it
========================================

A network that learned to denoise the 8 x 8 digits of scikit-learn, compared with laws whose scores
are formulas (Wang & Vastola 2024). The picture shows, by noise level,

- what a Gaussian, a mixture and the training rows themselves leave unexplained of the network's
  score: far out next to nothing, close to the data much,
- who denoises held-out digits best: a referee that needs no truth,
- a hundred sampling paths of the network, each in the plane of its two ends,
- the noise level at which each principal axis emerges on these paths: large variances first, down
  to the narrow axes, which so small a network does not resolve.
"""

# %%
# The network gets no Gaussian for a start here (``parameterization="edm"``): what it has in common
# with one it learned.
import argparse
from pathlib import Path

import matplotlib.pyplot as plt
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from skdiffusion import NeuralScore
from skdiffusion.inspection import (
    ScoreComparisonDisplay,
    SpectrumDisplay,
    TrajectoryDisplay,
    compare_scores,
    feature_emergence,
    score_references,
    trajectory_geometry,
)

X_train, X_test = train_test_split(load_digits().data / 8 - 1, random_state=0)
network = NeuralScore(parameterization="edm", max_epochs=250, random_state=0).fit(X_train)
references = score_references(X_train, n_components=10, random_state=0)

# %%
# Held-out rows are noised, and all models look at the same points.
comparison = compare_scores(network, references, X_test)
print(comparison)

# %%
# Are its paths rotations in a plane, and in which order do features come?
geometry = trajectory_geometry(network)
emergence = feature_emergence(network)
print(geometry)
print(emergence)

# %%
figure, axes = plt.subplots(2, 2, figsize=(11, 8.5), layout="constrained")
display = ScoreComparisonDisplay.from_predictions(comparison, ax=axes[0, 0])
display.ax_.set_title("what the score of the network has beyond a law")
ScoreComparisonDisplay.from_predictions(comparison, kind="error", ax=axes[0, 1])
axes[0, 1].set_title("who denoises held-out digits best")
TrajectoryDisplay(geometry).plot(ax=axes[1, 0], n_paths=100)
axes[1, 0].set_title("paths of the network, in the plane of their ends")
SpectrumDisplay(emergence).plot(ax=axes[1, 1])
axes[1, 1].set_title("half of a principal axis has emerged")

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
        target = folder / "score_comparison.png"
        figure.savefig(target, dpi=150)
        print(f"the picture is in {target}")
