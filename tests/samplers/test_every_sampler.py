"""What holds for every sampler of the registry."""

import inspect
import pickle
import re

import numpy as np
import pytest
from sklearn.base import clone

from skdiffusion.models import AffineModel, BaseScoreModel, GaussianModel, MixtureModel
from skdiffusion.samplers import SAMPLERS, BaseSampler, run_sampler

GAUSSIAN = GaussianModel([1.0, -1.0], [[2.0, 0.8], [0.8, 0.5]])
MIXTURE = MixtureModel([0.3, 0.7], [[-1.5, 0.0], [1.0, 0.5]], [0.2, 0.4])
LEVELS = [*np.geomspace(10.0, 0.05, 12), 0.0]

every = pytest.mark.parametrize("name", SAMPLERS)


def subject(name):
    """A law that the sampler can sample: the closed-form flow wants one that has it."""
    return GAUSSIAN if name == "flow" else MIXTURE


def run(name, model, x, levels=LEVELS, **how):
    return run_sampler(SAMPLERS[name](), model, x, levels, **{"random_state": 0, **how})


@every
def test_it_is_an_object_like_scikit_learns(name):
    sampler = SAMPLERS[name]()
    assert isinstance(sampler, BaseSampler)
    assert repr(sampler) == f"{type(sampler).__name__}()"
    teleporting = clone(sampler.set_params(teleport=2.5))
    assert teleporting.get_params() == sampler.get_params()
    assert pickle.loads(pickle.dumps(teleporting)).get_params() == sampler.get_params()
    with pytest.raises(TypeError):
        SAMPLERS[name](no_such_parameter=1)


@every
def test_its_documentation_names_its_parameters_and_its_source(name):
    cls = SAMPLERS[name]
    documented = inspect.getdoc(cls)
    for parameter in set(cls().get_params(deep=False)) - {"teleport", "clock"}:
        assert re.search(rf"^.*\b{parameter}\b.* : ", documented, re.M), parameter
    if name not in ("rk4", "flow"):  # the classical rule, and the model's own flow
        assert re.search(r"\b(19|20)\d\d\b", documented), "no reference"


@every
def test_batches_do_not_matter(name):
    x = subject(name).sample(300, 10.0, random_state=0)
    whole = run(name, subject(name), x)
    for chunk_size in (256, 100):
        np.testing.assert_array_equal(run(name, subject(name), x, chunk_size=chunk_size), whole)
    np.testing.assert_array_equal(run(name, subject(name), x[:40]), whole[:40])


@every
def test_seeds_repeat_and_matter_only_to_samplers_with_noise(name):
    x = subject(name).sample(20, 10.0, random_state=0)
    first = run(name, subject(name), x)
    np.testing.assert_array_equal(run(name, subject(name), x), first)
    other = run(name, subject(name), x, random_state=1)
    assert (other != first).all() == SAMPLERS[name].stochastic
    assert (other == first).all() != SAMPLERS[name].stochastic


@every
def test_numpy_and_torch_take_the_same_path(name):
    import torch

    x = subject(name).sample(40, 10.0, random_state=0)
    theirs = run(name, subject(name), torch.tensor(x))
    assert isinstance(theirs, torch.Tensor)
    np.testing.assert_allclose(theirs.numpy(), run(name, subject(name), x), atol=1e-10)


@every
def test_single_precision_stays(name):
    x = subject(name).sample(5, 10.0, random_state=0)
    result = run(name, subject(name), x.astype(np.float32))
    assert result.dtype == np.float32
    if name not in ("mala", "dmcmc"):  # an acceptance may turn on the last digit
        # float32 has 7 digits, the first level is 10, and rows at decisions lose one or two
        np.testing.assert_allclose(result, run(name, subject(name), x), atol=2e-3)


@every
@pytest.mark.parametrize("n, d", [(0, 2), (1, 1), (3, 1)])
def test_no_rows_one_row_one_column(name, n, d):
    model = GaussianModel(np.zeros(d), 1.0)
    result = run(name, model, np.ones((n, d)))
    assert result.shape == (n, d) and np.isfinite(result).all()


@every
def test_columns_of_other_units_are_sampled_alike(name):
    inner, shift, scale = subject(name), np.array([100.0, -3.0]), np.array([0.02, -40.0])
    model = AffineModel(inner, shift=shift, scale=scale)
    unit = np.exp(np.log(np.abs(scale)).mean())
    z = inner.sample(100, 10.0, random_state=0)
    # noise has no sign of its own: a flipped column sees the same law through other draws
    scale_of_noise = np.abs(scale)
    flipped = AffineModel(inner, scale=np.sign(scale))
    z = z * np.sign(scale)
    x = run(name, model, shift + scale_of_noise * z, unit * np.array(LEVELS))
    same = run(name, flipped, z)
    # rounding of x - shift at the first column, 100 / 0.02, and what decisions make of it
    np.testing.assert_allclose((x - shift) / scale_of_noise, same, atol=1e-7)


class ByLabel(BaseScoreModel):
    """One of two laws, as the label says."""

    n_features, is_conditional, has_log_prob, has_flow = 2, True, True, True

    def __init__(self, *models):
        self.models = models

    def _by_label(self, name, y, *arguments):
        answers = [getattr(model, name)(*arguments) for model in self.models]
        choice = np.asarray(y).reshape(-1, *[1] * (answers[0].ndim - 1))
        return np.where(choice == 0, *answers)

    def _denoise(self, x, sigma, y):
        return self._by_label("_denoise", y, x, sigma)

    def _log_prob(self, x, sigma, y):
        return self._by_label("_log_prob", y, x, sigma)


@pytest.mark.parametrize("name", [name for name in SAMPLERS if name != "flow"])
def test_every_row_follows_its_label(name):
    other = MixtureModel([0.5, 0.5], [[5.0, 0.0], [9.0, 0.5]], [0.2, 0.4])
    x, y = MIXTURE.sample(30, 10.0, random_state=0), np.arange(30) % 2
    both = run(name, ByLabel(MIXTURE, other), x, y=y, chunk_size=16)
    for label, model in enumerate((MIXTURE, other)):
        alone = run(name, model, x)
        np.testing.assert_allclose(both[y == label], alone[y == label], atol=1e-10)


@pytest.mark.parametrize("name", [name for name in SAMPLERS if name != "dmcmc"])
def test_levels_may_differ_by_row(name):
    x = subject(name).sample(12, 10.0, random_state=0)
    same = run(name, subject(name), x)
    rows = np.repeat(np.array(LEVELS)[:, None], 12, axis=1)
    np.testing.assert_allclose(run(name, subject(name), x, rows), same, atol=1e-10)
    # a row with levels of its own is what it is when all have its levels
    rows[:-1, 3] *= 0.5
    own = run(name, subject(name), x, rows)
    of_all = run(name, subject(name), x, np.append(np.array(LEVELS[:-1]) * 0.5, 0.0))
    np.testing.assert_allclose(own[3], of_all[3], atol=1e-10)
    np.testing.assert_allclose(np.delete(own, 3, 0), np.delete(same, 3, 0), atol=1e-10)
