"""The embedded pair: consistent, of orders five and four, first same as last."""

import numpy as np
import pytest

from skdiffusion.utils.dormand_prince import ERROR_WEIGHTS, NODES, STAGES, WEIGHTS, dormand_prince


def test_the_pair_is_consistent():
    for node, stage in zip(NODES, STAGES, strict=True):
        assert sum(stage) == pytest.approx(node, abs=1e-14)
    assert sum(WEIGHTS) == pytest.approx(1, abs=1e-15)
    assert sum(ERROR_WEIGHTS) == pytest.approx(0, abs=1e-15)


def test_orders_of_a_step_and_of_its_error_estimate():
    # dx/du = cos(u) x, so x = exp(sin u)
    steps, errors, estimates = np.array([0.4, 0.2, 0.1]), [], []
    for h in steps:
        after, slope, error = dormand_prince(
            lambda x, share, h=h: np.cos(0.3 + share * h) * x,
            np.exp(np.sin(0.3)),
            np.cos(0.3) * np.exp(np.sin(0.3)),
            h,
        )
        assert slope == np.cos(0.3 + h) * after
        errors.append(abs(after - np.exp(np.sin(0.3 + h))))
        estimates.append(abs(error))
    # fifth order: a local error of h^6, and that of the fourth-order solution of h^5
    assert np.polyfit(np.log(steps), np.log(errors), 1)[0] == pytest.approx(6, abs=0.5)
    assert np.polyfit(np.log(steps), np.log(estimates), 1)[0] == pytest.approx(5, abs=0.5)
