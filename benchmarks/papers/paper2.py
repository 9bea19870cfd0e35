"""Claims of Sahraee-Ardakan, Delbracio and Milanfar on models that are not told the noise level.

    python benchmarks/papers/paper2.py

"The Geometry of Noise: Why Diffusion Models Don't Need Noise Conditioning", 2026. Fields are exact
(quadrature over the noise level, no network), so that what a claim says of the optimum is what is
tested. Identities must hold to the 1e-6 that the quadrature aims at; relations near the data within
a hundredth, at distances where what is left out is of that order.
"""

import warnings

import numpy as np
from _claims import Claim, above, below, between, each, near, report, rising
from blind_circles import PAPER as FIGURE
from blind_circles import RUNS as ALL_RUNS
from blind_circles import measured
from blind_claims import (
    beside,
    codimension_two,
    collapse,
    correction,
    digits,
    energy,
    gains,
    point,
    posterior_width,
    stability,
    three_terms,
    well,
)
from scipy.special import gamma

from skdiffusion.geometry import UniformPrior
from skdiffusion.models import EmpiricalModel, MixtureModel

PAPER = "Sahraee-Ardakan, Delbracio and Milanfar (2026): the geometry of noise"
TWO = EmpiricalModel(np.array([[1.0, 0.0], [-1.0, 0.0]]))
MIXTURE = MixtureModel([0.7, 0.3], [[-1.0, 0.0], [1.0, 0.0]], [0.04, 0.04])
BOTH_FAIL, CLEAN = 0.3, 0.1
"""Share of samples further than 0.1 from the circles: of a failure, and of clean circles."""


def identities():
    U = np.array([[0.2, -0.4], [0.9, 0.1], [-0.3, 0.6]])
    est = energy(MIXTURE, prior=UniformPrior(1e-4, 0.99))
    h = 1e-4
    slopes = [(est.energy(U + e) - est.energy(U - e)) / (2 * h) for e in h * np.eye(2)]
    found = est.gradient(U)
    yield Claim(
        "The gradient of the marginal energy is the posterior mean of conditional scores, with the "
        "sign changed",
        "lemma 3, equations 9 to 11",
        "equal",
        np.abs(found - np.transpose(slopes)).max() / np.abs(found).max(),
        below(1e-5),
        names="largest difference from central differences of the energy, of the largest gradient",
        form=".0e",
    )
    gaps = []
    for target in ("noise", "data", "velocity", "equilibrium"):
        parts, field = est.decompose(U, target), est.blind_field(U, target)
        gaps.append(np.abs(parts.field - field).max() / np.abs(field).max())
    yield Claim(
        "Every blind field is natural gradient + transport correction + linear drift",
        "equations 14 and 15",
        "equal",
        gaps,
        below(1e-6),
        names="largest relative difference for noise, data, velocity, equilibrium; t below 0.99",
        form=".0e",
        remark="The first two terms are together the gain times the gradient of a tilted energy, "
        "without a correction",
    )
    noise, data, velocity, still = (
        energy(TWO).blind_field(U, t) for t in ("noise", "data", "velocity", "equilibrium")
    )
    yield Claim(
        "One family of targets c x + d eps holds those of DDPM, EDM, flow and equilibrium matching",
        "table 1",
        "E[eps], E[D], E[(u - D)/t], E[u - D]",
        [np.abs(velocity - (noise - data)).max(), np.abs(still - (U - data)).max()],
        below(1e-6),
        form=".0e",
        names="f_velocity - (f_noise - f_data), f_equilibrium - (u - f_data)",
        remark="Equilibrium matching is prediction of the data without a level, on this path",
    )
    terms = three_terms().values
    yield Claim(
        "The three terms are finite for flow matching on the whole of [0, 1]",
        "equation 14 with table 1",
        "stated without a restriction",
        np.diff(terms),
        near(0, 0.01),
        names="growth of the mean gain as t goes up to .9, .99, .999, .9999, velocity",
        remark="It grows by log 10 / 2 each time: infinite one by one where the path loses its "
        "signal; their sum, the field, is finite",
    )


