"""The estimator of dimension: what it answers, and that it keeps scikit-learn's contract."""

import pickle
import warnings

import numpy as np
import pandas
import pytest
from scipy.special import gammainc
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from skdiffusion import EmpiricalScore, GaussianScore, GMMScore, IntrinsicDimensionEstimator
from skdiffusion.datasets import make_gaussian, make_sphere
from skdiffusion.geometry import MarginalEnergy, PowerPrior
from skdiffusion.geometry._codimension import noise_posterior
from skdiffusion.geometry._score_dimension import METHODS
from skdiffusion.models import (
    AffineModel,
    EmpiricalModel,
    GaussianModel,
    MixtureModel,
    SphereModel,
    as_score_model,
)

SPHERE, SPHERE_MODEL = make_sphere(300, 2, 5, random_state=0)


def fitted(X, *args, **params):
    return IntrinsicDimensionEstimator(*args, random_state=0, **params).fit(X)


def embedded(z, columns, rng):
    """Rows in a random subspace of more columns."""
    axes = np.linalg.qr(rng.standard_normal((columns, z.shape[1])))[0]
    return z @ axes.T


# ------------------------------------------------------------------ the contract


@pytest.mark.foreign_state
@pytest.mark.filterwarnings("ignore:X has only", "ignore:the dimension changes")
@parametrize_with_checks(
    [
        IntrinsicDimensionEstimator(),
        IntrinsicDimensionEstimator("flipd"),
        IntrinsicDimensionEstimator("spectrum", sigma=0.5),
    ]
)
def test_scikit_learn_checks(estimator, check):
    check(estimator)


@pytest.mark.parametrize("params", [{}, {"method": "flipd"}])
def test_copies_repeat_and_threads_agree(params):
    est = fitted(SPHERE, **params)
    for other in (
        clone(est).fit(SPHERE),
        pickle.loads(pickle.dumps(est)),
        clone(est).set_params(n_jobs=2).fit(SPHERE),
    ):
        assert other.dimension_ == est.dimension_
        np.testing.assert_array_equal(other.predict(SPHERE), est.dimension_pw_)


def test_nothing_is_left_of_an_earlier_fit():
    est = fitted(SPHERE, "flipd", score_estimator=SPHERE_MODEL, sigma=0.3)
    names = {name for name in vars(est) if name.endswith("_")}
    est.set_params(conservative_projection=True).fit(SPHERE)
    assert np.isfinite(est.gauge_cost_)
    est.set_params(conservative_projection=False).fit(SPHERE)
    assert {name for name in vars(est) if name.endswith("_")} == names


def test_containers_pipelines_and_search():
    frame = pandas.DataFrame(SPHERE, columns=list("abcde"))
    est = IntrinsicDimensionEstimator(random_state=0).set_output(transform="pandas").fit(frame)
    assert list(est.transform(frame).columns) == ["dimension"]
    pipeline = make_pipeline(StandardScaler(), IntrinsicDimensionEstimator(random_state=0))
    assert pipeline.fit(SPHERE).transform(SPHERE).shape == (300, 1)
    search = GridSearchCV(
        IntrinsicDimensionEstimator("flipd", random_state=0), {"sigma": [0.2, 1.5]}, cv=3
    ).fit(SPHERE)
    # at the radius of the sphere itself half of the dimension is gone, and the ratios tell
    assert search.best_params_ == {"sigma": 0.2}


def test_errors_say_what_is_accepted():
    for params, message in [
        ({"method": "flippd"}, "did you mean 'flipd'"),
        ({"sigma": -1.0}, "sigma must be a finite number above 0"),
        ({"sigma": [1.0, 0.5]}, "increasing levels"),
        ({"sigma": []}, "increasing levels"),
        ({"sigma": {}}, "increasing levels"),
        ({"sigma": "large"}, "Unknown sigma"),
        ({"n_noise": 0}, "n_noise must be an integer"),
        ({"score_estimator": SphereModel(3)}, "3 columns, but X has 5"),
    ]:
        with pytest.raises(ValueError, match=message):
            fitted(SPHERE, **params)
    with pytest.raises(NotFittedError):
        IntrinsicDimensionEstimator().predict(SPHERE)
    with pytest.raises(ValueError, match="at most 5"):
        fitted(SPHERE).tangent_basis(SPHERE, 6)


