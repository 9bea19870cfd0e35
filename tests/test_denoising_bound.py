"""The denoising bound is the log-density of the law itself, and below it for any other denoiser."""

import numpy as np
import pytest
from sklearn.datasets import load_digits, load_iris

from skdiffusion import GMMScore
from skdiffusion.denoising_bound import denoising_bound
from skdiffusion.models import (
    AffineModel,
    BaseScoreModel,
    EmpiricalModel,
    GaussianModel,
    MixtureModel,
    StackedModel,
)
from skdiffusion.noising import noise_range

PLANE = MixtureModel(
    [0.3, 0.5, 0.2],
    [[0, 0], [3, 1], [-2, 2]],
    [[[1, 0.5], [0.5, 1]], [[0.3, -0.2], [-0.2, 0.4]], [[0.05, 0], [0, 0.8]]],
)
LAWS = {
    "plane": lambda: PLANE,
    "iris": lambda: GMMScore(3, random_state=0).fit(load_iris().data).model_,
    "clusters far apart": lambda: MixtureModel(
        [0.5, 0.3, 0.2], [[-50, 0], [50, 10], [0, 80]], [1.0, 2.0, 0.5]
    ),
    "variances a thousand apart": lambda: MixtureModel(
        [0.5, 0.5], [[0, 0, 0], [1, 1, 1]], [1.0, 1e-3]
    ),
}
TWO_POINTS = EmpiricalModel([[-1.0], [1.0]])


@pytest.fixture(params=LAWS)
def law(request):
    return LAWS[request.param]()


def test_bound_of_the_law_is_its_log_density(law):
    """For rows of any origin: the identity holds row by row, not only for draws of the law."""
    far_field = law.gaussian()
    x = np.concatenate([law.sample(300, random_state=1), law.sample(100, 0.1, random_state=2)])
    found = denoising_bound(law, x, far_field, n_noise=32)
    exact = law.log_prob(x).mean()
    assert found.score_std_error < 0.01
    assert abs(found.score - exact) < 0.02
    assert found.score < exact + 3 * found.score_std_error


def scales(covariance):
    """Normals of one shape in three sizes: in many columns a denoiser that is nearly linear about
    each row, by a matrix that is not the Gaussian's."""
    d = len(covariance)
    return MixtureModel(np.ones(3) / 3, np.zeros((3, d)), [s * covariance for s in (0.01, 0.1, 1)])


def turned(variances):
    axes = np.linalg.qr(np.random.default_rng(0).standard_normal((len(variances),) * 2))[0]
    return axes * variances @ axes.T


@pytest.mark.parametrize(
    "name, n_noise", [("plane", 8), ("plane", 16), ("iris", 5), ("iris", 16), ("scales", 16)]
)
def test_error_bars_cover(name, n_noise):
    law = scales(turned(np.geomspace(0.01, 1, 20))) if name == "scales" else LAWS[name]()
    far_field = law.gaussian()
    x = law.sample(50, random_state=0)
    exact = law.log_prob(x, noise_range(far_field.covariance.diagonal).sigma_min).mean()
    runs = [denoising_bound(law, x, far_field, n_noise=n_noise, random_state=s) for s in range(60)]
    off = np.array([(run.score - exact) / run.score_std_error for run in runs])
    assert abs(off.mean()) < 4 / 60**0.5  # no bias
    assert 0.75 < off.std() < 1.35  # known to a tenth from 60 runs, and bars may be 15% short


def test_nothing_is_left_to_chance_for_a_gaussian(rng):
    law = GaussianModel([1.0, -2.0], [[4.0, 1.0], [1.0, 1.0]])
    x = 3 * rng.standard_normal((20, 2))
    found = denoising_bound(law, x, law, n_noise=3)
    level = 0.002  # of the narrowest column, whose standard deviation is one
    np.testing.assert_allclose(found.bound, law.log_prob(x, level), atol=1e-8)
    assert found.std_error.max() < 1e-8


def test_another_gaussian_is_below():
    """The gap is the divergence between the laws: here of N(0, 1) from N(0, s), in closed form."""
    truth = GaussianModel([0.0], 1.0)
    x = truth.sample(3000, random_state=0)
    x = (x - x.mean()) / x.std()
    for variance in (0.25, 4.0):
        found = denoising_bound(GaussianModel([0.0], variance), x, truth, n_noise=8)
        divergence = 0.5 * (1 / variance - 1 + np.log(variance))
        # equal moments of the rows make the mean over rows exact; t / C^2 beyond the last level
        assert truth.log_prob(x).mean() - found.score == pytest.approx(
            divergence, abs=4 * found.score_std_error + 2e-3
        )


