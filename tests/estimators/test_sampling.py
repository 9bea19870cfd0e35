"""Samples of the estimators: exact draws, samplers, and what their users see meanwhile."""

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV

from skdiffusion import EmpiricalScore, GaussianScore, GMMScore
from skdiffusion.samplers import HeunSampler, Teleport

RNG = np.random.default_rng(0)
X = np.concatenate([RNG.normal(-2, 0.5, (120, 2)), RNG.normal(1, 1.0, (180, 2))])


@pytest.fixture(scope="module", params=[GaussianScore(), GMMScore(2), EmpiricalScore()], ids=repr)
def est(request):
    est = clone(request.param)
    if "random_state" in est.get_params():
        est.set_params(random_state=0)
    return est.fit(X)


def test_samplers_and_exact_draws_have_the_same_moments(est):
    n = 2000
    exact, by_flow = est.sample(n, random_state=0), est.sample(n, sampler="heun", random_state=1)
    # five standard errors of a difference of means and of second moments
    np.testing.assert_allclose(
        exact.mean(0), by_flow.mean(0), atol=5 * exact.std() * (2 / n) ** 0.5
    )
    spread = ((exact - exact.mean(0)) ** 2).std(0).max()
    np.testing.assert_allclose(exact.var(0), by_flow.var(0), atol=5 * spread * (2 / n) ** 0.5)


@pytest.mark.parametrize("sampler", ["heun", "ddpm", "predictor_corrector"])
def test_the_first_rows_of_a_long_sample_are_a_short_one(est, sampler):
    long = est.sample(300, sampler=sampler, n_steps=5, random_state=7)
    short = est.sample(3, sampler=sampler, n_steps=5, random_state=7)
    np.testing.assert_allclose(long[:3], short, rtol=1e-10)


def test_a_trajectory_starts_in_the_noise_and_ends_in_the_sample(est):
    rows, path = est.sample(50, sampler="heun", n_steps=6, random_state=0, return_trajectory=True)
    assert path.shape == (7, 50, 2)
    np.testing.assert_array_equal(path[-1], rows)
    spread = np.sqrt(est.sigma_max_**2 + X.var(0).mean())
    assert path[0].std() == pytest.approx(spread, rel=5 * (0.5 / 100) ** 0.5)


@pytest.mark.parametrize("how", [{}, {"sampler": "heun"}, {"condition": {0: 0.0}}], ids=str)
def test_a_callback_that_is_none_is_refused_however_rows_are_drawn(est, how):
    with pytest.raises(ValueError, match=r"callback must be a function callback\(step, level, x\)"):
        est.sample(4, callback=3, **how)


def test_a_callback_sees_every_level_and_a_bar_is_shown_on_request(est, capsys):
    seen = []
    est.sample(
        4,
        sampler="euler",
        n_steps=5,
        callback=lambda k, level, x: seen.append(level),
        verbose=True,
    )
    np.testing.assert_allclose(seen, [*est.noise_levels(5, "euler")[1:], 0.0])
    assert "sampling: 100%" in capsys.readouterr().err


def test_an_interrupted_sample_is_what_there_is(est):
    def stop(k, level, x):
        if k == 2:
            raise KeyboardInterrupt

    with pytest.warns(UserWarning, match="sampling was interrupted at noise level"):
        rows = est.sample(4, sampler="euler", n_steps=5, callback=stop)
    assert rows.shape == (4, 2) and np.isfinite(rows).all()


def test_levels_suit_the_sampler_unless_a_schedule_is_asked_for(est):
    spectral, karras = est.noise_levels(9, "adams"), est.noise_levels(9, "heun")
    ratios = spectral[:-1] / spectral[1:]
    assert ratios[0] > 2 * ratios[4]  # far apart where nothing happens
    np.testing.assert_allclose(np.diff(karras ** (1 / 7), 2), 0, atol=1e-12)  # rho = 7
    assert karras[-1] == pytest.approx(est.sigma_min_)
    fixed = clone(est).set_params(schedule="ve").fit(X)
    for sampler in ("adams", "heun"):
        np.testing.assert_allclose(np.diff(np.log(fixed.noise_levels(9, sampler)), 2), 0, atol=1e-9)


def test_a_sampler_is_a_parameter_to_search_and_to_clone(est):
    with_sampler = clone(est).set_params(sampler=HeunSampler(teleport="auto"))
    with_sampler.set_params(sampler__teleport=Teleport(tol=0.1))
    assert clone(with_sampler).sampler.teleport.tol == 0.1
    search = GridSearchCV(with_sampler, {"sampler__teleport": [False, "auto"]}, cv=2).fit(X)
    # densities do not depend on the sampler
    np.testing.assert_array_equal(*search.cv_results_["mean_test_score"])
    assert search.best_estimator_.sample(3, random_state=0).shape == (3, 2)


def test_frames_stay_frames_by_any_sampler():
    frame = pd.DataFrame(X, columns=["a", "b"])
    est = GMMScore(2, random_state=0).fit(frame).set_output(transform="pandas")
    for sampler in (None, "heun", HeunSampler(teleport=5.0)):
        drawn = est.sample(3, sampler=sampler, random_state=0)
        assert isinstance(drawn, pd.DataFrame) and list(drawn.columns) == ["a", "b"]


@pytest.mark.parametrize(
    "options, message",
    [
        ({"sampler": "hein"}, r"Unknown sampler 'hein' \(did you mean 'heun'\?\)"),
        ({"n_steps": 0}, "n_steps must be an integer of at least 1"),
        ({"n_samples": 0}, "n_samples must be an integer of at least 1"),
        ({"y": [0]}, "is unconditional: it takes no labels y"),
        ({"sampler": HeunSampler(teleport=1e9)}, "a hand-over must lie between"),
    ],
)
def test_impossible_requests_get_a_sentence(est, options, message):
    with pytest.raises(ValueError, match=message):
        est.sample(**options)