# ------------------------------------------------------------------ score models


@pytest.mark.parametrize("method", METHODS)
def test_every_method_finds_the_sphere_by_its_score(method):
    est = fitted(SPHERE[:40], method, score_estimator=SPHERE_MODEL, sigma=[0.01, 0.05, 0.1])
    # the denoising loss is short by sigma^2 per direction, and random by 16 draws of it; off the
    # sphere, where the posterior asks, its curvature is of the order of sigma^2
    error = {"denoising_loss": 0.1, "noise_posterior": 1e-3}.get(method, 1e-6)
    assert est.dimension_ == pytest.approx(2, abs=error)
    assert est.model_ is SPHERE_MODEL and est.sigma_ in (0.01, 0.05, 0.1)


@pytest.mark.parametrize("method", METHODS)
def test_every_method_finds_the_sphere_by_its_rows(method):
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="the dimension changes")
        est = fitted(SPHERE, method, sigma=0.25 if method == "normal_bundle" else "auto")
    assert est.dimension_ == pytest.approx(2, abs=0.25)
    assert est.predict(make_sphere(50, 2, 5, random_state=0)[0]).mean() == pytest.approx(
        2, abs=0.25
    )


@pytest.mark.parametrize(("dimension", "m"), [(0, 3), (2, 3), (2, 20), (10, 100)])
def test_the_noise_posterior_knows_flat_laws_exactly(dimension, m):
    # r / s has the law of chi with as many degrees as the codimension, whatever r: no variance.
    # 64 levels: 1e-5 of the codimension. Codimension one: exp(-8), where levels are left off, of
    # what the flat tail of its posterior adds to the variance
    flat = GaussianModel(np.zeros(m), np.diag(np.r_[np.ones(dimension), np.zeros(m - dimension)]))
    est = MarginalEnergy(flat, prior=PowerPrior(-1.0, 1e-9, 1e-3), standardize=False)
    rows = flat.sample(3, random_state=0)
    found = noise_posterior(flat, rows, 1e-5)
    np.testing.assert_allclose(found, dimension, atol=1e-2 if m - dimension == 1 else 4e-3)
    noised = rows + 1e-5 * np.random.default_rng(0).standard_normal(rows.shape)
    by_energy = est.fit(rows + noised).codimension(noised)
    # the prior of the energy ends a hundred times above the level
    atol = 0.1 if m - dimension == 1 else 0.02
    np.testing.assert_allclose(m - by_energy, found, atol=atol)


@pytest.mark.parametrize("make", [GaussianScore, EmpiricalScore])
def test_estimators_are_cloned_and_frozen_ones_kept(make):
    X, _ = make_gaussian(400, 4, spectrum=[1.0, 1.0, 0.0, 0.0], random_state=0)
    X = X + 1e-3 * np.random.default_rng(0).standard_normal(X.shape)
    est = make().fit(X)
    same = fitted(X, score_estimator=FrozenEstimator(est), sigma=0.1)
    assert same.model_ is est.model_
    again = fitted(X, score_estimator=make(), sigma=0.1)
    assert again.model_ is not est.model_
    assert again.dimension_ == pytest.approx(same.dimension_, abs=1e-12)


def test_a_mixture_learned_from_rows_finds_the_sphere():
    X, _ = make_sphere(1500, 2, 5, noise=0.01, random_state=0)
    # sixty components of width 0.25 depart from the sphere by 0.03, less than the level
    score = GMMScore(60, random_state=0)
    est = fitted(X, "spectrum", score_estimator=score, sigma=0.12)
    assert est.dimension_ == pytest.approx(2, abs=0.1)


