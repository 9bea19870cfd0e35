"""
====================================
How many dimensions do my data have?
====================================

A table has as many columns as were recorded. How many of them are free to vary is another number,
and it can differ from place to place and from scale to scale. Three stories: a roll, a line in a
tube, and handwritten digits.
"""

# %%
# A rolled sheet
# --------------
#
# Two dimensions in three columns. The default looks at neighbours at several scales, and corrects
# what they say by what they said in simulated laws of known dimension.

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits, make_swiss_roll
from sklearn.decomposition import PCA

from skdiffusion import IntrinsicDimensionEstimator
from skdiffusion.inspection import IntrinsicDimensionDisplay

X, _ = make_swiss_roll(1500, random_state=0)
est = IntrinsicDimensionEstimator(random_state=0).fit(X)
print(f"swiss roll: {est.dimension_:.2f} +- {est.std_error_:.2f}")

# %%
# A line in a tube
# ----------------
#
# Points along a line, off it by a tenth: from afar a line, from near a solid. The dimension of such
# data is a question of scale, and the curve over noise levels has a plateau for each answer. Here
# the score is that of the exact law, a Gaussian.

from skdiffusion.datasets import make_gaussian  # noqa: E402

tube, law = make_gaussian(200, 3, spectrum=[100.0, 0.01, 0.01], random_state=0)
scaled = IntrinsicDimensionEstimator("flipd", score_estimator=law).fit(tube)
for plateau in scaled.plateaus_:
    print(f"tube: {plateau}")

# %%
# Digits
# ------
#
# Images of 64 pixels. Zeros vary in most ways, eleven, fours in fewest, and the map shows it.

digits, labels = load_digits(return_X_y=True)
whole = IntrinsicDimensionEstimator(random_state=0).fit(digits)
print(f"digits: {whole.dimension_:.1f} +- {whole.std_error_:.1f}")
local = [np.mean(whole.dimension_pw_[labels == k]) for k in range(10)]
print("by digit:", " ".join(f"{k}: {d:.1f}" for k, d in enumerate(local)))

# %%
# The pictures: the curve of the tube with its two answers, and the digits by local dimension.

figure, axes = plt.subplots(1, 2, figsize=(11, 4.5), layout="constrained")
IntrinsicDimensionDisplay.from_estimator(scaled, ax=axes[0])
axes[0].set_title("a line in a tube")
plane = PCA(2).fit_transform(digits)
IntrinsicDimensionDisplay.from_estimator(whole, digits, kind="map", embedding=plane, ax=axes[1])
for k in range(10):
    axes[1].annotate(str(k), plane[labels == k].mean(axis=0), weight="bold", color="C3")
axes[1].set_title("digits")
plt.show()
