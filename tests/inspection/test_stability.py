"""Stability: gains with closed forms, and a report whose numbers are known near a law."""

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LinearRegression

from skdiffusion.estimators import BlindScore, NoiseLevelEstimator
from skdiffusion.geometry import MarginalEnergy, UniformPrior
from skdiffusion.inspection import (
    StabilityDisplay,
    StabilityTableDisplay,
    diagnose_stability,
    stability_table,
)
from skdiffusion.models import BlindModel, GaussianModel
from skdiffusion.schedules import CosineSchedule, FlowMatchingSchedule, VPSchedule
from skdiffusion.targets import TARGETS, target_coefficients, target_gains

matplotlib.use("agg")
K = 31
CLOCK = NoiseLevelEstimator(LinearRegression(), n_noise=4)
LINE = GaussianModel(np.zeros(K + 1), np.r_[1.0, np.zeros(K)])


@pytest.fixture(scope="module")
def report():
    X = LINE.sample(300, random_state=0)
    energy = MarginalEnergy(
        LINE,
        schedule="flow_matching",
        prior=UniformPrior(1e-5, 0.99),
        standardize=False,
        n_nodes=64,
    ).fit(X)
    return {
        target: diagnose_stability(energy, X, target=target, n_levels=12, n_draws=400)
        for target in ("noise", "velocity")
    }


def test_gains_of_the_straight_path():
    table = stability_table("flow_matching")
    t = table.levels / (1 + table.levels)
    for target, gain in {
        "velocity": 1 + 0 * t,
        "noise": 1 / (1 - t),  # a pole where there is no signal
        "data": 1 / t,  # and one where there is no noise
        "v": 1 / ((1 - t) ** 2 + t**2),
        "score": t / (1 - t),
    }.items():
        np.testing.assert_allclose(table.gain[target], gain, rtol=1e-9)
    # open-loop amplification: the highest level for noise, the range of times for the velocity
    spans = table.levels - table.levels[0]
    np.testing.assert_allclose(table.amplification["noise"][-1], spans[-1], rtol=1e-2)
    np.testing.assert_allclose(table.amplification["velocity"], t - t[0], rtol=1e-9)
    assert table.amplification["data"].max() < 1  # what is wrong with data is forgotten
    assert "velocity" in str(table)


def test_amplification_of_noise_is_the_highest_level():
    table = stability_table("vp", n_levels=400)
    np.testing.assert_allclose(
        table.amplification["noise"][-1], table.levels[-1] - table.levels[0], rtol=1e-2
    )


@pytest.mark.parametrize("schedule", [FlowMatchingSchedule(), CosineSchedule(), VPSchedule()])
def test_the_flow_does_not_depend_on_the_target(schedule):
    rng = np.random.default_rng(0)
    t = 0.4
    alpha, sigma, rates = schedule.alpha(t), schedule.sigma(t), schedule.rates(t)
    data, noise = rng.normal(size=(2, 3))
    u = alpha * data + sigma * noise
    for target in TARGETS:
        c, d = target_coefficients(target, alpha, sigma, rates)
        gains = target_gains(target, alpha, sigma, rates)
        moved = gains.drift * u + gains.sampler * (c * data + d * noise)
        np.testing.assert_allclose(moved, rates[0] * data + rates[1] * noise, rtol=1e-10)


def test_near_the_law_noise_and_velocity_err_alike(report):
    # rms of chi_k - E chi_K with K = k - 1: 1/sqrt(2) at every quiet level, for both targets
    quiet = slice(1, 5)
    for target in ("noise", "velocity"):
        # 400 draws of a standard deviation know it to 4%
        np.testing.assert_allclose(report[target].error[quiet], 0.7101, rtol=0.15)
    np.testing.assert_allclose(report["noise"].desynchronisation[quiet], 1, atol=0.05)


