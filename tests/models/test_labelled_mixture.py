"""Mixtures by class: every row under the law of its label, whatever library and order."""

import numpy as np
import pytest

from skdiffusion.models import MixtureModel
from skdiffusion.models.labelled_mixture import LabelledMixture


@pytest.fixture
def laws(rng):
    def law(k):
        return MixtureModel(rng.random(k), rng.normal(size=(k, 3)), rng.uniform(0.1, 1, (k, 3)))

    return LabelledMixture(law(4), [law(2), law(1), law(3)])


def test_every_row_is_denoised_under_the_law_of_its_label(laws, rng):
    x, sigma, which = rng.normal(size=(40, 3)), rng.uniform(0.1, 3, 40), rng.integers(4, size=40)
    codes = np.eye(4)[which][:, :3]  # zero is no label
    found = laws.denoise(x, sigma, codes)
    for k, law in enumerate([*laws.classes, laws.law]):
        np.testing.assert_array_equal(
            found[which == k], law.denoise(x[which == k], sigma[which == k])
        )
    np.testing.assert_array_equal(laws.denoise(x, sigma), laws.law.denoise(x, sigma))


def test_torch_agrees_and_is_followed(laws, rng):
    torch = pytest.importorskip("torch")
    x, sigma = rng.normal(size=(12, 3)), rng.uniform(0.1, 3, 12)
    codes = np.eye(4)[rng.integers(4, size=12)][:, :3]
    point, level = torch.tensor(x), torch.tensor(sigma)
    for seen in (codes, torch.tensor(codes)):
        found = laws.denoise(point, level, seen)
        np.testing.assert_allclose(found.numpy(), laws.denoise(x, sigma, codes), rtol=1e-12)
    v = torch.tensor(rng.normal(size=(12, 3)))
    _, slope = torch.func.jvp(lambda z: laws.denoise(z, level, codes), (point,), (v,))
    step = 1e-5 * v.numpy()
    ends = (laws.denoise(x + s * step, sigma, codes) for s in (1, -1))
    # central differences: error of their third derivative times the step's square
    np.testing.assert_allclose(slope.numpy(), np.subtract(*ends) / 2e-5, atol=1e-8)
