"""On a GPU: closed forms give the numbers of the host, networks train and answer there."""

import pickle

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits, make_moons

from skdiffusion import EmpiricalScore, GaussianScore, GMMScore, NeuralScore
from skdiffusion.samplers import SAMPLERS, run_sampler

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU")
X = load_digits().data.astype(np.float64)
ROWS, _ = make_moons(1500, noise=0.08, random_state=0)
QUICK = {"max_epochs": 40, "module__width": 32, "random_state": 0}


def network(**options):
    """A small U-Net of the digits."""
    options = {"input_shape": (1, 8, 8), "module__width": 16, "max_epochs": 4, **options}
    return NeuralScore("unet", random_state=0, **options)


@pytest.fixture(scope="module")
def moons():
    return NeuralScore(**QUICK).fit(ROWS)


@pytest.mark.parametrize(
    "estimator",
    [
        GaussianScore(),
        GMMScore(4, random_state=0),
        GMMScore(4, covariance_type="diag", random_state=0),
        GMMScore(4, covariance_type="low_rank", rank=5, random_state=0),
        EmpiricalScore(),
    ],
    ids=str,
)
def test_closed_forms_give_the_numbers_of_the_host(estimator):
    model = estimator.fit(X[:600]).model_
    x = X[600:640] + np.random.default_rng(0).standard_normal((40, 64))
    on_gpu = torch.as_tensor(x, device="cuda")
    for sigma in (0.5, 3.0, 40.0):
        for name in ("denoise", "score", "log_prob"):
            found, expected = getattr(model, name)(on_gpu, sigma), getattr(model, name)(x, sigma)
            assert found.device.type == "cuda"
            np.testing.assert_allclose(found.cpu().numpy(), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("sampler", sorted(set(SAMPLERS) - {"flow"}))
def test_samplers_give_the_rows_of_the_host(sampler):
    """Noise is that of the host; a mixture's answers are the same to rounding."""
    est = GMMScore(3, random_state=0).fit(ROWS)
    levels = [*np.geomspace(10, 0.05, 12), 0.0]
    start = est.far_field_.sample(50, levels[0], random_state=0)
    options = {"far_field": est.far_field_, "random_state": 1}
    chosen = SAMPLERS[sampler]()
    on_host = run_sampler(chosen, est.model_, start, levels, **options)
    on_gpu = run_sampler(
        chosen, est.model_, torch.as_tensor(start, device="cuda"), levels, **options
    )
    assert on_gpu.device.type == "cuda"
    np.testing.assert_allclose(on_gpu.cpu().numpy(), on_host, rtol=1e-6, atol=1e-6)


def test_a_network_trains_and_draws_on_the_gpu(moons):
    assert next(moons.module_.parameters()).device.type == "cuda"
    rows = moons.sample(4000, random_state=0)
    assert isinstance(rows, np.ndarray) and rows.dtype == np.float64
    # the mean of the moons within six standard errors, and a score better than a Gaussian's
    assert (abs(rows.mean(axis=0) - ROWS.mean(axis=0)) < 6 * ROWS.std(axis=0) / 38).all()
    assert moons.score(ROWS) > GaussianScore().fit(ROWS).score(ROWS) + 0.2


def test_training_on_the_gpu_learns_what_it_learns_on_the_host(moons):
    """Other random numbers, the same law: bounds agree within their noise."""
    on_host = NeuralScore(device="cpu", **QUICK).fit(ROWS)
    found, expected = (est.denoising_bound(ROWS[:500]) for est in (moons, on_host))
    assert abs(found.score - expected.score) < 0.1


def test_it_answers_on_both_devices_alike(moons):
    x = ROWS[:20]
    expected = moons.denoise(x, 0.3)
    on_gpu = moons.model_.denoise(torch.as_tensor(x, device="cuda"), 0.3)
    on_host = moons.model_.denoise(torch.as_tensor(x), 0.3)
    assert on_gpu.device.type == "cuda" and on_host.device.type == "cpu"
    np.testing.assert_allclose(on_gpu.cpu().numpy(), expected, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(on_host.numpy(), expected, rtol=1e-9, atol=1e-9)


def test_samples_of_the_gpu_are_those_of_the_host(moons):
    """float32 inside the network, so equal to its rounding along a path; not bit by bit."""
    on_host = pickle.loads(pickle.dumps(moons)).set_params(device="cpu")
    for sampler in ("adams", "ddpm"):
        found = moons.sample(200, sampler=sampler, random_state=0)
        expected = on_host.sample(200, sampler=sampler, random_state=0)
        assert np.median(abs(found - expected)) < 1e-4


def test_callbacks_and_trajectories_are_arrays(moons):
    seen = []
    rows, path = moons.sample(
        5,
        n_steps=6,
        return_trajectory=True,
        random_state=0,
        callback=lambda step, level, x: seen.append(type(x)),
    )
    assert set(seen) == {np.ndarray} and isinstance(path, np.ndarray)
    np.testing.assert_allclose(path[-1], rows)


def test_what_was_trained_on_a_gpu_is_kept_and_loaded_anywhere(moons, tmp_path):
    moons.save(tmp_path / "moons")
    back = NeuralScore.load(tmp_path / "moons")
    assert next(back.module_.parameters()).device.type == "cpu"
    np.testing.assert_allclose(back.denoise(ROWS[:9], 0.3), moons.denoise(ROWS[:9], 0.3), rtol=1e-9)


@pytest.mark.parametrize("options", [{"amp": True}, {"amp": True, "compile": True}], ids=str)
def test_bfloat16_and_compiled_training_learn_the_same(options):
    plain = network(max_epochs=30).fit(X)
    found = network(max_epochs=30, **options).fit(X)
    gained = plain.validation_bound_ - GaussianScore().fit(X).score(X)
    # an eighth of a nat per pixel is what bfloat16's rounding may cost; a broken one costs all
    assert found.validation_bound_ > plain.validation_bound_ - 8.0, (gained, plain, found)
    assert next(found.module_.parameters()).dtype == torch.float32
    assert found.sample(8, random_state=0).shape == (8, 64)


def test_the_transformer_and_labels(moons):
    y = load_digits().target
    est = NeuralScore(
        "dit", input_shape=(1, 8, 8), module__width=32, max_epochs=3, random_state=0
    ).fit(X, y)
    assert est.sample(10, y=np.arange(10), guidance_scale=1.5, random_state=0).shape == (10, 64)


def test_an_interrupted_run_goes_on(tmp_path):
    """Killed after a round and taken up again, it ends where an uninterrupted run ends."""
    from skorch.callbacks import Callback

    class Stop(Callback):
        def on_epoch_end(self, net, **_):
            if net.step_ > 300:
                raise RuntimeError("killed")

    options = {**QUICK, "max_epochs": 120}
    whole = NeuralScore(**options).fit(ROWS)
    path = tmp_path / "run.pt"
    with pytest.raises(RuntimeError, match="killed"):
        NeuralScore(checkpoint=path, callbacks=[Stop()], **options).fit(ROWS)
    assert path.exists()
    resumed = NeuralScore(checkpoint=path, **options).fit(ROWS)
    np.testing.assert_allclose(
        resumed.denoise(ROWS[:50], 0.3), whole.denoise(ROWS[:50], 0.3), rtol=1e-4, atol=1e-4
    )


def test_a_gpu_that_is_not_there_is_named():
    with pytest.raises(ValueError, match=r"device 'cuda:64' is not on this machine"):
        NeuralScore(device="cuda:64").fit(ROWS)
