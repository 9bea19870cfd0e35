"""The driver: batches that change nothing, precision, levels per row, interruptions."""

import numpy as np
import pytest
import sklearn

from skdiffusion import GaussianScore
from skdiffusion.models import AffineModel, BaseScoreModel, GaussianModel, MixtureModel
from skdiffusion.samplers import (
    BaseSampler,
    EulerSampler,
    FlowSampler,
    HeunSampler,
    RK4Sampler,
    check_sampler,
    hyperparameters,
    run_sampler,
)
from skdiffusion.utils.random import row_keys
from skdiffusion.utils.row_noise import RowKeys, RowNoise

GAUSSIAN = GaussianModel([1.0, -1.0], [[2.0, 0.8], [0.8, 0.5]])
MIXTURE = MixtureModel([0.3, 0.7], [[-1.5, 0.0], [1.0, 0.5]], [0.2, 0.4])
LEVELS = [*np.geomspace(20.0, 0.05, 12), 0.0]


@hyperparameters
class Diffusing(BaseSampler):
    """Reverse diffusion whose marginals are exact for a Gaussian: a stochastic sampler."""

    amount: float = 1.0
    stochastic = True

    def step(self, model, x, level, next_level, state, noise):
        step = self.amount * (level**2 - next_level**2)
        x = x + (model.denoise(x, level) - x) * (step / level**2)
        return x + step**0.5 * (next_level / level) * noise.normal(x), None


@pytest.mark.parametrize("sampler", [HeunSampler(), Diffusing()])
@pytest.mark.parametrize("chunk_size", [1, 7, 256, 300])
def test_results_do_not_depend_on_the_batches(sampler, chunk_size, rng):
    x = 20 * rng.standard_normal((301, 2))
    whole = run_sampler(sampler, MIXTURE, x, LEVELS, random_state=3)
    parts = run_sampler(sampler, MIXTURE, x, LEVELS, random_state=3, chunk_size=chunk_size)
    # products of matrices round differently in batches of different size
    np.testing.assert_allclose(parts, whole, rtol=0, atol=1e-12)
    first = run_sampler(sampler, MIXTURE, x[:5], LEVELS, random_state=3)
    np.testing.assert_allclose(first, whole[:5], rtol=0, atol=1e-12)


def test_batches_are_bounded_by_the_working_memory():
    seen = []
    x = np.ones((5000, 2))
    with sklearn.config_context(working_memory=1):
        run_sampler(
            EulerSampler(), GAUSSIAN, x, [2.0, 1.0], callback=lambda k, s, x: seen.append(len(x))
        )
    assert sum(seen) == 5000 and max(seen) * 2 * 8 * 24 <= 2**20


def test_names_and_fitted_estimators_will_do(rng):
    est = GaussianScore().fit(rng.normal(size=(50, 2)) * [1, 3])
    x, levels = 10 * rng.normal(size=(4, 2)), [10.0, 1.0, 0.0]
    found = run_sampler("heun", est, x, levels)
    np.testing.assert_array_equal(found, run_sampler(HeunSampler(), est.model_, x, levels))
    with pytest.raises(ValueError, match="Unknown sampler 3"):
        run_sampler(3, est, x, levels)
    with pytest.raises(TypeError, match="score model"):
        run_sampler("heun", "a model", x, levels)


def test_a_callback_is_checked_before_the_first_step():
    with pytest.raises(ValueError, match="callback must be a function"):
        run_sampler(EulerSampler(), GAUSSIAN, np.ones((1, 2)), [2.0, 1.0], callback=3)


def test_noise_is_standard_normal_and_independent_over_rows_draws_and_seeds():
    noise = RowNoise([3, 4])
    x = np.empty((2000, 3))
    draws = np.stack([noise.normal(x), noise.normal(x), RowNoise([3, 5]).normal(x)])
    flat = np.concatenate([draws.transpose(0, 2, 1).reshape(9, -1), [np.roll(draws[0, :, 0], 256)]])
    # entries of the second moment have standard error sqrt(2/n) or sqrt(1/n): five of them
    np.testing.assert_allclose(flat @ flat.T / 2000, np.eye(10), atol=5 * (2 / 2000) ** 0.5)
    uniform = noise.uniform(x)
    assert uniform.shape == (2000, 1) and uniform.min() >= 0 and uniform.max() < 1
    assert uniform.mean() == pytest.approx(0.5, abs=5 / (12 * 2000) ** 0.5)