def test_no_denoiser_beats_the_law():
    x = PLANE.sample(500, random_state=0)
    far_field = PLANE.gaussian()

    class Overconfident(BaseScoreModel):
        """Pulls half as far again as the law does: its flow concentrates, its errors grow."""

        n_features = 2

        def _denoise(self, x, sigma):
            return x + 1.5 * (PLANE._denoise(x, sigma) - x)

    class Memory(BaseScoreModel):
        n_features = 2
        rows = EmpiricalModel(PLANE.sample(50, random_state=7))

        def _denoise(self, x, sigma):
            return self.rows._denoise(x, sigma)

    truth = denoising_bound(PLANE, x, far_field).score
    for model in (Overconfident(), Memory(), far_field):
        found = denoising_bound(model, x, far_field, n_noise=4)
        assert found.score + 3 * found.score_std_error < truth


def noised_points(variance):
    """Nodes and weights of two points with Gaussian noise; exact to rounding, as it is smooth."""
    end = 1 + 8 * variance**0.5
    x = np.linspace(-end, end, 161)
    density = np.exp(-((x - 1) ** 2) / (2 * variance)) + np.exp(-((x + 1) ** 2) / (2 * variance))
    return x[:, None], density / density.sum()


@pytest.mark.parametrize(
    "gamma, error, gap",
    [
        (0.25, 0.7959457344, 0.0040542656),
        (1, 0.4495995092, 0.0504004908),
        (4, 0.0685974087907, 0.1314025912),
    ],
)
def test_two_points_have_the_published_errors(gamma, error, gap):
    x, weights = noised_points(1 / gamma)
    # the error of a conditional mean: E x0^2 - E D^2
    found = 1 - weights @ TWO_POINTS.denoise(x, gamma**-0.5)[:, 0] ** 2
    assert found == pytest.approx(error, abs=1e-9)
    assert 1 / (1 + gamma) - found == pytest.approx(gap, abs=1e-9)


def test_two_points_have_the_published_divergence():
    """Half the integral of the gap up to gamma = 2 is KL(p_sigma | N(0, 1 + sigma^2))."""
    x, weights = noised_points(0.5)
    far_field = GaussianModel([0.0], 1.0)
    found = denoising_bound(TWO_POINTS, x, far_field, 0.5**0.5, 20.0, n_noise=256)
    gains = found.bound - far_field.log_prob(x, 0.5**0.5)
    error = np.sqrt(weights**2 @ found.std_error**2)
    assert error < 2e-3
    # 8e-4 is the rule's own error, with 4096 pairs as well
    assert weights @ gains == pytest.approx(0.0984680165 / 2, abs=4 * error + 1e-3)


def test_the_grid_is_the_datas_and_not_the_models():
    x = PLANE.sample(20, random_state=0)
    far_field = PLANE.gaussian()
    asked = {}

    class Watched(BaseScoreModel):
        n_features = 2

        def __init__(self, factor):
            self.factor = factor

        def _denoise(self, x, sigma):
            asked.setdefault(self.factor, []).append(sigma)
            return self.factor * x

    for factor in (0.0, 0.9):
        denoising_bound(Watched(factor), x, far_field)
    assert asked[0.0] == asked[0.9]


def test_a_row_alone_is_as_in_a_batch_and_calls_agree():
    import sklearn

    x = PLANE.sample(30, random_state=0)
    far_field = PLANE.gaussian()
    whole = denoising_bound(PLANE, x, far_field)
    alone = denoising_bound(PLANE, x[4:5], far_field)
    np.testing.assert_allclose(alone.bound, whole.bound[4:5], rtol=1e-10)
    np.testing.assert_allclose(alone.std_error, whole.std_error[4:5], rtol=1e-10)
    with sklearn.config_context(working_memory=0.01):
        parts = denoising_bound(PLANE, x, far_field)
    np.testing.assert_allclose(parts.bound, whole.bound, rtol=1e-10)
    other = denoising_bound(PLANE, x, far_field, random_state=1)
    assert not np.allclose(other.bound, whole.bound)


def test_it_does_not_depend_on_units_or_offsets():
    x = PLANE.sample(50, random_state=0)
    moved = AffineModel(PLANE, shift=1000.0, scale=8.0)
    moments = PLANE.gaussian()
    far_field = GaussianModel(8 * moments.mean + 1000, 64 * moments.covariance.to_matrix())
    exact = denoising_bound(PLANE, x, moments, n_noise=64)
    found = denoising_bound(moved, 8 * x + 1000, far_field, n_noise=64)
    # other rows have other noise: the difference is known to the errors of both
    error = np.hypot(found.score_std_error, exact.score_std_error)
    assert found.score + 2 * np.log(8) == pytest.approx(exact.score, abs=4 * error)