def test_models_from_elsewhere_in_any_schedule():
    _, model = make_sphere(1, 2, 5, random_state=0)
    for schedule in ("vp", "flow_matching", "edm"):
        view = model.at_time(schedule)
        seen = as_score_model(
            view.velocity, prediction="velocity", schedule=schedule, n_features=5, backend="numpy"
        )
        est = fitted(SPHERE[:30], "flipd", score_estimator=seen, sigma=0.1)
        # FLIPD of the two-sphere is 2 to exp(-200); differences have an error of 1e-6
        assert est.dimension_ == pytest.approx(2, abs=1e-5)


def test_levels_stay_within_the_range_of_the_model():
    seen = as_score_model(
        SPHERE_MODEL.score,
        prediction="score",
        n_features=5,
        backend="numpy",
        sigma_range=(0.07, 0.4),
    )
    est = fitted(SPHERE[:30], score_estimator=seen)
    assert est.method_ == "flipd"
    assert est.curve_.levels[0] == pytest.approx(0.07)
    with pytest.raises(ValueError, match=r"from 0\.07"):
        fitted(SPHERE[:30], score_estimator=seen, sigma=0.01)


def test_a_learned_score_at_the_linear_span_is_suspect():
    # what a network knows of a sphere at first: its covariance
    stalled = GaussianScore().from_parameters(np.zeros(5), np.cov(SPHERE.T) + 1e-6 * np.eye(5))
    seen = as_score_model(stalled.stein_score, prediction="score", n_features=5, backend="numpy")
    with pytest.warns(UserWarning, match="linear span, 3"):
        fitted(SPHERE[:50], score_estimator=seen, sigma=0.03)


def test_a_gauge_field_is_projected_out(rng):
    # s = -C^-1 x + A C^-1 x with C = lambda + sigma^2: the flow and the densities stay the same
    variances, sigma = np.array([2.0, 1.0, 0.5, 0.0, 0.0, 0.0]), 0.2
    A = rng.standard_normal((6, 6))
    A = 12 * (A - A.T) / np.linalg.norm(A - A.T)
    X = rng.standard_normal((1500, 6)) * np.sqrt(variances)

    def score(x, level):
        inner = x / (variances + np.reshape(level, (-1, 1)) ** 2)
        return -inner + inner @ A.T

    model = as_score_model(score, prediction="score", n_features=6, backend="numpy")
    params = {"method": "flipd", "score_estimator": model, "sigma": sigma}
    found = fitted(X, conservative_projection=True, **params)
    # sum of 1 - (sigma^2 / C)^2, and what the gauge adds to it: tr(A P Lambda P A') / sigma^2
    P = np.diag(sigma**2 / (variances + sigma**2))
    cost = np.trace(A @ P @ np.diag(variances) @ P @ A.T) / sigma**2
    truth = np.sum(1 - (sigma**2 / (variances + sigma**2)) ** 2)
    # 1500 rows know a covariance to some 4% in each entry
    assert found.dimension_ == pytest.approx(truth, abs=0.15)
    # answers without projection are spread by as much as they are too high, over 1500 rows
    assert cost > 2 and found.gauge_cost_ == pytest.approx(cost, rel=0.1)
    with pytest.raises(ValueError, match="needs a score_estimator"):
        fitted(X, conservative_projection=True)


def test_the_spectrum_of_a_gaussian_counts_principal_components():
    # thirty rows of a ball in five of ten columns: five variances above a twentieth of the
    # largest, which is what scikit-dimension's lPCA counts of them
    rng = np.random.RandomState(0)
    z = rng.normal(size=(30, 5))
    square = (z**2).sum(axis=1, keepdims=True)
    X = np.pad(z * gammainc(2.5, square / 2) ** 0.2 / np.sqrt(square), ((0, 0), (0, 5)))
    variances = np.linalg.eigvalsh(np.cov(X.T))
    law = GaussianModel(X.mean(axis=0), np.cov(X.T))
    for share, count in [(0.05, 5), (0.4, 4), (0.6, 3), (0.7, 2), (0.9, 1)]:
        level = np.sqrt(share * variances.max())
        est = fitted(X, "spectrum", score_estimator=law, sigma=level)
        assert est.dimension_ == count == (variances > level**2).sum()