def test_noise_by_keys_is_as_good_and_follows_the_rows():
    keys = row_keys(np.arange(2000.0)[:, None])
    noise, x = RowNoise(RowNoise.key_from(RowKeys(keys))), np.empty((2000, 3))
    draws = np.stack([noise.normal(x), noise.normal(x)])
    flat = draws.transpose(0, 2, 1).reshape(6, -1)
    np.testing.assert_allclose(flat @ flat.T / 2000, np.eye(6), atol=5 * (2 / 2000) ** 0.5)
    uniform = noise.uniform(x)
    assert uniform.mean() == pytest.approx(0.5, abs=5 / (12 * 2000) ** 0.5)
    order = np.random.default_rng(0).permutation(2000)
    x = np.ones((2000, 2))
    there = run_sampler(Diffusing(), GAUSSIAN, x, LEVELS, random_state=RowKeys(keys))
    moved = run_sampler(
        Diffusing(), GAUSSIAN, x, LEVELS, random_state=RowKeys(keys[order]), chunk_size=300
    )
    np.testing.assert_allclose(moved, there[order], rtol=0, atol=1e-12)


def test_fresh_entropy_unless_there_is_a_seed():
    x = np.ones((4, 2))
    one, two, again = (
        run_sampler(Diffusing(), GAUSSIAN, x, LEVELS, random_state=seed) for seed in (1, 2, 1)
    )
    np.testing.assert_array_equal(one, again)
    assert not np.array_equal(one, two)
    fresh = [run_sampler(Diffusing(), GAUSSIAN, x, LEVELS) for _ in range(2)]
    assert not np.array_equal(*fresh)


def test_noise_has_the_scale_of_the_columns():
    scale = np.array([1e-3, 1e3])
    scaled = AffineModel(GAUSSIAN, scale=scale)
    unit = scaled.noise_scale
    levels = np.array(LEVELS)
    inner = 10 * np.ones((50, 2))
    there = run_sampler(Diffusing(), GAUSSIAN, inner, levels, random_state=0)
    ratio = (scale / unit)[0]  # level of the scaled model per level of the inner one
    outer = run_sampler(Diffusing(), scaled, inner * scale, levels * ratio, random_state=0)
    np.testing.assert_allclose(outer / scale, there, rtol=1e-9, atol=1e-9)


def test_float32_points_keep_their_dtype_and_a_float64_state():
    seen = []

    class Asked(BaseScoreModel):
        n_features = 2

        def _denoise(self, x, sigma):
            seen.append(x.dtype)
            return x / (1 + sigma**2)

    x = np.ones((3, 2), dtype=np.float32)
    result, path = run_sampler(
        EulerSampler(),
        Asked(),
        x,
        LEVELS,
        return_trajectory=True,
        callback=lambda k, level, x: seen.append(("state", x.dtype)),
    )
    assert result.dtype == path.dtype == np.float32
    assert set(seen) == {np.dtype(np.float32), ("state", np.dtype(np.float64))}


def test_torch_points_need_no_graph_unless_they_ask_for_one():
    import torch

    x = torch.ones((3, 2), dtype=torch.float64)
    assert run_sampler(HeunSampler(), MIXTURE, x, LEVELS).grad_fn is None
    x.requires_grad_()
    run_sampler(FlowSampler(), GAUSSIAN, x, [2.0, 1.0]).sum().backward()
    covariance = torch.tensor([[2.0, 0.8], [0.8, 0.5]], dtype=torch.float64)
    values, axes = torch.linalg.eigh(covariance)
    gain = axes @ torch.diag(((values + 1) / (values + 4)).sqrt()) @ axes.T
    # the flow is linear: its derivative is its gain
    torch.testing.assert_close(x.grad, gain.sum(0).expand(3, 2))


@pytest.mark.parametrize("sampler", [EulerSampler(), HeunSampler(), RK4Sampler(), FlowSampler()])
def test_every_row_may_have_its_own_levels(sampler):
    first = np.array([20.0, 5.0, 1.0])
    levels = np.geomspace(first, 0.05, 9)
    x = first[:, None] * np.ones((3, 2))
    together = run_sampler(sampler, GAUSSIAN, x, [*levels, np.zeros(3)])
    for k in range(3):
        alone = run_sampler(sampler, GAUSSIAN, x[k : k + 1], [*levels[:, k], 0.0])
        np.testing.assert_allclose(together[k : k + 1], alone, rtol=1e-12)
    import torch

    tensors = run_sampler(sampler, GAUSSIAN, torch.tensor(x), [*levels, np.zeros(3)])
    np.testing.assert_allclose(tensors.numpy(), together, rtol=1e-12)


