"""Samplers with noise: exact laws of the schemes, their order, and the laws they reach."""

import numpy as np
import pytest
from two_sample import accuracy, affine_step, assert_moments, assert_same_law, law_of_scheme

from skdiffusion.models import BaseScoreModel, GaussianModel, MixtureModel
from skdiffusion.samplers import (
    DDPMSampler,
    EDMSampler,
    EulerMaruyamaSampler,
    EulerSampler,
    HeunSampler,
    run_sampler,
)

MEAN, VARIANCE = 0.7, 1.5
LINE = GaussianModel([MEAN], VARIANCE)
GAUSSIAN = GaussianModel([1.0, -1.0], [[2.0, 0.8], [0.8, 0.5]])
MIXTURE = MixtureModel([0.3, 0.7], [[-1.5, 0.0], [1.0, 0.5]], [0.2, 0.4])


def geometric(n_steps, high=10.0, low=0.05):
    return np.geomspace(high, low, n_steps + 1)


@pytest.mark.parametrize("eta", [0.0, 0.4, 1.0])
def test_one_step_on_a_gaussian_is_the_closed_form(eta):
    s, t = 2.0, 1.2
    r = s**2 / (VARIANCE + s**2)  # x - D = r (x - mean)
    tau = eta * t * np.sqrt(1 - t**2 / s**2)
    ddpm = 1 - r + r * np.sqrt(t**2 - tau**2) / s, tau
    euler = 1 - r * (1 + eta**2) / 2 * (1 - t**2 / s**2), eta * np.sqrt(s**2 - t**2)
    for sampler, (a, c) in [(DDPMSampler(eta=eta), ddpm), (EulerMaruyamaSampler(eta=eta), euler)]:
        expected = a, (1 - a) * MEAN, c
        np.testing.assert_allclose(affine_step(sampler, LINE, s, t), expected, atol=1e-14)


def test_one_churned_step_on_a_gaussian_is_noise_and_then_a_heun_step():
    s, t, gamma, s_noise = 2.0, 1.2, 0.3, 1.1
    sampler = EDMSampler(churn=gamma, s_noise=s_noise)
    a, b, c = affine_step(sampler, LINE, s, t)
    heun, offset, none = affine_step(HeunSampler(), LINE, s * (1 + gamma), t)
    added = s_noise * s * np.sqrt((1 + gamma) ** 2 - 1)
    np.testing.assert_allclose([a, b, c, none], [heun, offset, heun * added, 0.0], atol=1e-14)
    for outside in (EDMSampler(s_min=2.1), EDMSampler(s_max=1.9)):
        np.testing.assert_allclose(
            affine_step(outside, LINE, s, t), affine_step(HeunSampler(), LINE, s, t), atol=1e-15
        )


def schemes(n_steps):
    return [
        DDPMSampler(),
        DDPMSampler(eta=0.5),
        EulerMaruyamaSampler(),
        EulerMaruyamaSampler(eta=1.5),
        EDMSampler(churn=min(8 / n_steps, 0.4)),  # a fixed amount of noise in all
    ]


@pytest.mark.parametrize("which", range(5))
def test_weak_order_of_convergence(which):
    steps, errors = np.array([80, 160, 320]), []
    for n in steps:
        sampler, levels = schemes(n)[which], geometric(n)
        # a mean that is off at the start, as it is when one starts from N(0, s^2)
        mean, variance = law_of_scheme(sampler, LINE, levels, MEAN, VARIANCE + levels[0] ** 2)
        assert mean == pytest.approx(MEAN, abs=1e-12)  # exact for every step
        errors.append(abs(variance - VARIANCE - levels[-1] ** 2))
    order = -np.polyfit(np.log(steps), np.log(errors), 1)[0]
    # the next term of the error is a step of log(200) / 80 = 0.07 times the first
    assert order == pytest.approx(sampler.order, abs=0.15)


@pytest.mark.parametrize("which", range(5))
def test_samples_have_the_moments_of_the_scheme(which):
    sampler, levels, start = schemes(12)[which], geometric(12), (3.0, 50.0)
    x = start[0] + start[1] ** 0.5 * np.random.default_rng(0).standard_normal((4000, 1))
    # 12 steps: far from the law of the data, so that only the scheme's own moments fit
    mean, variance = law_of_scheme(sampler, LINE, levels, *start)
    assert abs(variance - VARIANCE) > 0.02
    x = run_sampler(sampler, LINE, x, levels, random_state=1)
    assert_moments(x, mean, [[variance]])


