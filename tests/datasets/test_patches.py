"""Patches are pieces of the photographs, and removing their mean is a change of basis."""

import numpy as np
import pytest
from sklearn.model_selection import GridSearchCV

from skdiffusion import GaussianScore
from skdiffusion.datasets import load_image_patches


def test_removing_the_mean_keeps_all_other_distances():
    grey = load_image_patches(200, size=5, random_state=0)
    rest = load_image_patches(200, size=5, remove_mean=True, random_state=0)
    assert rest.shape == (200, 24)
    centred = grey - grey.mean(axis=1, keepdims=True)
    np.testing.assert_allclose(rest @ rest.T, centred @ centred.T, atol=1e-12)
    assert grey.min() >= 0 and grey.max() <= 1


def test_a_seed_repeats_and_none_does_not():
    a, b = (load_image_patches(5, random_state=3) for _ in range(2))
    np.testing.assert_array_equal(a, b)
    assert not np.array_equal(load_image_patches(5), load_image_patches(5))


def test_their_spectrum_is_learned_by_grid_search():
    X = load_image_patches(1500, size=8, remove_mean=True, random_state=0)
    search = GridSearchCV(
        GaussianScore(), {"covariance": ["empirical", "diag", "isotropic"]}, n_jobs=2, cv=3
    ).fit(X)
    assert search.best_params_ == {"covariance": "empirical"}
    variances = search.best_estimator_.explained_variance_
    # natural images: power law of the spectrum over two decades
    slope = np.polyfit(np.log(np.arange(1, 64)), np.log(variances), 1)[0]
    assert -3 < slope < -1
    assert search.best_estimator_.sample(10).shape == (10, 63)


@pytest.mark.parametrize("size, message", [(0, "size must be an integer"), (500, "at most 427")])
def test_bad_sizes(size, message):
    with pytest.raises(ValueError, match=message):
        load_image_patches(2, size=size)


def test_nothing_is_left_of_one_pixel_without_its_mean():
    with pytest.raises(ValueError, match="size must be an integer of at least 2; got 1"):
        load_image_patches(2, size=1, remove_mean=True)
    assert load_image_patches(2, size=1).shape == (2, 1)
