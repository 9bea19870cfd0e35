"""The pictures show what the estimator found."""

import itertools

import matplotlib
import numpy as np
import pytest

matplotlib.use("agg")

import matplotlib.pyplot as plt

from skdiffusion import GaussianScore, IntrinsicDimensionEstimator
from skdiffusion.datasets import make_gaussian
from skdiffusion.geometry._plateaus import DimensionCurve
from skdiffusion.inspection import IntrinsicDimensionDisplay

TUBE, LAW = make_gaussian(120, 3, spectrum=[100.0, 0.01, 0.01], random_state=0)


@pytest.fixture(scope="module")
def est():
    return IntrinsicDimensionEstimator("flipd", score_estimator=LAW).fit(TUBE)


@pytest.fixture(autouse=True)
def close():
    yield
    plt.close("all")


def test_curve_and_its_plateaus(est):
    display = IntrinsicDimensionDisplay.from_estimator(est)
    x, y = display.line_.get_data()
    np.testing.assert_array_equal(x, est.curve_.levels)
    np.testing.assert_array_equal(y, est.curve_.dimension)
    texts = [text.get_text() for text in display.ax_.texts]
    assert [round(float(text)) for text in texts[:2]] == [3, 1]
    assert texts[2].startswith("dimension ")
    assert display.ax_.get_xscale() == "log" and display.figure_ is display.ax_.figure


@pytest.mark.parametrize("high", [0.35, 0.9, 3.0, 9.0, 300.0])
@pytest.mark.parametrize("unit", [1.0, 1e-8])
def test_no_label_of_a_level_covers_another(high, unit):
    levels = unit * np.geomspace(0.3, high, 9)
    curve = DimensionCurve(levels, np.linspace(2, 3, 9), np.full(9, 0.1))
    _, ax = plt.subplots(figsize=(4, 3), layout="constrained")
    display = IntrinsicDimensionDisplay(2.2, curve=curve).plot(ax=ax)
    display.figure_.canvas.draw()
    labels = [label for label in display.ax_.get_xticklabels(which="both") if label.get_text()]
    boxes = sorted(label.get_window_extent().intervalx.tolist() for label in labels)
    low, top = display.ax_.bbox.intervalx
    boxes = [(left, right) for left, right in boxes if low < right and left < top]
    assert len(boxes) >= 2  # of which an axis can be read
    assert all(right < left for (_, right), (left, _) in itertools.pairwise(boxes))


def test_map_colours_rows_by_their_dimension(est):
    _, ax = plt.subplots()
    display = IntrinsicDimensionDisplay.from_estimator(est, TUBE, kind="map", ax=ax)
    assert display.ax_ is ax
    np.testing.assert_array_equal(display.scatter_.get_array(), np.sort(est.predict(TUBE)))
    places = np.random.default_rng(0).random((len(TUBE), 2))
    display = IntrinsicDimensionDisplay.from_estimator(est, TUBE, kind="map", embedding=places)
    order = np.argsort(est.predict(TUBE))
    np.testing.assert_array_equal(display.scatter_.get_offsets(), places[order])


def test_a_map_of_one_row(est):
    display = IntrinsicDimensionDisplay.from_estimator(est, TUBE[:1], kind="map")
    np.testing.assert_array_equal(display.scatter_.get_offsets(), [[0.0, 0.0]])


def test_what_cannot_be_drawn(est):
    with pytest.raises(ValueError, match="needs the rows X"):
        IntrinsicDimensionDisplay.from_estimator(est, kind="map")
    with pytest.raises(ValueError, match="one place in the plane per row"):
        IntrinsicDimensionDisplay.from_estimator(est, TUBE, kind="map", embedding=TUBE)
    with pytest.raises(ValueError, match="did you mean 'curve'"):
        IntrinsicDimensionDisplay.from_estimator(est, kind="curves")
    with pytest.raises(TypeError, match="an IntrinsicDimensionEstimator is needed; got GaussianSc"):
        IntrinsicDimensionDisplay.from_estimator(GaussianScore().fit(TUBE))
    with pytest.warns(UserWarning, match="1 distinct rows"):
        point = IntrinsicDimensionEstimator().fit(np.ones((30, 2)))
    with pytest.raises(ValueError, match="a point has no curve"):
        IntrinsicDimensionDisplay.from_estimator(point)