def at_the_data():
    deep, finite = well().values
    yield Claim(
        "The marginal energy is an infinitely deep well at every data point",
        "equation 12",
        "to minus infinity",
        np.diff(deep),
        near(-4 * np.log(10), 0.02),
        names="depth gained per factor 100 of distance, straight path, 3 columns",
        form=".3f",
        remark="K log r with K = codimension - 1 = 2 on this path",
    )
    yield Claim(
        "The same for the noise levels of EDM",
        "equation 12, any prior",
        "to minus infinity",
        finite,
        below(-1e3),
        names="energy at a data point, log-normal levels, 3 columns",
        remark="Finite: the prior is too thin at zero",
    )
    r = np.array([1e-2, 1e-3, 1e-4])
    push = energy(point(3)).gradient(beside(3, r))[:, -1] * r
    yield Claim(
        "Its gradient grows without bound on the way there",
        "equation 12",
        "to infinity",
        push,
        near(2, 0.02),
        names="gradient times distance r = 1e-2, 1e-3, 1e-4, straight path, 3 columns",
        form=".3f",
        remark="K / r with K = codimension - 1",
    )
    bends = [curvature(t) * t**2 for t in (1e-1, 1e-2, 1e-3)]
    yield Claim(
        "With a smallest time the well is finite, and its Hessian about 1 / t_min^2",
        "section on the energy paradox",
        "1 / t_min^2",
        bends,
        between(0.2, 5),
        names="second derivative times t_min^2 = 1e-2, 1e-4, 1e-6, straight path, 3 columns",
    )
    spreads = [level_spread(4, r) for r in (1e-1, 1e-2, 1e-3)]
    yield Claim(
        "At the data the posterior over levels is a point mass where the codimension exceeds 2",
        "lemmas 4 to 6",
        "a point mass in the limit",
        spreads,
        each(below(0.1), below(0.01), below(0.001)),
        names="standard deviation of the level, 4 columns, r = .1, .01, .001",
    )
    yield Claim(
        "That needs more than 2",
        "lemmas 5 and 6",
        "codimension above 2",
        codimension_two().values,
        above(0.4),
        names="P(b > .1), one column, r = 1e-2, 1e-4, 1e-8, prior flat in b",
        remark="Sufficient, not necessary: one is enough for a prior flat in b, but slow; more "
        "than two are needed for a prior flat in b^2",
    )
    widths = np.array(posterior_width().values)
    yield Claim(
        "In many columns the level is known: its variance falls as 1/D",
        "proposition 1",
        "Var = O(1/D); information 2 (D - d) / level^2",
        widths,
        each(*4 * [between(0.98, 1.2)]),
        names="sqrt(2K) times the deviation of log b, K = 10, 100, 1000, 3072",
        form=".3f",
    )
    found = [
        energy(point(k + 1)).predict_noise_level(beside(k + 1, np.array([0.05])))[0]
        for k in (31, 127)
    ]
    truth = [0.05 / np.sqrt(k) for k in (31, 127)]
    yield Claim(
        "The level is estimated by r^2 / (D - d)",
        "proposition 1",
        "r / sqrt(D - d)",
        np.array(found) / truth,
        near(1, 0.08),
        names="posterior level over it, codimension 32, 128, straight path",
        form=".3f",
        remark="Within a correction of 1/D, and the level is b / a here",
    )


def curvature(t_min):
    """Second derivative of the energy at a data point."""
    est, h = energy(point(3), prior=UniformPrior(t_min, 1.0)), 0.05 * t_min
    low, middle, high = est.energy(np.array([-h, 0.0, h])[:, None] * np.eye(3)[:1])
    return (low - 2 * middle + high) / h**2


def level_spread(d, r):
    return energy(point(d)).noise_posterior(beside(d, np.array([r]))).std("sigma")[0]


def regimes():
    k = np.array([4, 32, 128])
    shares = np.abs(correction().values) / (k - 1)[:, None]
    yield Claim(
        "In many columns the transport correction vanishes: the blind field is a gradient flow",
        "equation 16, regime I",
        "to 0",
        shares[:, 0],
        each(below(0.5), below(0.05), below(0.01)),
        names="correction over natural gradient, noise, codimension 4, 32, 128, r = .01",
        form=".4f",
        remark="1 / K exactly",
    )
    yield Claim(
        "It vanishes at the data in any number of columns",
        "equation 18, regime II",
        "to 0",
        shares[0],
        each(below(1), below(0.01)),
        names="the same, codimension 4, r = 1e-2, 1e-5",
        form=".4f",
        remark="1 / K of the gradient at any distance: the gradient it multiplies diverges",
    )
    r = np.array([1e-2, 1e-4])
    noise, velocity, still = (
        np.linalg.norm(energy(point(4)).blind_field(beside(4, r), t), axis=1)
        for t in ("noise", "velocity", "equilibrium")
    )
    limit = np.sqrt(2) * gamma(2) / gamma(1.5)  # mean of a chi variable of K = 3 degrees
    yield Claim(
        "At the data noise and velocity stay finite, equilibrium matching vanishes linearly",
        "equations 57 to 60",
        "O(1), O(1), O(r)",
        [noise[1] / limit, velocity[1] / limit, still[1] / r[1]],
        near(1, 0.01),
        form=".4f",
        names="noise and velocity over the mean of a chi variable, equilibrium over r = 1e-4",
    )


