"""The pictures of scores, trajectories and spectra show what was found."""

import matplotlib
import numpy as np
import pandas as pd
import pytest

matplotlib.use("agg")

import matplotlib.pyplot as plt

from skdiffusion import GaussianScore, GMMScore
from skdiffusion.datasets import make_gaussian, make_gaussian_mixture
from skdiffusion.inspection import (
    ScoreComparisonDisplay,
    ScoreFieldDisplay,
    SpectrumDisplay,
    TrajectoryDisplay,
    compare_scores,
)
from skdiffusion.models import AdditiveGauge

ROWS, LAW = make_gaussian_mixture(100, random_state=0)
TRIPLE = make_gaussian(100, 3, spectrum=[4.0, 1.0, 0.2], random_state=0)[0]


@pytest.fixture(autouse=True)
def close():
    yield
    plt.close("all")


def test_arrows_point_along_the_score():
    display = ScoreFieldDisplay.from_estimator(LAW, ROWS, sigma=[0.2, 1.0], grid_resolution=6)
    assert len(display.axes_) == len(display.quiver_) == len(display.surface_) == 2
    arrows = np.column_stack([display.quiver_[1].U, display.quiver_[1].V])
    score = LAW.score(display.points, 1.0)
    cosine = (
        (arrows * score).sum(1) / np.linalg.norm(arrows, axis=1) / np.linalg.norm(score, axis=1)
    )
    np.testing.assert_allclose(cosine, 1)
    assert display.ax_ is display.axes_[0] and display.figure_ is display.ax_.figure
    grid = display.surface_[0].get_array()
    assert grid.max() <= LAW.log_prob(ROWS, 0.2).max() + 1


def test_a_score_without_density_and_given_values():
    turned = AdditiveGauge(LAW, np.array([[0.0, -1.0], [1.0, 0.0]]), fade=8.0)
    display = ScoreFieldDisplay.from_estimator(turned, ROWS, grid_resolution=4)
    assert (display.surface_ is None) == (not turned.has_log_prob)
    _, ax = plt.subplots()
    given = ScoreFieldDisplay.from_predictions(ROWS, LAW.score(ROWS, 1.0), sigma=1.0, ax=ax)
    assert given.ax_ is ax and given.surface_ is None


def test_columns_of_a_frame_name_the_axes():
    frame = pd.DataFrame(ROWS, columns=["length", "width"])
    for display in (
        ScoreFieldDisplay.from_estimator(GaussianScore().fit(frame), frame, sigma=1.0),
        ScoreFieldDisplay.from_predictions(ROWS, ROWS, sigma=1.0, X=frame),
    ):
        assert (display.ax_.get_xlabel(), display.ax_.get_ylabel()) == ("length", "width")


def test_what_is_no_field_in_the_plane():
    with pytest.raises(ValueError, match="the model has 3: fit one to two of them"):
        ScoreFieldDisplay.from_estimator(GaussianScore().fit(TRIPLE), TRIPLE)
    with pytest.raises(ValueError, match="X must have 2 columns; got 3"):
        ScoreFieldDisplay.from_estimator(LAW, TRIPLE)
    with pytest.raises(ValueError, match="must both have shape"):
        ScoreFieldDisplay.from_predictions(ROWS, TRIPLE, sigma=1.0)
    with pytest.raises(ValueError, match="one axes per noise level, 2"):
        ScoreFieldDisplay.from_estimator(LAW, ROWS, sigma=[1.0, 2.0], ax=plt.subplots()[1])
    with pytest.raises(ValueError, match="X has no variance"):
        ScoreFieldDisplay.from_estimator(LAW, np.ones((3, 2)))
    for sigma in ([], "low", [[1.0, 2.0]]):
        with pytest.raises(ValueError, match="sigma must be a noise level or a list of them"):
            ScoreFieldDisplay.from_estimator(LAW, ROWS, sigma=sigma)
    with pytest.raises(ValueError, match="sigma must be a finite number"):
        ScoreFieldDisplay.from_predictions(ROWS, ROWS, sigma="low")


def test_comparison():
    found = compare_scores(LAW, {"gaussian": LAW.gaussian()}, ROWS, sigmas=[0.3, 1.0, 3.0])
    display = ScoreComparisonDisplay.from_predictions(found)
    np.testing.assert_array_equal(
        display.lines_["gaussian"].get_ydata(), found.unexplained["gaussian"]
    )
    display.plot(kind="error")
    assert list(display.lines_) == ["gaussian", "model"]
    assert display.ax_.get_xscale() == "log"
    elsewhere = compare_scores(LAW, LAW.gaussian(), ROWS, sigmas=1.0, probes=ROWS[None])
    with pytest.raises(ValueError, match="has no errors"):
        ScoreComparisonDisplay(elsewhere).plot(kind="error")
    with pytest.raises(ValueError, match="accepted are 'unexplained', 'error'"):
        ScoreComparisonDisplay(found).plot(kind="explained")


def test_trajectories():
    est = GMMScore(2, random_state=0).fit(TRIPLE)
    display = TrajectoryDisplay.from_estimator(est, n_samples=7, n_steps=12)
    assert len(display.lines_) == 7
    path = np.column_stack(display.lines_[0].get_data())
    np.testing.assert_allclose(path[0], [1, 0], atol=1e-12)
    display.plot(kind="residual")
    assert len(display.lines_) == 4 and display.ax_.xaxis_inverted()
    _, paths = est.sample(5, n_steps=12, return_trajectory=True, random_state=0)
    levels = np.append(est.noise_levels(12), 0.0)
    given = TrajectoryDisplay.from_predictions(paths, levels, far_field=est.far_field_)
    assert given.figure_ is given.ax_.figure


def test_spectrum():
    est = GaussianScore().fit(TRIPLE)
    display = SpectrumDisplay.from_estimator(est, n_samples=5)
    np.testing.assert_allclose(
        display.lines_[0].get_ydata(), display.lines_[1].get_ydata(), rtol=0.02
    )
    assert all(tick == round(tick) for tick in display.ax_.get_xticks())
    display.plot(kind="amplitude")
    assert len(display.lines_) == 3
    _, paths = est.sample(5, n_steps=40, return_trajectory=True, random_state=0)
    levels = np.append(est.noise_levels(40), 0.0)
    _, ax = plt.subplots()
    assert SpectrumDisplay.from_predictions(paths, levels, ax=ax).ax_ is ax
