"""One driver, solvers of known order, and flows that end where the exact one does."""

import warnings

import numpy as np
import pytest

from skdiffusion.models import BaseScoreModel, GaussianModel, MixtureModel
from skdiffusion.samplers import (
    EulerSampler,
    FlowSampler,
    HeunSampler,
    RK4Sampler,
    check_sampler,
    run_sampler,
)

GAUSSIAN = GaussianModel([1.0, -1.0], [[2.0, 0.8], [0.8, 0.5]])
MIXTURE = MixtureModel([0.3, 0.7], [[-1.5, 0.0], [1.0, 0.5]], [0.2, 0.4])


def geometric(n_steps, high=20.0, low=0.05):
    return np.geomspace(high, low, n_steps + 1)


@pytest.mark.parametrize("sampler", [EulerSampler(), HeunSampler(), RK4Sampler()])
def test_order_of_convergence(sampler, rng):
    x = GAUSSIAN.sample(20, 20.0, random_state=0)
    exact = GAUSSIAN.flow(x, 20.0, 0.05)
    # fine enough for the leading term of the error, coarse enough to stay above rounding
    steps = np.array([40, 80, 160])
    errors = [np.abs(run_sampler(sampler, GAUSSIAN, x, geometric(n)) - exact).max() for n in steps]
    order = -np.polyfit(np.log(steps), np.log(errors), 1)[0]
    assert order == pytest.approx(sampler.order, abs=0.25)


def test_halving_the_steps_of_heun_leaves_a_quarter_of_the_error():
    x = GAUSSIAN.sample(20, 20.0, random_state=0)
    exact = GAUSSIAN.flow(x, 20.0, 0.05)
    errors = [
        np.abs(run_sampler(HeunSampler(), GAUSSIAN, x, geometric(n)) - exact).max()
        for n in (400, 800)
    ]
    # the next term is smaller by a step, log(400)/400
    assert errors[0] / errors[1] == pytest.approx(4, rel=0.02)


def test_the_closed_form_flow_is_exact_in_any_number_of_steps():
    x = GAUSSIAN.sample(20, 20.0, random_state=0)
    one = run_sampler(FlowSampler(), GAUSSIAN, x, [20.0, 0.0])
    many = run_sampler(FlowSampler(), GAUSSIAN, x, [*geometric(37), 0.0])
    np.testing.assert_allclose(one, many, atol=1e-12)
    np.testing.assert_allclose(one, GAUSSIAN.flow(x, 20.0, 0.0), atol=1e-14)


def test_euler_is_exact_for_a_constant_denoiser():
    point = GaussianModel([2.0, 3.0], 0.0)
    x = np.array([[50.0, -20.0]])
    there = run_sampler(EulerSampler(), point, x, [20.0, 1.0])
    np.testing.assert_allclose(there, point.mean + (x - point.mean) / 20, rtol=1e-14)


@pytest.mark.parametrize("sampler", [HeunSampler(), RK4Sampler()])
def test_encoding_and_decoding_are_inverse(sampler):
    x = MIXTURE.sample(30, 0.05, random_state=0)
    up = np.geomspace(0.05, 50.0, 401)
    back = run_sampler(sampler, MIXTURE, run_sampler(sampler, MIXTURE, x, up), up[::-1])
    # twice the global error of a second- or fourth-order rule at this step
    np.testing.assert_allclose(back, x, atol={2: 2e-3, 4: 1e-6}[sampler.order])


def test_samples_of_a_mixture_follow_it():
    x = GaussianModel([0.0, 0.0], 40.0**2).sample(4000, random_state=0)
    x = run_sampler(HeunSampler(), MIXTURE, x, [*geometric(60, 40.0, 0.01), 0.0])
    share = (MIXTURE.responsibilities(x, 0.01)[:, 0]).mean()
    # binomial standard error .0073, and the initial law is off by O(mean / 40)
    assert share == pytest.approx(0.3, abs=0.03)
    score = MIXTURE.score(x, 0.0)
    np.testing.assert_allclose(((x - x.mean(0)) * score).sum(1).mean(), -2, atol=0.15)


def test_numpy_and_torch_take_the_same_path():
    import torch

    x = MIXTURE.sample(10, 20.0, random_state=0)
    ours = run_sampler(HeunSampler(), MIXTURE, x, [*geometric(20), 0.0])
    theirs = run_sampler(HeunSampler(), MIXTURE, torch.tensor(x), [*geometric(20), 0.0])
    assert isinstance(theirs, torch.Tensor)
    np.testing.assert_allclose(theirs.numpy(), ours, atol=1e-12)


def test_callbacks_and_trajectories_see_every_level():
    seen = []
    x = np.ones((3, 2))
    result, path = run_sampler(
        EulerSampler(),
        GAUSSIAN,
        x,
        [4.0, 2.0, 1.0, 0.0],
        callback=lambda k, level, x: seen.append((k, level)),
        return_trajectory=True,
    )
    assert seen == [(0, 2.0), (1, 1.0), (2, 0.0)]
    np.testing.assert_array_equal(path[0], x)
    np.testing.assert_array_equal(path[-1], result)


def test_an_interrupted_run_returns_what_it_has():
    def stop(k, level, x):
        if k == 1:
            raise KeyboardInterrupt

    x = np.ones((3, 2))
    with pytest.warns(UserWarning, match="interrupted at noise level 1; the points there"):
        reached = run_sampler(EulerSampler(), GAUSSIAN, x, [4.0, 2.0, 1.0, 0.0], callback=stop)
    two_steps = run_sampler(EulerSampler(), GAUSSIAN, x, [4.0, 2.0, 1.0])
    np.testing.assert_array_equal(reached, two_steps)


def test_a_model_that_breaks_is_caught_at_its_step():
    class Breaks(BaseScoreModel):
        n_features = 1

        def _denoise(self, x, sigma):
            return x * (np.nan if sigma < 2 else 1.0)

    with pytest.raises(FloatingPointError, match="step 3 of 3 of EulerSampler, from noise level 1"):
        run_sampler(EulerSampler(), Breaks(), np.ones((2, 1)), [4.0, 2.0, 1.0, 0.0])


def test_progress_is_shown_on_request(capsys):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        run_sampler(EulerSampler(), GAUSSIAN, np.ones((1, 2)), [2.0, 1.0, 0.0], verbose=True)
    assert "sampling: 100%" in capsys.readouterr().err


def test_unknown_samplers_are_named():
    with pytest.raises(ValueError, match=r"Unknown sampler 'hein' \(did you mean 'heun'\?\)"):
        check_sampler("hein")
    with pytest.raises(ValueError, match="did you mean 'euler'"):  # as other packages call it
        check_sampler("DDIM")


def test_a_closed_form_flow_is_asked_of_models_that_have_one():
    mixture = MixtureModel([1, 1], [[1.0, 0.0], [-1.0, 0.0]], [0.5, 0.5])
    with pytest.raises(ValueError, match="MixtureModel has none: Gaussian models have one"):
        run_sampler(check_sampler("flow"), mixture, np.ones((1, 2)), [2.0, 1.0, 0.0])