def stable():
    powers, pole, one = gains().values
    yield Claim(
        "The sampler's gain is 1/b for noise and 1/b^2 for data",
        "table 2",
        "-1, -2",
        powers[:2],
        near([-1, -2], 0.2),
        form=".2f",
        names="powers of b, variance preserving, levels of .001 to .01",
        remark="Above the level of the schedule's first time steps, where it is not yet a power",
    )
    yield Claim(
        "The same on the straight path",
        "table 2, where b = t is an instance",
        "-1, -2",
        powers[2:],
        near([-1, -2], 0.2),
        form=".2f",
        names="powers of b",
        remark=f"0 and -1: the table is that of VP time. Noise has a pole at the other end: "
        f"{pole:.0f} at level 80",
    )
    yield Claim(
        "The gain of velocity is one",
        "table 2",
        "1",
        one,
        near(1, 1e-9),
        names="largest over levels, straight path",
    )
    straight, vp = stability(), stability("vp")
    quiet = [4, 3, 2, 1]
    levels = straight["noise"].levels[quiet]
    drift = straight["noise"].drift_error[quiet]
    yield Claim(
        "The drift error of blind noise grows without bound at low noise, even for b = t",
        "equations 22 and 66, table 2",
        "amplified Jensen gap, unstable",
        drift / drift[0],
        rising(),
        names="drift error at falling levels "
        + ", ".join(f"{v:.2g}" for v in levels)
        + ", over the first",
        remark="On typical points the Jensen gap is a fluctuation of mean "
        f"{straight['noise'].jensen_gap[quiet].mean():.3f} and deviation "
        f"{straight['noise'].jensen_gap_std[quiet].mean():.3f} at every low level alike",
    )
    drift = vp["noise"].drift_error[quiet]
    yield Claim(
        "The same on the variance-preserving path",
        "equations 22 and 66, table 2",
        "amplified Jensen gap, unstable",
        drift / drift[0],
        rising(),
        names="drift error at falling levels "
        + ", ".join(f"{v:.2g}" for v in vp["noise"].levels[quiet])
        + ", over the first",
        remark="Its integral over time stays finite",
    )
    yield Claim(
        "The drift error of blind velocity is bounded",
        "equation 70",
        "bounded",
        straight["velocity"].drift_error,
        below(2),
        names="drift error at all levels, straight path, 31 empty columns",
        form=".2f",
        remark="So is that of noise near the data: the errors of both are "
        f"{straight['noise'].error[1]:.3f} and {straight['velocity'].error[1]:.3f} at low levels",
    )
    yield Claim(
        "The noise level can be read off a noisy row",
        "abstract",
        "implicit in the row",
        digits().values,
        near(0.9, 0.03),
        names="share of held-out digits with the true level in the 90% interval, Gaussian, mixture",
        form=".3f",
        remark="4,800 noised rows; 1,200 digits in three splits",
    )


RUNS = {
    "flow": "straight path, velocity, Euler",
    "ddpm": "variance preserving, noise, ancestral",
    "data": "straight path, data, Euler",
    "vp velocity": "variance preserving, velocity, Euler",
}


