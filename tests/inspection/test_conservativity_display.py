"""The picture shows the numbers of the decomposer."""

import numpy as np
import pytest

from skdiffusion import ConservativityDecomposer, GaussianScore
from skdiffusion.inspection import ConservativityDisplay


def test_the_display_shows_fractions_and_two_standard_errors(rng):
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    X = rng.standard_normal((50, 2))
    dec = ConservativityDecomposer("linear", score_estimator=GaussianScore(), sigma=[0.5, 1.0])
    figure, ax = plt.subplots()
    display = ConservativityDisplay.from_estimator(dec.fit(X), ax=ax, color="C3")
    assert display.ax_ is ax and display.figure_ is figure
    line, _, (bars,) = display.errorbar_
    np.testing.assert_array_equal(line.get_xdata(), [0.5, 1.0])
    np.testing.assert_array_equal(line.get_ydata(), dec.conservative_fraction_)
    heights = [np.ptp(segment[:, 1]) for segment in bars.get_segments()]
    np.testing.assert_allclose(heights, 4 * dec.conservative_fraction_std_error_, atol=1e-12)
    plt.close(figure)
    with pytest.raises(ValueError, match="no noise levels"):
        ConservativityDisplay.from_estimator(ConservativityDecomposer("linear").fit(X, X))
    with pytest.raises(TypeError, match="a ConservativityDecomposer is needed; got GaussianScore"):
        ConservativityDisplay.from_estimator(GaussianScore().fit(X))