# ------------------------------------------------------------------ means over rows

LAMBDAS = np.array([2.0, 1.0, 0.5] + [0.0] * 7)


@pytest.mark.parametrize("sigma", [0.05, 0.2, 0.5])
def test_noised_rows_have_the_dimension_of_the_space(sigma):
    """E tr(grad s) + |s|^2 = 0 under the noised law, whichever it is."""
    mixture = MixtureModel([0.3, 0.7], [[-1.0, 0, 0], [1.0, 0, 0]], [[0.5, 0, 0.1], [0.1, 0.4, 0]])
    for law, d in [(GaussianModel(np.zeros(10), LAMBDAS), 10), (mixture, 3)]:
        X = law.sample(4000, sigma, random_state=0)
        est = fitted(X, "flipd", score_estimator=law, sigma=sigma)
        found = est.predict(X, clip=False)
        assert est.curve_.dimension[0] == pytest.approx(d, abs=4 * est.curve_.std_error[0])
        assert found.mean() == pytest.approx(d, abs=4 * est.std_error_)
        assert est.std_error_ == pytest.approx(found.std(ddof=1) / np.sqrt(4000))
        # the mean may be above by its error, the answer may not
        assert est.dimension_ == pytest.approx(min(found.mean(), d), abs=1e-12)
        # half of the rows lie beyond, and their dimension does not
        assert (found > d).mean() > 0.2 and est.dimension_pw_.max() <= d
        np.testing.assert_array_equal(est.dimension_pw_, np.clip(found, 0, d))


def test_flipd_of_kernels_is_a_mean_of_squared_distances_far_away_too(rng):
    X, x, sigma = rng.standard_normal((60, 3)), 2 * rng.standard_normal((40, 3)), 0.6
    est = fitted(X, "flipd", score_estimator=EmpiricalModel(X), sigma=sigma)
    squared = ((x[:, None] - X) ** 2).sum(-1) / sigma**2
    weights = np.exp(-squared / 2)
    truth = (weights * squared).sum(1) / weights.sum(1)
    assert truth.max() > 3  # there are three columns
    np.testing.assert_allclose(est.predict(x, clip=False), truth, atol=1e-8)
    np.testing.assert_allclose(est.predict(x), np.minimum(truth, 3), atol=1e-8)


class Gauged(GaussianModel):
    """A normal law whose score has a gauge field A C^-1 x: the densities stay the same."""

    has_log_prob = has_sample = has_flow = is_conservative = False

    def __init__(self, variances, A):
        super().__init__(np.zeros(len(variances)), variances)
        self.variances, self.A = variances, A

    def matrix(self, sigma):
        inverse = np.diag(1 / (self.variances + sigma**2))
        return np.eye(len(self.A)) + sigma**2 * (self.A @ inverse - inverse)

    def _denoise(self, x, sigma):
        return x @ self.matrix(sigma).T

    def _score(self, x, sigma):
        return (self._denoise(x, sigma) - x) / sigma**2

    def _denoise_jacobian(self, x, sigma):
        return np.broadcast_to(self.matrix(sigma), (len(x), *self.A.shape))