def test_noise_may_differ_by_column():
    scale = np.array([0.1, 30.0])
    law = AffineModel(PLANE, scale=scale)
    moments = PLANE.gaussian()
    covariance = moments.covariance.to_matrix() * np.outer(scale, scale)
    x = law.sample(400, random_state=0)
    found = denoising_bound(law, x, GaussianModel(moments.mean * scale, covariance), n_noise=32)
    assert abs(found.score - law.log_prob(x).mean()) < 0.02


def test_where_a_model_is_not_defined_the_gaussian_denoises():
    far_field = PLANE.gaussian()
    x = PLANE.sample(100, random_state=0)

    class Trained(BaseScoreModel):
        n_features = 2
        sigma_range = (0.3, 5.0)

        def _denoise(self, x, sigma):
            return PLANE._denoise(x, sigma)

    found = denoising_bound(Trained(), x, far_field).score
    assert far_field.log_prob(x).mean() < found < denoising_bound(PLANE, x, far_field).score
    Trained.sigma_range = (1e5, 1e6)
    nowhere = denoising_bound(Trained(), x, far_field)
    level = noise_range(far_field.covariance.diagonal).sigma_min
    np.testing.assert_array_equal(nowhere.bound, far_field.log_prob(x, level))
    assert not nowhere.std_error.any()


def test_data_without_a_density_have_a_bound():
    """A constant column: the law at the smallest level, the same level for every candidate."""
    x = np.column_stack([PLANE.sample(200, random_state=0), np.full(200, 3.0)])
    moments = PLANE.gaussian()
    covariance = np.zeros((3, 3))
    covariance[:2, :2] = moments.covariance.to_matrix()
    far_field = GaussianModel([*moments.mean, 3.0], covariance)
    law = MixtureModel(
        PLANE.weights,
        np.column_stack([PLANE.means, np.full(3, 3.0)]),
        [np.pad(c.to_matrix(), (0, 1)) for c in PLANE.covariances],
    )
    level = 0.002 * moments.covariance.diagonal.min() ** 0.5
    found = denoising_bound(law, x, far_field, n_noise=32)
    exact = law.log_prob(x, level).mean()
    assert abs(found.score - exact) < 0.02


def test_draws_unlike_the_rows_leave_errors_small():
    x = PLANE.sample(100, random_state=0)
    far_field = PLANE.gaussian()

    class Wild(BaseScoreModel):
        """Sound near the rows; its own draws do not come there, and what they show is absurd."""

        n_features = 2

        def _denoise(self, x, sigma):
            far = (x**2).sum(axis=1, keepdims=True) > (8 + 6 * np.max(sigma)) ** 2
            return np.where(far, 3 * x, PLANE._denoise(x, sigma))

    moved = GaussianModel([300.0, 300.0], far_field.covariance)
    found = denoising_bound(Wild(), x, moved, n_noise=4)
    assert found.score_std_error < 0.2  # its slopes, up to two million, would make it 1800


def test_few_draws_have_no_wild_errors():
    x = PLANE.sample(200, random_state=0)

    def spread(n_noise):
        found = denoising_bound(PLANE, x, PLANE.gaussian(), n_noise=n_noise)
        return np.sqrt((found.std_error**2).mean() * n_noise)

    # slopes of two draws alone have Cauchy tails: this ratio was 30 with them
    assert spread(3) < 3 * spread(16)


def test_noise_goes_where_it_is_needed_and_balances():
    """Sixteen pairs at each node, each for itself, had an error of 0.127 a row here, 64 half of it;
    balanced draws gain more than their number."""
    x = PLANE.sample(200, random_state=0)
    found = {m: denoising_bound(PLANE, x, PLANE.gaussian(), n_noise=m) for m in (16, 64)}
    error = {m: np.sqrt((bound.std_error**2).mean()) for m, bound in found.items()}
    assert error[16] < 0.05
    assert error[64] < 0.47 * error[16]
    exact = PLANE.log_prob(x, 0.002 * PLANE.gaussian().covariance.diagonal.min() ** 0.5)
    assert np.sqrt(np.mean((found[16].bound - exact) ** 2)) < 0.08  # and the rule's own error


@pytest.mark.parametrize(
    "law, far_field, most",
    [
        # directions that are orthogonal at each node alone: 0.137, 0.115 and 0.183
        (
            GaussianModel(np.zeros(20), np.geomspace(0.01, 1, 20)),
            GaussianModel(np.zeros(20), 1),
            0.1,
        ),
        (scales(np.eye(20)), scales(np.eye(20)).gaussian(), 0.1),
        (
            scales(turned(np.geomspace(0.01, 1, 20))),
            scales(turned(np.geomspace(0.01, 1, 20))).gaussian(),
            0.155,
        ),
    ],
    ids=["Gaussian", "round scales", "scales"],
)
def test_quadratic_errors_cancel_from_node_to_node(law, far_field, most):
    x = law.sample(100, random_state=0)
    runs = [denoising_bound(law, x, far_field, n_noise=16, random_state=s) for s in range(6)]
    said = np.sqrt(np.mean([run.std_error**2 for run in runs]))
    found = np.sqrt(np.var([run.bound for run in runs], axis=0, ddof=1).mean())
    assert found < most
    assert said == pytest.approx(found, rel=0.15)