def test_an_interrupted_run_of_several_batches_returns_those_that_are_finished():
    def stop(k, level, x):
        calls.append(k)
        if len(calls) == 8:  # in the third batch of three steps each
            raise KeyboardInterrupt

    calls = []
    x = np.arange(20.0).reshape(10, 2)
    with pytest.warns(UserWarning, match="the 6 of 10 rows that are finished are returned"):
        result, path = run_sampler(
            EulerSampler(),
            GAUSSIAN,
            x,
            [4.0, 2.0, 1.0, 0.0],
            callback=stop,
            chunk_size=3,
            return_trajectory=True,
        )
    whole = run_sampler(EulerSampler(), GAUSSIAN, x[:6], [4.0, 2.0, 1.0, 0.0])
    np.testing.assert_allclose(result, whole, rtol=1e-13)
    assert path.shape == (4, 6, 2)


def test_an_interruption_before_anything_is_done_is_the_callers():
    @hyperparameters
    class Stops(EulerSampler):
        def prepare(self, model, x, levels, noise):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_sampler(Stops(), GAUSSIAN, np.ones((2, 2)), [2.0, 1.0])


def test_an_interruption_while_a_batch_is_prepared_returns_those_that_are_finished():
    @hyperparameters
    class Stops(EulerSampler):
        def prepare(self, model, x, levels, noise):
            if x[0, 0] == 6:  # the second batch
                raise KeyboardInterrupt
            return x, levels

    x, levels = np.arange(12.0).reshape(6, 2), [4.0, 2.0, 0.0]
    with pytest.warns(UserWarning, match="interrupted before a first step; the 3 of 6 rows"):
        result = run_sampler(Stops(), GAUSSIAN, x, levels, chunk_size=3)
    np.testing.assert_allclose(result, run_sampler("euler", GAUSSIAN, x[:3], levels), rtol=1e-13)


def test_no_rows_have_no_levels_of_their_own():
    assert run_sampler("heun", GAUSSIAN, np.empty((0, 2)), np.empty((3, 0))).shape == (0, 2)


@pytest.mark.parametrize("levels", [[2.0, 1.0], [2.0]])
def test_points_that_are_not_finite_are_refused(levels):
    with pytest.raises(ValueError, match="x must be finite; row 1 is not"):
        run_sampler("euler", GAUSSIAN, np.array([[1.0, 2.0], [np.nan, 1.0]]), levels)


@pytest.mark.parametrize(
    "levels, message",
    [
        ([2.0, 0.0, 1.0], "positive; only the last may be zero"),
        # a step to zero is another one than a step above it
        ([[2.0] * 4, [1.0, 1.0, 0.0, 0.0]], "only the last may be zero, that of all rows at once"),
        ([2.0, np.nan], "must be finite"),
        ([2.0, -1.0], "must be finite and positive"),
        ([], "one noise level or more.*got none"),
        (["high"], "levels must be numbers"),
        (np.ones((3, 5)), r"array of shape \(n_levels, 4\); got levels of shapes \[\(5,\)\]"),
    ],
)
def test_levels_that_make_no_sense_are_refused(levels, message):
    with pytest.raises(ValueError, match=message):
        run_sampler(EulerSampler(), GAUSSIAN, np.ones((4, 2)), levels)


def test_samplers_that_draw_noise_only_go_down():
    with pytest.raises(ValueError, match="Diffusing only goes down"):
        run_sampler(Diffusing(), GAUSSIAN, np.ones((4, 2)), [1.0, 2.0])


def test_hyperparameters_are_those_of_scikit_learn():
    from sklearn.base import clone

    sampler = Diffusing(amount=0.5, teleport=3.0)
    assert sampler.get_params() == {"amount": 0.5, "teleport": 3.0, "clock": "auto"}
    assert repr(clone(sampler)) == "Diffusing(amount=0.5, teleport=3.0)"
    assert sampler != clone(sampler)
    assert check_sampler(sampler) is sampler
    with pytest.raises(TypeError, match="amont"):
        Diffusing(amont=1)