def test_the_jensen_gap_is_a_fluctuation_without_bias(report):
    found = report["noise"]
    quiet = slice(1, 5)
    # mean zero on the straight path; 400 draws of a deviation 1/sqrt(2k)
    np.testing.assert_allclose(found.jensen_gap_std[quiet], 1 / np.sqrt(2 * K), rtol=0.2)
    assert np.abs(found.jensen_gap[quiet]).max() < 4 / np.sqrt(2 * K * 400)


def test_a_sampler_on_the_schedules_clock_falls_behind(report):
    # noise that is left behind lies above the level of the schedule in the end
    assert report["noise"].path_desynchronisation[0] > 2
    assert (report["noise"].bound[:-1] > 0).all()
    assert np.isfinite(report["noise"].residual)
    assert "blind noise" in str(report["noise"])


def test_copies_of_rows_are_not_neighbours_at_no_distance():
    law = GaussianModel(np.zeros(3), [1.0, 1.0, 0.0])
    X = law.sample(100, random_state=0)
    energy = MarginalEnergy(law, n_nodes=64).fit(X)
    plain, copied = (
        diagnose_stability(energy, rows, target="data", n_levels=4, n_draws=400).residual
        for rows in (X, np.repeat(X, 2, axis=0))
    )
    assert copied == pytest.approx(plain, rel=0.2)  # of other rows drawn: a median of 400
    with pytest.raises(ValueError, match="all of its rows are the same"):
        diagnose_stability(energy, np.ones((5, 3)))


def test_displays():
    shown = StabilityTableDisplay.from_schedule("cosine", n_levels=20)
    assert len(shown.ax_[0].lines) == len(TARGETS)
    X = LINE.sample(50, random_state=0)
    energy = MarginalEnergy(
        LINE, schedule="flow_matching", prior=UniformPrior(1e-3, 0.9), n_nodes=32
    ).fit(X)
    shown = StabilityDisplay.from_estimator(
        energy, X, targets=("noise", "data"), n_levels=4, n_draws=10
    )
    assert len(shown.ax_[0].lines) == 2
    # the same curve twice, where levels are the time: neither must hide the other
    assert len({line.get_linestyle() for line in shown.ax_[0].lines}) == 2


def test_models_that_do_not_know_are_refused():
    with pytest.raises(TypeError, match="a fitted MarginalEnergy is needed"):
        diagnose_stability(LINE, np.zeros((3, 2)))
    with pytest.raises(NotFittedError):
        diagnose_stability(MarginalEnergy(LINE), np.zeros((3, 2)))
    energy = MarginalEnergy(LINE).fit(LINE.sample(50, random_state=0))
    with pytest.raises(ValueError, match=f"X must have {LINE.n_features} columns; got 1"):
        diagnose_stability(energy, np.zeros((3, 1)))


def test_a_field_on_another_path_is_refused():
    X = LINE.sample(50, random_state=0) + 5
    est = BlindScore(LinearRegression(), level_estimator=CLOCK, n_noise=5, random_state=0).fit(X)

    def diagnose(field=est, **path):
        path = {"schedule": "flow_matching", "prior": UniformPrior(1e-3, 0.99)} | path
        energy = MarginalEnergy(GaussianModel(np.full(K + 1, 5.0), 1.0), **path).fit(X)
        return diagnose_stability(energy, X, field=field, n_levels=3, n_draws=5)

    assert np.isfinite(diagnose().error).all()
    with pytest.raises(ValueError, match=r"on the path of Flow.* and model on that of Cosine"):
        diagnose(schedule="cosine")
    with pytest.raises(ValueError, match="field and model are of rows in other units"):
        diagnose(standardize=False)
    silent = BlindModel(np.zeros_like, K + 1, FlowMatchingSchedule(), "data")
    with pytest.raises(ValueError, match="field must tell the noise level of points"):
        diagnose(silent)


def test_two_pictures_need_two_axes():
    _, ax = plt.subplots()
    with pytest.raises(ValueError, match="ax must be a pair of axes; got 1"):
        StabilityTableDisplay.from_schedule("vp", n_levels=5, ax=ax)
    plt.close("all")