def circles():
    """Samples of exact blind fields; the paper's networks are read off its figure 5."""
    warnings.filterwarnings("ignore", "a model that is not told")  # it is what is measured
    chosen = [run for run in ALL_RUNS if run[0] in RUNS.values()]
    found = {d: measured(d, chosen) for d in (2, 8, 32)}
    mean, share = (
        {k: np.array([found[d][RUNS[k]][j] for d in found]) for k in RUNS} for j in (0, 1)
    )
    paper = [
        [[float(v) for v in cell.split("/")] for cell in cells[:3]] for cells in FIGURE.values()
    ]
    for j, what, ours, within in (
        (0, "mean distance", mean, 0.01),
        (1, "share beyond 0.1", share, 0.05),
    ):
        cells = np.array(paper)[:, :, j].ravel()
        yield Claim(
            f"Circles, {what} of blind samples from the nearest circle",
            "figure 5, read off",
            ", ".join(f"{v:.3f}" for v in cells),
            np.concatenate([ours["flow"], ours["ddpm"]]),
            near(cells, within),
            form=".3f",
            names="flow matching in 2, 8, 32 columns, DDPM in 2, 8, 32",
            remark="Exact fields against the paper's networks: 1,000 samples, 100 steps; the paper "
            "does not state its sampler",
        )
    yield Claim(
        "In 2 columns both fail",
        "section 7.2",
        "both fail",
        [share["flow"][0], share["ddpm"][0]],
        above(BOTH_FAIL),
        form=".3f",
        names="share beyond 0.1, flow matching, DDPM",
    )
    yield Claim(
        "In 8 and 32 columns flow matching is clean, DDPM noisier",
        "section 7.2",
        "clean; noisier",
        np.concatenate([share["flow"][1:], mean["ddpm"][1:] / mean["flow"][1:]]),
        each(below(CLEAN), below(CLEAN), above(1), above(1)),
        form=".3f",
        names="share beyond 0.1 of flow matching, mean distance of DDPM over flow matching's",
        remark="The figure itself has "
        + ", ".join(f"{paper[1][k][0] / paper[0][k][0]:.2f}" for k in (1, 2))
        + " for that ratio, and shares of .266 and .170",
    )
    both = {RUNS["flow"], RUNS["ddpm"]}
    many = measured(128, [run for run in ALL_RUNS if run[0] in both])
    yield Claim(
        "In 128 columns both are fine",
        "section 7.2, figure 5",
        "means .041 and .027, shares .088 and .032",
        np.ravel([many[RUNS[name]][:2] for name in ("flow", "ddpm")]),
        each(near(0.041, 0.01), below(CLEAN), near(0.027, 0.01), below(CLEAN)),
        form=".3f",
        names="mean distance and share beyond 0.1 of flow matching, of DDPM",
        remark="Off the plane, which the figure does not show: "
        f"{many[RUNS['flow']][3]:.2f} and {many[RUNS['ddpm']][3]:.2f}",
    )
    yield Claim(
        "Velocity is inherently stable",
        "table 2",
        "stable",
        [share["flow"][2], share["vp velocity"][2]],
        below(CLEAN),
        form=".3f",
        names="share beyond 0.1 in 32 columns, straight path and variance preserving",
        remark="A bounded gain is necessary and not sufficient, as the paper says; the clock is "
        "what fails",
    )
    yield Claim(
        "Prediction of the data is stable",
        "table 2, equations 67 to 69",
        "stable",
        share["data"][1:],
        below(0.01),
        form=".3f",
        names="share beyond 0.1, 8 and 32 columns, straight path",
    )
    pulls = collapse().values
    yield Claim(
        "It is stable whatever the data",
        "table 2",
        "stable",
        share["data"][0],
        below(CLEAN),
        form=".3f",
        names="the same in 2 columns",
        remark="It collapses to the mean where the data fill all columns; Gaussian data in 5 "
        f"columns are pulled to theirs by {pulls[0]:.3f} and {pulls[1]:.3f} per step at |u| = 1, 3",
    )


def images():
    yield Claim(
        "Blind DDPM leaves noise in images, blind flow matching does as well as conditional",
        "figures 2 to 4",
        "pictures of CIFAR-10, SVHN, Fashion-MNIST",
        why_not="U-Nets of 10,000 steps at batch 128 need a GPU, and there is no number to compare",
    )
    yield Claim(
        "Without the level DDIM loses image quality, flow matching does not",
        "table 3, from Sun et al.",
        "FID 40.90 (DDIM), 2.61 (flow matching), 2.23 (uEDM)",
        why_not="CIFAR-10 in colour, its networks and an Inception network are not part of this",
    )


def claims():
    parts = identities, at_the_data, regimes, stable, circles, images
    return [claim for part in parts for claim in part()]


if __name__ == "__main__":
    report(__file__, PAPER, claims())