def test_what_a_gauge_costs(rng):
    """sigma^2 E|r|^2 in the denoising loss, tr(A P Lambda P A')/sigma^2 in FLIPD, nothing in T."""
    variances, sigma = np.array([2.0, 1.0, 0.5, 0.0, 0.0, 0.0]), 0.2
    C, P = variances + sigma**2, np.diag(sigma**2 / (variances + sigma**2))
    A = rng.standard_normal((6, 6))
    A -= A.T
    A *= np.sqrt(55.812 / (sigma**2 * np.trace(A @ np.diag(1 / C) @ A.T)))
    plain, gauged = GaussianModel(np.zeros(6), variances), Gauged(variances, A)
    X = plain.sample(4000, random_state=0)
    params = {"sigma": sigma, "n_noise": 4}
    loss = fitted(X, "denoising_loss", score_estimator=plain, **params)
    assert loss.dimension_ == pytest.approx(2.867856, abs=4 * loss.std_error_)
    slope = fitted(X, "flipd", score_estimator=plain, **params)
    assert slope.dimension_ == pytest.approx(2.992649, abs=4 * slope.std_error_)
    # the trace alone is what it was, and so is FLIPD where the score vanishes
    at_mean = slope.predict(np.zeros((1, 6)))
    assert at_mean[0] == pytest.approx(2.867856, abs=1e-6)
    for est, method, extra in [
        (loss, "denoising_loss", 55.812),
        (slope, "flipd", np.trace(A @ P @ np.diag(variances) @ P @ A.T) / sigma**2),
    ]:
        with pytest.warns(UserWarning, match="is no dimension: the score model errs, by a gauge"):
            worse = fitted(X, method, score_estimator=gauged, **params)
        cost = worse.predict(X, clip=False) - est.predict(X, clip=False)
        assert cost.mean() == pytest.approx(extra, abs=4 * cost.std() / np.sqrt(len(X)))
        assert worse.dimension_ == 6  # what there is, said to be wrong
    assert worse.predict(np.zeros((1, 6)), clip=False)[0] == pytest.approx(at_mean[0], abs=1e-6)


def test_rows_far_from_the_law_are_held_back_and_said():
    law = GaussianModel(np.zeros(3), [1.0, 1.0, 0.0])
    X = law.sample(200, random_state=0)
    plain = fitted(X, "flipd", score_estimator=law, sigma=0.1).dimension_
    X[7] = 1e6
    with pytest.warns(UserWarning, match="1 of 200 rows are far.*at row 7 it answers"):
        est = fitted(X, "flipd", score_estimator=law, sigma=0.1)
    # ten spreads of sqrt(6) over 200 rows
    assert est.dimension_ == pytest.approx(plain, abs=0.13)
    assert est.dimension_pw_[7] == 3


def test_two_scales_are_two_answers():
    tube, law = make_gaussian(200, 3, spectrum=[100.0, 0.01, 0.01], random_state=0)
    est = fitted(tube, "flipd", score_estimator=law)
    assert [round(plateau.dimension) for plateau in est.plateaus_] == [3, 1]
    assert all(p.low <= p.sigma <= p.high for p in est.plateaus_)


def test_plateaus_of_the_multi_scale_gaussian():
    spectrum = np.repeat([1e-4, 1.0, 1000.0], [3, 3, 4])
    X, law = make_gaussian(400, 10, spectrum=spectrum, random_state=0)
    est = fitted(X, "flipd", score_estimator=law, sigma=np.geomspace(0.02, 100, 40))
    assert [round(plateau.dimension) for plateau in est.plateaus_] == [7, 4]


def test_no_plateau_is_said():
    # variances of all sizes: every scale has its own dimension
    X, law = make_gaussian(100, 30, spectrum=np.geomspace(1, 1e-6, 30), random_state=0)
    with pytest.warns(UserWarning, match="no plateau"):
        est = fitted(X, "flipd", score_estimator=law, sigma=np.geomspace(0.01, 0.5, 20))
    assert est.plateaus_ == [] and np.isfinite(est.dimension_)


