"""The pipeline under scikit-learn's own checks, and the names of the package."""

import pytest
from sklearn.experimental import enable_halving_search_cv  # noqa: F401
from sklearn.model_selection import HalvingGridSearchCV
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

import skdiffusion
from skdiffusion import GaussianScore, GMMScore
from skdiffusion.compose import TableEncoder, make_density_pipeline
from skdiffusion.metrics import get_scorer


def of_every_pipeline(estimator):
    """Checks that scikit-learn's own Pipeline fails: it fits the steps that it was given."""
    if isinstance(estimator, TableEncoder):
        return {}
    names = ("check_dont_overwrite_parameters", "check_estimators_overwrite_params")
    return dict.fromkeys(names, "a Pipeline fits its steps in place")


@pytest.mark.foreign_state
@parametrize_with_checks(
    [make_density_pipeline(StandardScaler(), GaussianScore("oas")), TableEncoder()],
    expected_failed_checks=of_every_pipeline,
)
def test_scikit_learn_checks(estimator, check):
    check(estimator)


def test_halving_over_models_and_schedules(rng):
    X = rng.standard_normal((720, 2)) ** 3
    pipeline = make_density_pipeline(StandardScaler(), GMMScore(random_state=0))
    grid = {"gmmscore__n_components": [1, 4], "gmmscore__schedule": ["vp", "edm"]}
    search = HalvingGridSearchCV(
        pipeline, grid, scoring=get_scorer("log_likelihood"), cv=3, random_state=0
    ).fit(X)
    assert search.best_params_["gmmscore__n_components"] == 4


def test_every_name_of_compose_is_one_of_the_package():
    for name in ("DensityPipeline", "DiffusionImputer", "Denoiser", "ScoreOutlierDetector"):
        assert getattr(skdiffusion, name) is getattr(skdiffusion.compose, name)