@pytest.mark.parametrize(
    "silent, plain",
    [(DDPMSampler(eta=0.0), EulerSampler()), (EDMSampler(churn=0.0), HeunSampler())],
)
def test_without_noise_it_is_the_solver_bit_for_bit(silent, plain):
    x, levels = MIXTURE.sample(50, 10.0, random_state=0), [*geometric(10), 0.0]
    ours = run_sampler(silent, MIXTURE, x, levels, random_state=0)
    np.testing.assert_array_equal(ours, run_sampler(plain, MIXTURE, x, levels))


def test_euler_maruyama_without_noise_is_the_flow():
    x = LINE.sample(5, 10.0, random_state=0)
    flow = LINE.flow(x, 10.0, 0.05)
    sampler = EulerMaruyamaSampler(eta=0.0)
    errors = [np.abs(run_sampler(sampler, LINE, x, geometric(n)) - flow).max() for n in (200, 400)]
    assert errors[0] / errors[1] == pytest.approx(2, abs=0.05)


@pytest.mark.parametrize("sampler", [DDPMSampler(), EulerMaruyamaSampler(), EDMSampler()])
def test_a_point_is_reached_at_every_level_with_the_right_noise(sampler):
    a, b, c = affine_step(sampler, GaussianModel([3.0], 0.0), 2.0, 1.2)
    if isinstance(sampler, EulerMaruyamaSampler):  # too much by (s^2 - t^2)^2 / s^2
        assert 4 * a**2 + c**2 == pytest.approx(1.2**2 + (2.0**2 - 1.2**2) ** 2 / 4, rel=1e-14)
    else:
        np.testing.assert_allclose([b, 4 * a**2 + c**2], [3 * (1 - a), 1.2**2], rtol=1e-14)


@pytest.mark.parametrize(
    "sampler, n_steps",
    [
        (DDPMSampler(), 150),
        (DDPMSampler(eta=0.5), 100),
        (EulerMaruyamaSampler(), 250),
        (EDMSampler(churn=0.2), 60),
    ],
)
def test_samples_of_a_mixture_cannot_be_told_from_exact_ones(sampler, n_steps):
    x = MIXTURE.sample(2000, 10.0, random_state=1)
    x = run_sampler(sampler, MIXTURE, x, [*geometric(n_steps), 0.0], random_state=2)
    exact = MIXTURE.sample(2000, random_state=3)
    assert_same_law(x, exact)
    law = MIXTURE.gaussian()
    assert_moments(x, law.mean, law.covariance.to_matrix())


def test_the_classifier_sees_what_a_sampler_could_get_wrong():
    exact = MIXTURE.sample(2000, random_state=3)
    for wrong in [
        MixtureModel([0.45, 0.55], MIXTURE.means, [0.2, 0.4]),
        MixtureModel([0.3, 0.7], MIXTURE.means, [0.3, 0.6]),
    ]:
        found, error = accuracy(wrong.sample(2000, random_state=4), exact)
        assert found > 0.5 + 3 * error


def test_churn_stays_in_the_range_of_the_model():
    class Bounded(BaseScoreModel):
        n_features, sigma_range = 1, (0.01, 4.0)

        def _denoise(self, x, sigma):
            return x / (1 + sigma**2)

    levels = [4.0, 2.0, 0.5, 0.01, 0.0]
    x = np.ones((3, 1))
    same = run_sampler(EDMSampler(churn=0.4), Bounded(), x, levels, random_state=0)
    rows = np.repeat(np.array(levels)[:, None], 3, axis=1)
    per_row = run_sampler(EDMSampler(churn=0.4), Bounded(), x, rows, random_state=0)
    np.testing.assert_allclose(per_row, same, rtol=1e-13)


@pytest.mark.parametrize(
    "sampler, message",
    [
        (DDPMSampler(eta=1.5), "eta must be a finite number of at least 0 and of at most 1; got"),
        (EulerMaruyamaSampler(eta=-1), "eta must be a finite number of at least 0; got -1"),
        (EDMSampler(churn=0.5), r"churn must be a finite number of at least 0 and of at most 0.41"),
        (EDMSampler(s_min=2.0, s_max=1.0), "s_max must be a finite number of at least 2; got 1.0"),
        (EDMSampler(s_noise="much"), "s_noise must be a finite number of at least 0; got 'much'"),
    ],
)
def test_wrong_hyperparameters_are_named(sampler, message):
    with pytest.raises(ValueError, match=message):
        run_sampler(sampler, LINE, np.ones((1, 1)), [1.0, 0.0])