def test_tangents_of_the_sphere_are_orthogonal_to_its_radius():
    for est, slack in [
        (fitted(SPHERE, "flipd", score_estimator=SPHERE_MODEL, sigma=0.05), 1e-6),
        (fitted(SPHERE), 0.5),  # neighbours at a distance of 0.3 bend
    ]:
        basis = est.tangent_basis(SPHERE[:20], 2)
        np.testing.assert_allclose(
            basis.swapaxes(1, 2) @ basis, np.broadcast_to(np.eye(2), (20, 2, 2)), atol=1e-10
        )
        assert np.abs(np.einsum("nd,ndk->nk", SPHERE[:20], basis)).max() < slack


def test_tangents_are_those_of_the_rows_where_the_noise_follows_the_columns():
    scale = np.array([1.0, 3.0, 0.3])
    rows = SphereModel(3).sample(20, random_state=0)
    model = AffineModel(SphereModel(3), scale=scale)  # an ellipsoid
    est = fitted(scale * rows, "spectrum", score_estimator=model, sigma=0.01)
    basis = est.tangent_basis(scale * rows, 2)
    np.testing.assert_allclose(
        basis.swapaxes(1, 2) @ basis, np.broadcast_to(np.eye(2), (20, 2, 2)), atol=1e-12
    )
    assert np.abs(np.einsum("nd,ndk->nk", rows / scale, basis)).max() < 1e-10  # its normals


# ------------------------------------------------------------------ the default


LAWS = [(law, d) for law in ("cube", "normal", "sphere") for d in (1, 2, 5, 16, 32)]
LAWS += [("torus", d) for d in (2, 8)]  # beyond, 1500 rows do not show how it is bent


@pytest.mark.parametrize("law, d", LAWS)
def test_default_on_laws_of_known_dimension(law, d, rng):
    n = 1500
    if law == "sphere":
        z = make_sphere(n, d, random_state=1)[0]
    elif law == "torus":
        angle = rng.uniform(0, 2 * np.pi, (n, d))
        z = np.hstack([np.cos(angle), np.sin(angle)])
    else:
        z = rng.random((n, d)) if law == "cube" else rng.standard_normal((n, d))
    est = fitted(embedded(z, 70, rng))
    # half a dimension where it is small, and what the calibration says of itself above
    assert est.dimension_ == pytest.approx(d, abs=max(0.5, 0.15 * d))
    assert abs(est.dimension_ - d) < 4 * est.std_error_ + 0.05


def test_dimension_is_the_same_in_any_units_and_axes(rng):
    est = fitted(SPHERE)
    turned = fitted(1e5 * embedded(SPHERE, 7, rng) + 3e5)
    # 300 rows are all landmarks, so nothing is drawn but the error
    assert turned.dimension_ == pytest.approx(est.dimension_, rel=1e-5)


@pytest.mark.parametrize("method", ["flow_jacobian", "flipd", "spectrum"])
def test_dimension_by_a_score_whose_noise_follows_the_columns_knows_no_units(method):
    """Levels are chosen where the noise is isotropic: above the data there is nothing to see."""
    scale = np.array([1e-3, 1.0, 1e3, 1.0, 1.0])  # of geometric mean one
    rows, model = SPHERE[:40], AffineModel(SPHERE_MODEL, scale=scale)
    est = fitted(rows, method, score_estimator=SPHERE_MODEL)
    there = fitted(scale * rows, method, score_estimator=model)
    assert there.sigma_ == pytest.approx(est.sigma_, rel=1e-6)
    assert there.dimension_ == pytest.approx(est.dimension_, abs=1e-6)


@pytest.mark.parametrize("exponent", [-450, -270, 240, 270, 480])
def test_dimension_is_the_same_in_units_whose_powers_are_no_numbers(exponent):
    unit = 2.0**exponent  # exact, so that no digit may change
    est, there = fitted(SPHERE), fitted(SPHERE * unit)
    assert there.dimension_ == est.dimension_
    np.testing.assert_array_equal(there.predict(SPHERE[:9] * unit), est.predict(SPHERE[:9]))
    tangents = there.tangent_basis(SPHERE[:9] * unit), est.tangent_basis(SPHERE[:9])
    np.testing.assert_allclose(*tangents, atol=1e-10)


