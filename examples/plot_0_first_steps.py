"""
==========================
Ten minutes with one table
==========================

Everything that one does with a new table, once: look, fit, compare, sample, ask what is odd, ask
how many dimensions there are, and let a search choose. The table is scikit-learn's wine: 178
bottles, thirteen chemical measurements in units from fractions to thousands.
"""

# %%
# The table, and a quarter of it for later
# ----------------------------------------

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from sklearn.datasets import load_wine
from sklearn.model_selection import GridSearchCV, train_test_split
from sklearn.preprocessing import StandardScaler

from skdiffusion import (
    EmpiricalScore,
    GaussianScore,
    GMMScore,
    IntrinsicDimensionEstimator,
    NeuralScore,
    make_density_pipeline,
)
from skdiffusion.metrics import c2st

X = load_wine(as_frame=True).data
train, test = train_test_split(X, random_state=0)

# %%
# Fit and compare
# ---------------
#
# ``score`` is the mean log-density of the rows in nats, larger is better, and may be compared
# over all estimators. Mixtures and kernels need no scaling of the columns.

models = {
    "one Gaussian": GaussianScore("ledoit_wolf"),
    "mixture": GMMScore("held_out", random_state=0),
    "kernels": EmpiricalScore(),
}
for name, model in models.items():
    print(
        f"{name:12} held out {model.fit(train).score(test):6.1f}, train {model.score(train):6.1f}"
    )

# %%
# Why is the Gaussian so bad? Ledoit and Wolf shrink towards equal variances, and these columns,
# in their different units, are far from equal. Behind a scaler it is another matter. A
# ``DensityPipeline`` still answers for the raw rows, so that the number may be compared with
# those above.

scaled = make_density_pipeline(StandardScaler(), GaussianScore("ledoit_wolf")).fit(train)
print(f"one Gaussian of the scaled columns: held out {scaled.score(test):.1f}")

# %%
# Sample
# ------
#
# Samples are DataFrames if one asks for them, as everywhere in scikit-learn. Something may be
# known of the rows: a value, or a range.

model = models["mixture"].set_output(transform="pandas")
drawn = model.sample(500, random_state=0)
strong = model.sample(500, condition={"alcohol": (14.0, None)}, random_state=0)
print(drawn[["alcohol", "color_intensity", "proline"]].head(3).round(1))

# %%
# Can a classifier tell drawn rows from held-out ones? One half or less means no.
scale = StandardScaler().fit(train)
accuracy = c2st(scale.transform(test), scale.transform(drawn.iloc[: len(test)]), random_state=0)
print(f"accuracy of a classifier between drawn and held-out rows: {accuracy:.2f}")

# %%
# Which rows are odd?
# -------------------
density = pd.Series(model.score_samples(test), index=test.index)
print(density.nsmallest(3).round(1))

# %%
# How many dimensions?
# --------------------
#
# That is a question of distances, so columns of different units come to one scale first.
dimension = IntrinsicDimensionEstimator(random_state=0).fit(scale.transform(X))
print(f"{dimension.dimension_:.1f} of 13, give or take {dimension.std_error_:.1f}")

# %%
# Let a search choose
# -------------------
#
# Schedules and parameterizations of a small network are parameters like others. ``score`` depends
# on neither (here it is a bound on the mean log-density), so the search is fair.
search = GridSearchCV(
    NeuralScore(max_epochs=30, module__width=32, random_state=0),
    {"parameterization": ["gaussian", "edm"], "schedule": ["vp", "flow_matching"]},
    cv=2,
).fit(scale.transform(train))
table = pd.DataFrame(search.cv_results_)
print(table[["param_parameterization", "param_schedule", "mean_test_score"]].round(1))

# %%
# The schedule hardly matters, what the network is asked for does. Does the network beat the
# mixture? A pipeline puts both in the units of the raw rows.
network = make_density_pipeline(StandardScaler(), search.best_estimator_).fit(train)
print(f"network, bound: {network.score(test):.1f}; mixture: {model.score(test):.1f}")

# %%
# The picture
# -----------
figure, axes = plt.subplots(1, 2, figsize=(10, 4.4), layout="constrained", sharex=True, sharey=True)
for ax, rows, title in zip(
    axes, (drawn, strong), ("drawn", "drawn, given more than 14% alcohol"), strict=True
):
    ax.plot(rows["alcohol"], rows["proline"], ".", ms=4, color="tab:orange", label="drawn")
    ax.plot(X["alcohol"], X["proline"], "o", ms=3, mfc="none", color="tab:blue", label="bottles")
    ax.set(xlabel="alcohol (%)", ylabel="proline (mg/l)", title=title)
    ax.legend(frameon=False)
odd = test.loc[density.nsmallest(3).index]
axes[0].plot(odd["alcohol"], odd["proline"], "s", ms=9, mfc="none", color="k", label="least likely")
axes[0].legend(frameon=False)
axes[0].set_ylim(np.array([0.0, 1.1]) * X["proline"].max())
plt.show()