def test_a_model_that_cannot_be_sampled_has_a_bound_where_it_is_sound():
    class Sound(BaseScoreModel):
        """Of no use beyond the unit ball, where all of the rows and their noise are not."""

        n_features = 2

        def _denoise(self, x, sigma):
            inside = (x**2).sum(axis=1, keepdims=True) < 1e5
            return np.where(inside, PLANE._denoise(x, sigma) * 1.5, np.nan)

    x = PLANE.sample(50, random_state=0)
    far_field = GaussianModel(1e3 * np.ones(2), PLANE.gaussian().covariance.to_matrix())
    found = denoising_bound(Sound(), x, far_field)
    assert np.isfinite(found.bound).all()


def test_pairs_are_those_that_were_asked_for():
    rows = []

    class Watched(BaseScoreModel):
        n_features = 2

        def _denoise(self, x, sigma):
            rows.append(len(x))
            return PLANE._denoise(x, sigma)

    x = PLANE.sample(400, random_state=0)
    denoising_bound(Watched(), x, PLANE.gaussian(), n_noise=10)
    few = sum(m for m in rows if m < 400)  # of the pilot
    nodes = sum(m >= 400 for m in rows)
    assert 0.9 * 20 * 400 * nodes < sum(rows) - few <= 20 * 400 * nodes
    assert few < 0.03 * sum(rows)


def test_three_pairs_leave_the_mean_and_know_their_error():
    law = MixtureModel([0.5, 0.5], [[-1.0, 0.0, 0.0], [1.0, 0.0, 0.0]], [0.1, 0.1])
    x, gaussian = law.sample(100, random_state=0), law.gaussian()
    exact = denoising_bound(law, x, gaussian, n_noise=256, random_state=99)
    runs = [denoising_bound(law, x, gaussian, n_noise=3, random_state=s) for s in range(40)]
    scores = np.array([run.score for run in runs])
    said = np.sqrt(np.mean([run.score_std_error**2 for run in runs]))
    # four standard errors of the mean of 40 runs and of 256 pairs
    error = np.hypot(scores.std(ddof=1) / np.sqrt(40), exact.score_std_error)
    assert abs(scores.mean() - exact.score) < 4 * error
    # the spread of 40 draws is known to 11 %; with free slopes it was 4 nats, not 0.03
    assert 0.6 < scores.std(ddof=1) / said < 1.5 and said < 0.1


def test_what_is_not_finite_is_named():
    class Broken(BaseScoreModel):
        n_features = 2

        def _denoise(self, x, sigma):
            return x * (np.nan if sigma > 1 else 1.0)

    with pytest.raises(FloatingPointError, match="Broken denoises to values that are not finite"):
        denoising_bound(Broken(), np.zeros((2, 2)), PLANE.gaussian())
    with pytest.raises(ValueError, match="n_noise must be an integer of at least 3; got 2"):
        denoising_bound(PLANE, np.zeros((2, 2)), PLANE.gaussian(), n_noise=2)
    wrong = {
        "0 sample": np.zeros((0, 2)),
        "1D array": np.zeros(2),
        "x must have 2 columns; got 3": np.zeros((4, 3)),
        "x contains NaN": np.full((4, 2), np.nan),
    }
    for message, x in wrong.items():
        with pytest.raises(ValueError, match=message):
            denoising_bound(PLANE, x, PLANE.gaussian())


def test_pooled_models_have_no_other_likelihood_that_is_bounded():
    near, far = GaussianModel([0.0], 1.0), GaussianModel([0.0], 1.5)
    model = StackedModel([near, far], levels=[0.1, 10.0], weights=[[1, 0], [0, 1]])
    x = near.sample(2000, random_state=0)
    found = denoising_bound(model, x, near)
    assert found.score < near.log_prob(x).mean() + 3 * found.score_std_error


def test_constant_columns_leave_no_trace():
    # an eigendecomposition gives a column without variance the rounding of the others: the levels
    # must not go down there
    X = load_digits().data[:300]
    far_field = GaussianModel(X.mean(0), np.cov(X.T, bias=True))
    assert (X.std(0) == 0).any()
    spread = X.std(0)[X.std(0) > 0].min()
    assert noise_range(far_field.covariance.diagonal).sigma_min == pytest.approx(0.002 * spread)