@pytest.mark.parametrize("n_features", [5, 20])  # neighbours by a tree, and by all distances
def test_dimension_is_the_same_far_from_the_origin(n_features, rng):
    rows = embedded(SPHERE, n_features, rng)
    offset = 2.0**27  # rounds rows of size one to 1e-8
    est, there = fitted(rows), fitted(rows + offset)
    assert there.dimension_ == pytest.approx(est.dimension_, abs=1e-4)
    np.testing.assert_allclose(there.dimension_pw_, est.dimension_pw_, atol=1e-3)
    assert there.score(rows[::2] + offset) == pytest.approx(est.score(rows[::2]), abs=1e-4)


@pytest.mark.parametrize("unit", [1e-160, 1e149, 1e160])
def test_units_whose_squares_are_no_numbers_are_refused(unit):
    with pytest.raises(ValueError, match="bring X to other units"):
        fitted(SPHERE * unit)


def test_local_dimension_of_mixed_data(rng):
    parts = [
        np.pad(rng.random((500, 1)), ((0, 0), (0, 4))),
        np.pad(rng.random((500, 2)), ((0, 0), (1, 2))) + 3,
        rng.standard_normal((500, 5)) + 10,
    ]
    X = np.vstack(parts)
    est = fitted(X)
    local = [np.median(est.dimension_pw_[500 * k : 500 * (k + 1)]) for k in range(3)]
    np.testing.assert_allclose(local, [1, 2, 5], rtol=0.1)
    # rows never seen are as good as rows that were
    fresh = est.predict(X[::7] + 1e-4 * rng.standard_normal(X[::7].shape))
    assert np.median(np.abs(fresh - est.dimension_pw_[::7])) < 0.1


