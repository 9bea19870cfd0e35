"""
=========================================
From noise to data in a dozen evaluations
=========================================

A mixture fitted to the digits has an exact denoiser, so a sampler's error can be measured: the
distance of every row from where the exact flow takes the same code. The picture shows

- the error of four samplers against the number of evaluations of the model, from the far field
  (solid) and after a jump by the Gaussian's closed-form flow (dashed),
- what the jump is expected to cost, before it is made: the median row and the worst of ten,
- the same codes by the exact flow and by each sampler in eight evaluations.
"""

# %%
# The law, and 300 codes to measure with.

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits

from skdiffusion import GMMScore
from skdiffusion.samplers import check_sampler, run_sampler, teleport_report

X = load_digits().data / 8 - 1
est = GMMScore(10, random_state=0).fit(X)
model, far_field = est.model_, est.far_field_
codes = np.random.default_rng(0).standard_normal((300, X.shape[1]))


def generated(name, n_evaluations, teleport=False):
    """Rows from the codes in so many evaluations of the model."""
    sampler = check_sampler(name).set_params(teleport=teleport)
    n_steps = (n_evaluations + 1) // 2 if name == "heun" else n_evaluations
    levels = est.noise_levels(n_steps, sampler)
    start = far_field.from_latent(codes, levels[0])
    return run_sampler(sampler, model, start, [*levels, 0.0], far_field=far_field)


exact = est.inverse_transform(codes)

# %%
# Errors as a share of the data's scale: the root mean square over columns of the median row.
budgets = [6, 8, 12, 18, 26, 36]
names = ["adams", "dpmpp_2m", "heun", "euler"]


def error(rows):
    return np.median(np.linalg.norm(rows - exact, axis=1)) / np.sqrt(X.shape[1]) / est.scale_


errors = {
    (name, jump): [error(generated(name, n, jump)) for n in budgets]
    for name in names
    for jump in (False, "auto")
}
report = teleport_report(est)
level = report.level(tol=0.02)
print(f"hand-over at noise level {level:.2f}: expected error {report.error_at(level)[0]:.1%}")
for name in names:
    plain, jumped = errors[name, False], errors[name, "auto"]
    print(f"{name:9s} 12 evaluations: {plain[2]:.1%}, after the jump {jumped[2]:.1%}")

# %%
figure = plt.figure(figsize=(11, 7.5), layout="constrained")
grid = figure.add_gridspec(2, 2, height_ratios=[1.25, 1])
axis = figure.add_subplot(grid[0, 0])
for k, name in enumerate(names):
    axis.loglog(budgets, errors[name, False], "o-", color=f"C{k}", label=name)
    axis.loglog(budgets, errors[name, "auto"], "--", color=f"C{k}")
axis.set(
    xlabel="evaluations of the model",
    ylabel="error / scale of the data",
    title="error of the median row (dashed: after the jump)",
)
axis.set_xticks(budgets, budgets, minor=False)
axis.minorticks_off()
axis.legend(frameon=False)

axis = figure.add_subplot(grid[0, 1])
shown = (report.levels > 0.3) & (report.quantile > 1e-5)
axis.loglog(report.levels[shown], report.median[shown], label="median row")
axis.loglog(report.levels[shown], report.quantile[shown], label="worst of ten rows")
axis.axvline(level, color="0.6", ls=":")
axis.annotate("auto", (level, 2e-5), rotation=90, ha="right", color="0.4")
axis.set(xlabel="noise level of the hand-over", title="expected error of a jump / scale")
axis.legend(frameon=False)

axis = figure.add_subplot(grid[1, :])
shown = {"exact flow": exact, **{name: generated(name, 8) for name in names}}
images = [
    [np.pad(row.reshape(8, 8), 1, constant_values=-1) for row in x[:18]] for x in shown.values()
]
axis.imshow(np.block(images), cmap="gray_r", vmin=-1, vmax=1)
axis.set_yticks(np.arange(len(shown)) * 10 + 4.5, list(shown))
axis.set_xticks([])
axis.set_title("the same codes in eight evaluations")
plt.show()
