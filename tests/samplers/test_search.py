"""Best of n and search: order statistics of a normal law are known."""

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import norm
from sklearn.preprocessing import StandardScaler

from skdiffusion import GaussianScore, make_density_pipeline
from skdiffusion.samplers import HeunSampler, Teleport, best_of_n, search_codes

A = np.array([0.6, 0.8])
EST = GaussianScore.from_parameters([1.0, -2.0], np.eye(2))  # a.x is N(-1, 1)

DRAWING = HeunSampler(teleport=Teleport(2.0, start="draw"))


def along(X):
    return np.asarray(X) @ A


def expected_maximum(n):
    """Mean and standard deviation of the largest of n standard normals."""
    moments = [
        quad(lambda x, p=p: x**p * n * norm.pdf(x) * norm.cdf(x) ** (n - 1), -10, 10)[0]
        for p in (1, 2)
    ]
    return moments[0], (moments[1] - moments[0] ** 2) ** 0.5


@pytest.mark.parametrize("n", [1, 8])
def test_the_best_of_n_is_an_order_statistic(n):
    X = best_of_n(EST, along, 3000, n=n, random_state=0)
    mean, deviation = expected_maximum(n)
    assert along(X).mean() + 1 == pytest.approx(mean, abs=5 * deviation / 3000**0.5)
    across = X @ np.array([0.8, -0.6])  # what the verifier does not see is left alone
    assert across.std() == pytest.approx(1, abs=5 * (0.5 / 3000) ** 0.5)


def test_a_search_of_radius_one_is_the_best_of_all_its_candidates():
    X = search_codes(EST, along, 3000, n_rounds=3, n_candidates=5, radius=1.0, random_state=0)
    mean, deviation = expected_maximum(16)
    assert along(X).mean() + 1 == pytest.approx(mean, abs=5 * deviation / 3000**0.5)


def test_a_longer_search_is_never_worse_row_by_row():
    found = [
        along(search_codes(EST, along, 50, n_rounds=n, radius=0.5, random_state=0))
        for n in (1, 4, 16)
    ]
    assert (found[1] >= found[0]).all() and (found[2] >= found[1]).all()
    # 16 rounds of the best of four steps of half a standard deviation
    assert found[2].mean() + 1 > 4


def test_a_verifier_without_preference_leaves_the_sample_alone():
    X = search_codes(EST, lambda X: np.zeros(len(X)), 5, sampler="heun", random_state=3)
    np.testing.assert_array_equal(X, EST.sample(5, sampler="heun", random_state=3))


def test_a_verifier_may_be_a_network():
    import torch

    weights = torch.tensor(A, requires_grad=True)
    found = best_of_n(EST, lambda X: torch.tensor(X) @ weights, 5, random_state=0)
    np.testing.assert_array_equal(found, best_of_n(EST, along, 5, random_state=0))


def test_frames_in_frames_out():
    import pandas as pd

    frame = pd.DataFrame(EST.sample(100, random_state=0), columns=["a", "b"])
    est = GaussianScore().fit(frame).set_output(transform="pandas")
    for result in (
        best_of_n(est, lambda X: X["a"], 4, n=3, random_state=0),
        search_codes(est, along, 4, n_rounds=1, random_state=0),
    ):
        assert list(result.columns) == ["a", "b"] and list(result.index) == [0, 1, 2, 3]


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: best_of_n(EST, along, 2, n=0), "n must be an integer of at least 1"),
        (lambda: best_of_n(EST, lambda X: X, 2), r"one finite number per row, shape \(32,\)"),
        (lambda: best_of_n(EST, along, 2, return_trajectory=True), "without their trajectories"),
        (lambda: search_codes(EST, lambda X: X[:, 0] * np.nan, 2), "0 of 2 values finite"),
        (lambda: best_of_n(EST, lambda X: ["good"] * len(X), 2), r"per row.*got list"),
        (lambda: search_codes(EST, along, 2, radius=2), "radius must lie between 0 and 1"),
        (lambda: search_codes(EST, along, 2, n_rounds=0), "n_rounds must be an integer"),
        (lambda: search_codes(EST, along, 2, sampler="ddpm"), "draws no noise of its own"),
        (lambda: search_codes(EST, along, 2, sampler=DRAWING), "draws no noise of its own"),
    ],
)
def test_wrong_arguments_get_a_sentence(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_codes_are_those_of_a_score_estimator():
    pipe = make_density_pipeline(StandardScaler(), GaussianScore()).fit(EST.sample(50))
    with pytest.raises(TypeError, match="needs a score estimator; got DensityPipeline"):
        search_codes(pipe, along, 2)
    assert best_of_n(pipe, along, 2).shape == (2, 2)