@pytest.mark.parametrize("d", [2, 3])
def test_clusters_have_the_dimension_of_each(d, rng):
    middles = 8 * np.stack([np.arange(4) % 2, np.arange(4) // 2, *np.zeros((d - 2, 4))], axis=1)
    X = np.vstack([rng.standard_normal((250, d)) + middle for middle in middles])
    est = fitted(X)
    assert est.dimension_ == pytest.approx(d, rel=0.1)
    assert np.median(est.dimension_pw_) == pytest.approx(d, rel=0.1)


def concordance(found, truth, low, high):
    """Share of pairs in their order."""
    return (found[truth == high][:, None] > found[truth == low]).mean()


def test_a_lollipop_is_ordered():
    rng = np.random.default_rng(0)
    stick = np.stack([rng.uniform(-2, -1, 300), np.zeros(300)], axis=1)
    angle, radius = rng.uniform(0, 2 * np.pi, 300), rng.random(300) ** 0.5
    disc = radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    X, truth = np.vstack([stick, disc]), np.repeat([1, 2], 300)
    default, flipd = fitted(X), fitted(X, "flipd", sigma=0.08)
    for est in (default, flipd):
        assert concordance(est.dimension_pw_, truth, 1, 2) >= 0.95
    d = default.dimension_pw_
    np.testing.assert_allclose([np.median(d[truth == k]) for k in (1, 2)], [1, 2], rtol=0.1)
    # five copies of one row far away: to what is left of them without itself each is a point
    X, truth = np.vstack([X, 5 * [[-3.0, 0.0]]]), np.append(truth, 5 * [0])
    d = fitted(X, "flipd", sigma=0.08, score_estimator=EmpiricalModel(X)).dimension_pw_
    assert min(concordance(d, truth, *pair) for pair in [(0, 1), (0, 2), (1, 2)]) >= 0.95
    np.testing.assert_allclose(d[truth == 0], 0, atol=1e-12)


def test_digits_have_many_fewer_dimensions_than_pixels():
    est = fitted(load_digits().data)
    assert 6 < est.dimension_ < 16  # published estimates by neighbours run from 8 to 12
    assert est.dimension_pw_.shape == (1797,)


# ------------------------------------------------------------------ unruly data


@pytest.mark.parametrize("params", [{}, {"method": "flipd"}])
def test_copies_constants_and_an_outlier_change_little(params, rng):
    X = rng.standard_normal((400, 3))
    plain = fitted(X, **params).dimension_
    assert fitted(np.repeat(X, 3, axis=0), **params).dimension_ == pytest.approx(plain, abs=1e-6)
    constant = np.hstack([X, np.full((400, 4), 7.0)])
    assert fitted(constant, **params).dimension_ == pytest.approx(plain, rel=1e-6)
    X[0] = 1e6
    assert fitted(X, **params).dimension_ == pytest.approx(plain, abs=0.15)


@pytest.mark.parametrize("given", [None, SPHERE_MODEL], ids=["rows", "model"])
@pytest.mark.parametrize("method", ["flipd", "spectrum", "denoising_loss", "flow_jacobian"])
def test_equal_rows_count_once_however_often_each_occurs(method, given):
    params = dict(method=method, score_estimator=given, sigma=0.3)
    plain = fitted(SPHERE, **params)
    rows = np.repeat(np.arange(len(SPHERE)), np.where(np.arange(len(SPHERE)) % 7, 1, 9))
    found = fitted(SPHERE[rows], **params)
    for name in ("dimension_", "std_error_"):  # the same sums: nothing to round
        assert getattr(found, name) == getattr(plain, name)
    np.testing.assert_array_equal(found.dimension_pw_, plain.dimension_pw_[rows])


@pytest.mark.filterwarnings("ignore:the dimension changes")
@pytest.mark.parametrize("n", [2, 3, 5, 10, 19])
def test_few_rows_get_a_number_and_a_sentence(n, rng):
    X = rng.standard_normal((n, 4))
    for params in ({}, {"method": "flipd"}):
        with pytest.warns(UserWarning, match=f"only {n} distinct rows"):
            est = fitted(X, **params)
        assert 0 <= est.dimension_ <= 4
        assert np.isfinite([est.std_error_, *est.dimension_pw_]).all()
        if not params:
            assert est.dimension_ <= n - 1 == est.span_ or n > 4
        if n == 2:
            with pytest.raises(ValueError, match="at least 3 distinct rows; X had 2"):
                est.score(X)
        else:
            assert np.isfinite(est.score(X))


def test_one_column_and_none(rng):
    assert fitted(rng.standard_normal((200, 1))).dimension_ == pytest.approx(1, abs=0.2)
    with pytest.warns(UserWarning, match="only 1 distinct"):
        est = fitted(np.ones((30, 4)))
    assert est.dimension_ == 0 and (est.predict(np.zeros((2, 4))) == 0).all()
    with pytest.raises(ValueError, match="a point has no tangent space"):
        est.tangent_basis(np.ones((1, 4)))


def test_score_is_the_likelihood_of_neighbour_distances(rng):
    X, fresh = rng.random((2000, 2)), rng.random((500, 2))
    est = fitted(X)
    distances = np.sort(np.linalg.norm(fresh[:, None] - X, axis=2), axis=1)
    d, log_ratio = est.predict(fresh), np.log(distances[:, 1] / distances[:, 0])
    assert est.score(fresh) == pytest.approx(np.mean(np.log(d) - (d + 1) * log_ratio), abs=1e-9)


@pytest.mark.parametrize("method", METHODS)
def test_a_law_of_one_point_has_no_dimension(method):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # one distinct row
        point = fitted(
            np.ones((3, 2)), method, score_estimator=EmpiricalModel([[1.0, 1.0]]), sigma=0.1
        )
    assert point.dimension_ == pytest.approx(0, abs=1e-3)
    assert (point.dimension_pw_ == point.dimension_).all()
    with pytest.raises(ValueError, match="all rows of X are the same: give sigma"):
        fitted(np.ones((30, 2)), method, score_estimator=GaussianModel(np.ones(2), np.ones(2)))
