"""MarginalEnergy: golden values, exact identities, and what it refuses.

The golden values are integrals over t of closed forms, found with ``scipy.integrate.quad`` to nine
digits; 1e-6 leaves room for the quadrature here, whose own goal is 1e-6 on half of its nodes.
"""

import math

import numpy as np
import pytest
from scipy.special import digamma, gamma, gammaincc, i0e, i1e
from sklearn.frozen import FrozenEstimator
from sklearn.utils.estimator_checks import parametrize_with_checks

from skdiffusion import EmpiricalScore, GaussianScore, NeuralScore
from skdiffusion.datasets import make_embedded_circles, make_sphere
from skdiffusion.geometry import (
    CustomPrior,
    LogNormalPrior,
    MarginalEnergy,
    PowerPrior,
    UniformPrior,
)
from skdiffusion.models import (
    AffineModel,
    BaseScoreModel,
    EmpiricalModel,
    GaussianModel,
    MixtureModel,
)
from skdiffusion.samplers import EulerSampler, run_sampler
from skdiffusion.schedules import EDMSchedule, VPSchedule, check_schedule
from skdiffusion.targets import TARGETS

TWO_POINTS = EmpiricalModel(np.array([[1.0, 0.0], [-1.0, 0.0]]))
MIXTURE = MixtureModel([0.7, 0.3], [[-1.0, 0.0], [1.0, 0.0]], [0.04, 0.04])
ROUND = GaussianModel([0.0, 0.0], 0.25)
SIMPLEX = EmpiricalModel(np.eye(3))
GOLDEN = 1e-6
rng = np.random.default_rng(0)


def energy_of(model, schedule="flow_matching", prior="uniform", **options):
    X = np.zeros((2, model.n_features))
    made = MarginalEnergy(model, schedule=schedule, prior=prior, standardize=False, **options)
    return made.fit(X)


@pytest.mark.foreign_state
@parametrize_with_checks([MarginalEnergy(GaussianScore(), n_nodes=16)])
def test_scikit_learn_checks(estimator, check):
    check(estimator)


CASES = [
    (
        ("flow_matching", TWO_POINTS, [0.5, 0.2]),
        1.329453897,
        [-1.326315218, 1.645461933],
        {
            "noise": [-0.163262245, 0.515185347],
            "data": [0.702916190, 0],
            "velocity": [-0.866178435, 0.515185347],
            "equilibrium": [-0.202916190, 0.2],
        },
        {"time": 0.485741694, "std": 0.223637678},
    ),
    (
        ("flow_matching", TWO_POINTS, [0.9, 0.1]),
        0.218544691,
        [-1.079255034, 9.296643825],
        {
            "noise": [0.193946396, 0.819705315],
            "data": [0.952323232, 0],
            "velocity": [-0.758376837, 0.819705315],
            "equilibrium": [-0.052323232, 0.1],
        },
        {"time": 0.208577436, "std": 0.193231133},
    ),
    (
        ("flow_matching", MIXTURE, [0.2, -0.4]),
        1.945468861,
        [0.266884501, -1.288315515],
        {
            "noise": [0.256821153, -0.661679993],
            "data": [-0.123406652, -0.025065421],
            "velocity": [0.380227805, -0.636614572],
            "equilibrium": [0.323406652, -0.374934579],
        },
        {"time": 0.638367359, "std": 0.193218952},
    ),
    (
        ("flow_matching", ROUND, [1.0, 0.0]),
        2.366779998,
        [2.891570707, 0],
        {
            "noise": [1.218035178, 0],
            "data": [0.418383882, 0],
            "velocity": [0.799651295, 0],
            "equilibrium": [0.581616118, 0],
        },
        {"time": 0.546794849, "std": 0.279106034},
    ),
    (
        ("flow_matching", SIMPLEX, [0.4, 0.3, 0.2]),
        1.721684435,
        [0.167007450, 0.859980041, 0.689567090],
        {
            "noise": [0.201434326, 0.326718571, 0.236613798],
            "data": [0.464708273, 0.306702773, 0.228588954],
            "velocity": [-0.263273946, 0.020015798, 0.008024844],
            "equilibrium": [-0.064708273, -0.006702773, -0.028588954],
        },
        {"time": 0.491130219, "std": 0.188117640},
    ),
    (
        ("cosine", TWO_POINTS, [0.5, 0.2]),
        1.859672051,
        [-1.067511629, 0.789866654],
        {
            "noise": [-0.227684403, 0.355356505],
            "data": [0.591749979, 0],
            "velocity": [-1.003978664, 0.415290432],
        },
        {"time": 0.520257589, "sigma": 0.674089835},
    ),
    (
        ("cosine", TWO_POINTS, [0.9, 0.1]),
        0.751375551,
        [-4.468786614, 5.044176073],
        {
            "noise": [-0.356436645, 0.576396829],
            "data": [0.923851728, 0],
            "velocity": [-1.042330259, 0.875482779],
        },
        {"time": 0.226597966, "sigma": 0.316720189},
    ),
    (
        ("cosine", ROUND, [1.0, 0.0]),
        2.258760537,
        [1.973669630, 0],
        {
            "noise": [0.985413563, 0],
            "data": [0.378127538, 0],
            "velocity": [0.717775101, 0],
        },
        {"time": 0.500496584, "sigma": 0.641683507},
    ),
]


@pytest.mark.parametrize("case, energy, gradient, fields, level", CASES)
def test_golden_values(case, energy, gradient, fields, level):
    schedule, model, u = case
    est, u = energy_of(model, schedule), np.array([u])
    np.testing.assert_allclose(est.energy(u), energy, atol=GOLDEN)
    np.testing.assert_allclose(est.gradient(u)[0], gradient, atol=GOLDEN)
    for target, value in fields.items():
        np.testing.assert_allclose(est.blind_field(u, target)[0], value, atol=GOLDEN)
    found = est.noise_posterior(u)
    np.testing.assert_allclose(found.weights.sum(), 1, rtol=1e-12)
    for name, value in level.items():
        got = found.std("time") if name == "std" else found.mean(name)
        np.testing.assert_allclose(got, value, atol=GOLDEN)


@pytest.mark.parametrize(
    "d, t_max, r, energy, gradient, noise",
    [
        (3, 1, 0.2, -0.442060, 10.2000, 1.275945),
        (8, 2, 1.5, 7.949887, 4.670243, 2.554783),
        (5, 1, 3.0, 11.09122, 3.78788, 3.35579),
        (1000, 1, 0.7, None, None, None),
        (5000, 1, 0.7, None, None, None),
    ],
)
def test_one_point_in_any_dimension(d, t_max, r, energy, gradient, noise):
    # all noise levels up to T alike: incomplete gamma functions, K = d - 1
    prior = PowerPrior(0.0, 1e-9, t_max)
    est = energy_of(EmpiricalModel(np.zeros((1, d))), "edm", prior)
    u = np.zeros((1, d))
    u[0, -1] = r
    found = est.noise_posterior(u)
    z, k = r**2 / (2 * t_max**2), d - 1
    if energy is None:
        # the upper incomplete gamma ratios, from their logarithm-safe regularised forms
        ratio = gammaincc(k / 2 + 1, z) / gammaincc(k / 2, z) * (k / 2)
        gradient = 2 / r * ratio
        np.testing.assert_allclose(found.std("log_level"), 1 / math.sqrt(2 * k), rtol=1 / k)
    else:
        upper = gammaincc(k / 2, z) * gamma(k / 2)
        exact = -math.log((2 * math.pi) ** (-d / 2) * (r**2 / 2) ** (-k / 2) * upper / 2 / t_max)
        np.testing.assert_allclose(est.energy(u), exact, atol=GOLDEN)
        np.testing.assert_allclose(est.energy(u), energy, atol=3e-5)  # published to 1e-5 or so
        np.testing.assert_allclose(np.abs(est.blind_field(u)).max(), noise, atol=1e-5)
    np.testing.assert_allclose(est.gradient(u)[0, -1], gradient, rtol=1e-5)
    assert found.error.max() < 1e-6


SCHEDULES = ["flow_matching", "cosine", "vp", "sub_vp", "ve", "edm"]


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("model", [TWO_POINTS, MIXTURE, ROUND])
def test_the_gradient_is_that_of_the_energy(schedule, model):
    est, u = energy_of(model, schedule), rng.normal(size=(4, 2))
    h = 1e-5  # central differences: h^2 and 1e-12 / h
    numeric = np.stack(
        [(est.energy(u + h * e) - est.energy(u - h * e)) / (2 * h) for e in np.eye(2)], axis=1
    )
    np.testing.assert_allclose(est.gradient(u), numeric, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("target", TARGETS)
def test_decompositions_add_up_to_the_blind_field(schedule, target):
    prior = "uniform" if schedule in ("vp", "sub_vp", "ve", "edm") else UniformPrior(0.01, 0.95)
    est, u = energy_of(MIXTURE, schedule, prior), rng.normal(size=(4, 2))
    parts, field = est.decompose(u, target), est.blind_field(u, target)
    slack = 1e-9 * (1 + np.abs(parts.natural_gradient).max())  # the terms cancel
    np.testing.assert_allclose(parts.field, field, atol=slack)
    tilted = parts.gain[:, None] * parts.tilted_gradient + parts.drift
    np.testing.assert_allclose(tilted, field, atol=slack)
    h = 1e-5
    numeric = np.stack(
        [
            (est.tilted_energy(u + h * e, target) - est.tilted_energy(u - h * e, target)) / (2 * h)
            for e in np.eye(2)
        ],
        axis=1,
    )
    np.testing.assert_allclose(parts.tilted_gradient, numeric, rtol=1e-4, atol=1e-5)


def test_targets_with_constant_coefficients_are_linear_in_each_other():
    est, u = energy_of(MIXTURE), rng.normal(size=(5, 2))
    noise, data = est.blind_field(u, "noise"), est.blind_field(u, "data")
    np.testing.assert_allclose(est.blind_field(u, "velocity"), noise - data, atol=1e-12)
    np.testing.assert_allclose(est.blind_field(u, "equilibrium"), u - data, atol=1e-12)


def test_a_unit_gaussian_leaves_the_level_open():
    # on the trigonometric path p(u | t) is the same at all times: the posterior is the prior
    est, u = energy_of(GaussianModel(np.zeros(3), 1.0), "cosine"), rng.normal(size=(5, 3))
    expected = 0.5 * (u**2).sum(1) + 1.5 * np.log(2 * np.pi)
    np.testing.assert_allclose(est.energy(u), expected, atol=GOLDEN)
    np.testing.assert_allclose(est.blind_field(u, "noise"), 2 / np.pi * u, atol=GOLDEN)
    np.testing.assert_allclose(est.blind_field(u, "data"), 2 / np.pi * u, atol=GOLDEN)
    np.testing.assert_allclose(est.blind_field(u, "velocity"), 0 * u, atol=GOLDEN)
    # on the straight path it is symmetric about the middle
    est = energy_of(GaussianModel(np.zeros(5), 1.0))
    u = np.eye(5)[:1]
    np.testing.assert_allclose(est.blind_field(u, "velocity"), 0 * u, atol=GOLDEN)
    equilibrium = est.blind_field(np.vstack([u, 3 * u]), "equilibrium")[:, 0]
    np.testing.assert_allclose(equilibrium, [0.16013641, 3 * 0.34479786], atol=GOLDEN)


@pytest.mark.parametrize(
    "schedule, prior, lost",
    [
        ("flow_matching", "uniform", 1),
        ("cosine", "uniform", 1),
        ("vp", "uniform", 2),
        ("ve", "uniform", 0),
        ("edm", PowerPrior(-3.0, 1e-6, 10.0), -2),
    ],
)
@pytest.mark.parametrize("k", [4, 31])
def test_near_the_law_only_the_codimension_counts(schedule, prior, lost, k):
    # points on an axis of k + 1 dimensions would do; a Gaussian line has no curvature at all
    variances = np.r_[1.0, np.zeros(k)]
    if schedule == "vp":
        schedule = VPSchedule(beta_min=0.1, beta_max=20.0)
    est = energy_of(GaussianModel(np.zeros(k + 1), variances), schedule, prior)
    r, degrees = 1e-4, k - lost
    if schedule == "ve":
        r = 0.02  # its lowest level is 0.002
    u = np.zeros((1, k + 1))
    u[0, 1] = r
    chi_mean = math.sqrt(2) * math.exp(math.lgamma((degrees + 1) / 2) - math.lgamma(degrees / 2))
    slack = 0.01  # the law holds for r -> 0 and for levels far from both ends
    np.testing.assert_allclose(est.gradient(u)[0, 1], degrees / r, rtol=slack)
    np.testing.assert_allclose(est.blind_field(u)[0, 1], chi_mean, rtol=slack)
    np.testing.assert_allclose(est.codimension(u), k, rtol=slack)
    parts = est.decompose(u, "noise") if prior != "uniform" or lost == 2 else None
    if parts is not None:  # the correction never vanishes: it is -1/K of the natural gradient
        ratio = parts.transport_correction[0, 1] / parts.natural_gradient[0, 1]
        np.testing.assert_allclose(ratio, -1 / degrees, rtol=2 * slack)


@pytest.mark.parametrize("schedule", ["ve", "flow_matching", "vp", "cosine"])
@pytest.mark.parametrize("prior", [UniformPrior(), PowerPrior(), LogNormalPrior(-1.0, 1.0)])
@pytest.mark.parametrize("noise", [0.01, 0.1, 0.3])
def test_the_codimension_is_read_off_the_noise_on_any_path(schedule, prior, noise):
    # at a point of 60 columns r / b is chi whatever the signal coefficient does; the prior is a
    # power of the noise only nearly, over the e^0.1 that the noise is known to
    est = energy_of(EmpiricalModel(np.zeros((1, 60))), schedule, prior)
    u = np.zeros((1, 60))
    u[0, 0] = noise * math.sqrt(60)
    np.testing.assert_allclose(est.codimension(u), 60, rtol=0.02)


def test_the_well_is_finite_under_a_log_normal_prior():
    p_mean, p_std, d = -1.2, 1.2, 3
    est = energy_of(EmpiricalModel(np.zeros((1, d))), "edm", LogNormalPrior(p_mean, p_std))
    exact = d / 2 * math.log(2 * math.pi) + d * p_mean - d**2 * p_std**2 / 2
    np.testing.assert_allclose(est.energy(np.zeros((1, d))), exact, atol=GOLDEN)


def test_points_on_the_data_are_refused_or_finite():
    with pytest.raises(ValueError, match="row 1 lies on the data"):
        energy_of(TWO_POINTS).energy([[0.3, 0.1], [1.0, 0.0]])
    est = energy_of(TWO_POINTS, prior=UniformPrior(t_min=0.001))
    assert np.isfinite(est.energy([[0.999, 0.0]])).all()
    # a law with density has no well: its energy at its own points is finite
    assert np.isfinite(energy_of(ROUND).energy([[0.0, 0.0]])).all()


def test_points_far_away_are_finite():
    est, u = energy_of(TWO_POINTS), np.array([[1e6, -1e6]])
    for value in (est.energy(u), est.gradient(u), est.blind_field(u, "data")):
        assert np.isfinite(value).all()


@pytest.mark.parametrize("distance", [1e6, 1e8, 1e9, 3e9, 1e12, 1e14])
def test_gradients_far_away_are_those_of_the_widest_level(distance):
    # at u the posterior is at the level of largest variance V, and the gradient is (u - a m) / V;
    # energies of 1e16 and more keep no digit of what one level weighs against another
    u = distance * np.array([[1.0, 0.5]])
    widest = GaussianModel([0.0, 0.0], 1.0)
    cases = [
        (energy_of(widest, "flow_matching"), 1.0),  # at both ends alike
        (energy_of(widest, "cosine"), 1.0),  # at all times alike
        (energy_of(GaussianModel([0.0, 0.0], 4.0), "flow_matching"), 4.0),  # without noise
        (energy_of(widest, "edm", PowerPrior(-1.0, 0.01, 80.0)), 80.0**2 + 1),
        (energy_of(TWO_POINTS, "edm", PowerPrior(-1.0, 0.01, 80.0)), 80.0**2),
    ]
    for est, variance in cases:
        np.testing.assert_allclose(est.gradient(u), u / variance, rtol=1e-4)
        found = est.noise_posterior(u)
        np.testing.assert_allclose(found.weights.sum(axis=1), 1, rtol=1e-12)
        assert abs(est.energy(u)[0] / (0.5 * (u**2).sum() / variance) - 1) < 1e-4
        assert found.error[0] >= np.spacing(est.energy(u)[0])


def test_gains_that_are_infinite_are_refused():
    with pytest.raises(ValueError, match="mean gain of the target 'velocity' is infinite"):
        energy_of(TWO_POINTS).decompose([[0.5, 0.2]], "velocity")
    assert np.isfinite(energy_of(TWO_POINTS).decompose([[0.5, 0.2]], "noise").gain).all()


def test_standardised_energies_follow_their_rows():
    # units, origin and axes of X are the user's: E changes by the log-volume alone
    X = rng.normal(size=(30, 3))
    turn = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    plain = MarginalEnergy(EmpiricalModel(X)).fit(X)
    moved = AffineModel(EmpiricalModel(X), shift=[50.0, -3.0, 7.0], scale=20.0, rotation=turn)
    to = lambda x: np.array([50.0, -3.0, 7.0]) + 20 * x @ turn.T  # noqa: E731
    other = MarginalEnergy(moved).fit(to(X))
    u = rng.normal(size=(6, 3))
    np.testing.assert_allclose(other.energy(to(u)), plain.energy(u) + 3 * np.log(20), atol=1e-8)
    np.testing.assert_allclose(other.gradient(to(u)) @ turn * 20, plain.gradient(u), rtol=1e-6)
    np.testing.assert_allclose(
        other.blind_field(to(u), "data"), to(plain.blind_field(u, "data")), rtol=1e-7
    )
    np.testing.assert_allclose(
        other.predict_noise_level(to(u)), 20 * plain.predict_noise_level(u), rtol=1e-7
    )


def test_a_level_that_is_known_to_be_near_another():
    # on the trigonometric path a unit Gaussian is the same at all levels: a prior that is flat in
    # the logarithm leaves the level where it is said to be, and in the middle if nothing is said
    est = energy_of(GaussianModel(np.zeros(3), 1.0), "cosine", PowerPrior(-1.0, 1e-5, 1e5))
    u, near = rng.normal(size=(4, 3)), np.array([0.02, 0.5, 1.0, 30.0])
    np.testing.assert_allclose(est.predict_noise_level(u), 1, rtol=1e-6)
    np.testing.assert_allclose(est.predict_noise_level(u, near=near), near, rtol=1e-6)
    # rows that show their level go by both, in proportion to what each is worth: the prior of one
    # e-fold as well as a row of variance 1 / 2K, up to the skewness of its logarithm
    est = energy_of(EmpiricalModel(np.zeros((1, 300))), "edm", PowerPrior(-1.0, 1e-4, 1e4))
    x = 0.3 * rng.normal(size=(4, 300))
    own, told = est.predict_noise_level(x), est.predict_noise_level(x, near=0.3 * np.e)
    share = np.log(told / own) / np.log(0.3 * np.e / own)
    np.testing.assert_allclose(share, 1 / (1 + 2 * 300), rtol=0.02)
    for wrong, words in [(-1.0, "got -1"), ("a", "got 'a'"), ([0.1, 0.2], r"shape \(4,\)")]:
        with pytest.raises(ValueError, match=f"near must be .*{words}"):
            est.predict_noise_level(x, near=wrong)


@pytest.mark.parametrize("schedule", ["flow_matching", "vp"])
@pytest.mark.parametrize("d", [8, 128])
def test_blind_fields_of_two_circles(schedule, d):
    # sums over 20000 levels, with nothing of the package but the schedule; Rice's law by Bessel
    # functions. In 128 columns the posterior is a sixteenth of an e-fold wide
    X, law, plane = make_embedded_circles(8, d, random_state=0, return_plane=True)
    est, path = energy_of(law, schedule, UniformPrior(1e-6, 0.9999)), check_schedule(schedule)
    times = rng.uniform(0.02, 0.99, (8, 1))
    u = path.alpha(times) * X + path.sigma(times) * rng.normal(size=X.shape)
    t = np.geomspace(1e-6, 0.9999, 20000)
    a, b, steps = path.alpha(t), path.sigma(t), np.gradient(t)
    steps[[0, -1]] /= 2
    for point, noise, data in zip(u, est.blind_field(u), est.blind_field(u, "data"), strict=True):
        inside = point @ plane
        rho, radii = np.linalg.norm(inside), np.array([[1.0], [0.5]])
        away = np.linalg.norm(point - plane @ inside)
        spread = (0.02 * a) ** 2 + b**2
        kappa = a * rho * radii / spread
        log = np.log(i0e(kappa)) - (rho - a * radii) ** 2 / (2 * spread)
        mass = np.logaddexp(*log) - np.log(spread) - away**2 / (2 * b**2) - (d - 2) * np.log(b)
        weights = np.exp(mass - mass.max()) * steps
        mean = (np.exp(log - np.logaddexp(*log)) * radii * i1e(kappa) / i0e(kappa)).sum(axis=0)
        pulls = [mean + a * 0.02**2 * (rho - a * mean) / spread, b * (rho - a * mean) / spread]
        along = [(weights * pull).sum() / weights.sum() for pull in pulls]
        np.testing.assert_allclose(plane.T @ data @ inside / rho, along[0], atol=1e-5)
        np.testing.assert_allclose(plane.T @ noise @ inside / rho, along[1], atol=1e-5)
        across = np.linalg.norm(noise - plane @ (plane.T @ noise))
        np.testing.assert_allclose(across, (weights * away / b).sum() / weights.sum(), rtol=1e-5)


def test_the_posterior_knows_the_level_of_typical_points():
    # at codimension k the logarithm of the level is known to 1 / sqrt(2 K); the quantiles hold it
    X, model = make_sphere(500, 1, 102, rotate=False, random_state=0)
    est = energy_of(model, "ve", UniformPrior(0.0, 1.0))
    levels = np.exp(rng.uniform(np.log(0.02), np.log(0.3), len(X)))
    noised = X + levels[:, None] * rng.normal(size=X.shape)
    found = est.noise_posterior(noised)
    np.testing.assert_allclose(found.std().mean(), 1 / math.sqrt(200), rtol=0.05)
    low, high = found.quantile([0.05, 0.95]).T
    inside = ((levels > low) & (levels < high)).mean()
    # the prior is the law the levels were drawn from, up to its ends: 90%, three standard errors
    assert abs(inside - 0.9) < 3 * math.sqrt(0.09 / len(X))
    bias = np.log(est.predict_noise_level(noised) / levels)
    assert abs(bias.mean()) < 4 * bias.std() / math.sqrt(len(X))


@pytest.mark.parametrize("k, width", [(10, 0.313), (100, 0.0728), (1000, 0.0224), (3072, 0.01277)])
def test_the_level_is_as_uncertain_as_the_codimension_leaves_it(k, width):
    # all levels alike: r / b is chi of K = k - 1 degrees, and r = sigma sqrt(k) the typical point
    est = energy_of(EmpiricalModel(np.zeros((1, k))), "edm", PowerPrior(0.0, 1e-9, 1e3))
    u = np.zeros((1, k))
    u[0, 0] = 0.3 * math.sqrt(k)
    found = est.noise_posterior(u)
    mean = 0.3 * math.sqrt(k / 2) * math.exp(math.lgamma(k / 2 - 1) - math.lgamma((k - 1) / 2))
    np.testing.assert_allclose(found.mean("level"), mean, rtol=GOLDEN)
    # three or four digits are printed
    np.testing.assert_allclose(found.std("level") / 0.3, width, rtol=2e-3)


def test_of_many_points_the_nearest_one_tells_the_level():
    # fifty points in 200 columns, twenty apart, and noise of a length that makes the mean .3012
    X = np.random.default_rng(0).standard_normal((50, 200))
    noise = np.random.default_rng(1).standard_normal(X.shape)
    length = 0.3012 * math.sqrt(2) * math.exp(math.lgamma(99.5) - math.lgamma(99))
    noise *= length / np.linalg.norm(noise, axis=1, keepdims=True)
    est = energy_of(EmpiricalModel(X), "edm", PowerPrior(0.0, 1e-9, 1e3))
    found = est.noise_posterior(X + noise)
    np.testing.assert_allclose(found.mean("level"), 0.3012, rtol=GOLDEN)
    np.testing.assert_allclose(found.std("level"), 0.01518, atol=5e-6)  # as it is printed


@pytest.mark.parametrize("target, share", [("noise", 1), ("equilibrium", 2)])
def test_the_transport_correction_is_a_share_of_the_gradient(target, share):
    # at any distance: -1/K or -2/K of it, K = 30, of a point in 31 columns
    est = energy_of(EmpiricalModel(np.zeros((1, 31))), prior=UniformPrior(t_max=0.9))
    parts = est.decompose([[1e-3] + 30 * [0.0], [1e-6] + 30 * [0.0]], target)
    ratio = parts.transport_correction[:, 0] / parts.natural_gradient[:, 0]
    # (1 - t)^-1 in the gain of equilibrium matching leaves a term of the order of the distance
    np.testing.assert_allclose(ratio, -share / 30, rtol=1e-3)


@pytest.mark.parametrize("along, speed", [(0.0, 2.127692), (1.5, 1.540373)])
def test_the_speed_at_a_point_is_a_ratio_of_moments(along, speed):
    # straight path, one point x in six columns, from the direction n with n.x = along
    x = np.array([[along, 0.7, 0.0, 0.0, 0.0, 0.0]])
    u = x + 1e-6 * np.eye(6)[:1]
    found = energy_of(EmpiricalModel(x)).blind_field(u, "velocity")
    # (u - x) / t: its part along n; of the order of the distance is left out
    assert found[0, 0] == pytest.approx(speed, abs=1e-5)


@pytest.mark.parametrize(
    "named, written",
    [
        (PowerPrior(-2.0, 0.01, 10.0), lambda s: -2 * np.log(s)),
        (PowerPrior(-1.0, 0.01, 10.0), lambda s: -np.log(s) + 7),
    ],
)
def test_a_custom_prior_is_normalised(named, written):
    u = rng.normal(size=(3, 2))
    one = energy_of(MIXTURE, "edm", named).energy(u)
    other = energy_of(MIXTURE, "edm", CustomPrior(written, 0.01, 10.0)).energy(u)
    np.testing.assert_allclose(one, other, atol=1e-9)


@pytest.mark.parametrize(
    "written, message",
    [
        (3.0, "must be a function of an array of levels; got 3.0"),
        (lambda level: np.nan * level, "must return numbers, .* the highest is nan"),
        (lambda level: np.full_like(level, -np.inf), "but not everywhere from 0.01 to 10"),
    ],
)
def test_a_custom_prior_that_is_no_density_is_refused(written, message):
    est = energy_of(MIXTURE, "edm", CustomPrior(written, 0.01, 10.0))
    with pytest.raises(ValueError, match=message):
        est.energy([[0.1, 0.0]])


def test_priors_integrate_to_one():
    # of a law without noise dependence the energy is that of the law: any mass lost would show
    for prior in (UniformPrior(0.1, 0.7), PowerPrior(0.5, 0.1, 3.0), LogNormalPrior(0.0, 0.5)):
        est = energy_of(GaussianModel(np.zeros(2), 1.0), "cosine", prior)
        expected = 0.5 + np.log(2 * np.pi)
        np.testing.assert_allclose(est.energy([[1.0, 0.0]]), expected, atol=GOLDEN)


def test_blind_models_answer_for_the_level_they_believe_in():
    est = energy_of(EmpiricalModel(np.zeros((1, 200))), prior=UniformPrior(1e-4, 0.999))
    x = 0.5 * rng.normal(size=(20, 200))
    model = est.blind_model("noise")
    level = model.noise_level(x)
    np.testing.assert_allclose(level, np.linalg.norm(x, axis=1) / math.sqrt(200), rtol=0.02)
    # asked at the level the point has, it finds the point the data are: 1/(4K) of the distance
    assert np.abs(model.denoise(x, level)).max() < 0.02
    # asked at half of it, it removes half of the noise
    np.testing.assert_allclose(model.denoise(x, level / 2), x / 2, atol=0.03)


def test_points_of_the_path_have_the_level_that_their_field_believes_in():
    # a point at zero: r/b is chi of K = d - 1, on the straight path uniform in b from zero on
    d = 12
    est = energy_of(EmpiricalModel(np.zeros((1, d))))
    model, x = est.blind_model("noise"), 0.002 * rng.normal(size=(20, d))
    believed = np.full(20, 0.05)
    moved, level = model.at_own_level(x, believed)
    u = x / 1.05
    log_noise = np.log(np.linalg.norm(u, axis=1)) - (digamma((d - 1) / 2) + np.log(2)) / 2
    np.testing.assert_allclose(np.log(level), log_noise, atol=0.01)  # 1 / E[a] is left out
    # the point of the path is the same as before
    np.testing.assert_allclose(moved / (1 + level[:, None]), u, rtol=1e-12)


def test_all_rows_arrive_on_the_clock_of_the_field():
    # two points in eight columns: rows that settle between them believe in a high level, and were
    # left there by a clock that only knew the schedule's steps
    far = np.zeros((2, 8))
    far[:, 0] = 1, -1
    levels = [*np.geomspace(99.0, 1e-3, 30), 0.0]
    x = levels[0] * np.random.default_rng(0).standard_normal((60, 8))
    model = energy_of(EmpiricalModel(far), prior=UniformPrior(1e-6, 0.999999), n_nodes=32)
    for target in ("velocity", "noise"):
        found = run_sampler(EulerSampler(), model.blind_model(target), x, levels)
        assert np.abs(np.abs(found[:, 0]) - 1).max() < 1e-3
        np.testing.assert_allclose(found[:, 1:], 0, atol=1e-3)


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: MarginalEnergy(schedule="wrong"), "Unknown schedule 'wrong'"),
        (lambda: MarginalEnergy(prior="wrong"), "Unknown prior 'wrong'"),
        (lambda: MarginalEnergy(prior=UniformPrior(0.5, 0.2)), "t_min must lie below t_max"),
        (lambda: MarginalEnergy(n_nodes=9), "n_nodes must be even"),
        (lambda: MarginalEnergy(GaussianModel([0.0], 1.0)), "has 1 columns, but X has 2"),
        (
            lambda: MarginalEnergy(AffineModel(ROUND, scale=[1.0, 2.0])),
            "one scale per column",
        ),
    ],
)
def test_wrong_parameters_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make().fit(rng.normal(size=(10, 2)))


def test_unknown_targets_and_quantiles_are_refused():
    est = energy_of(ROUND)
    with pytest.raises(ValueError, match="Unknown target 'nose'"):
        est.blind_field([[1.0, 0.0]], "nose")
    with pytest.raises(ValueError, match="q must lie between 0 and 1"):
        est.noise_posterior([[1.0, 0.0]]).quantile(1.5)


def test_rows_that_are_frames_and_frozen_models():
    pandas = pytest.importorskip("pandas")
    X = pandas.DataFrame(rng.normal(size=(40, 2)), columns=["a", "b"])
    fitted = GaussianScore().fit(X)
    est = MarginalEnergy(FrozenEstimator(fitted)).set_output(transform="pandas").fit(X)
    table = est.transform(X)
    assert list(table.columns) == ["energy", "log_level_mean", "log_level_std"]
    np.testing.assert_allclose(table["energy"], est.energy(X))
    assert est.model_ is fitted.model_


def test_rows_alone_and_in_a_batch_are_the_same():
    X = rng.normal(size=(20, 2))
    est = MarginalEnergy(EmpiricalScore(0.3)).fit(X)
    alone = np.concatenate([est.energy(X[k : k + 1]) for k in range(3)])
    np.testing.assert_allclose(alone, est.energy(X)[:3], atol=1e-8)


class Silent(BaseScoreModel):
    """A model that denoises and says nothing else."""

    is_differentiable = False

    def __init__(self, model):
        self.model, self.n_features = model, model.n_features

    def _denoise(self, x, sigma):
        return self.model._denoise(x, sigma)


@pytest.mark.parametrize("schedule", ["ve", "vp", "flow_matching", EDMSchedule(0.01, 30.0)])
def test_densities_that_are_not_known_are_integrated(schedule):
    law = MixtureModel([0.4, 0.6], [[-1.0, 0.0, 0.5], [1.0, 0.5, 0.0]], [0.02, 0.1])
    X = law.sample(4000, random_state=0)
    prior = UniformPrior(t_min=0.01) if schedule != "ve" else PowerPrior(-1.0, 0.01, 10.0)
    options = dict(schedule=schedule, prior=prior, standardize=False)
    known = MarginalEnergy(law, **options).fit(X)
    found = MarginalEnergy(Silent(law), **options).fit(X)
    points = np.r_[X[:4], 2.0 * rng.normal(size=(4, 3))]
    # the constant comes from the far field of the rows, whose third cumulant is not zero
    np.testing.assert_allclose(found.energy(points), known.energy(points), atol=0.01)
    # all else does not hang on it: splines of fourth order, an eighth of an e-fold
    for q in (0.05, 0.5, 0.95):
        np.testing.assert_allclose(
            found.noise_posterior(points).quantile(q),
            known.noise_posterior(points).quantile(q),
            rtol=1e-3,
        )
    ours, exact = (est.blind_field(points, "velocity") for est in (found, known))
    np.testing.assert_allclose(ours, exact, atol=1e-3 * np.abs(exact).max())


def test_the_posterior_of_a_network_finds_the_level():
    pytest.importorskip("torch")
    X, _ = make_embedded_circles(500, 16, random_state=0)
    net = NeuralScore(max_epochs=60, module__width=32, random_state=0, early_stopping=False)
    est = MarginalEnergy(net).fit(X)
    noised = X[:50] + 0.1 * rng.normal(size=(50, 16))
    # 14 empty columns: a row knows its level to 1/sqrt(28), fifty to 3%; the network is half-baked
    assert abs(np.log(est.predict_noise_level(noised) / 0.1).mean()) < 0.15


def test_edm_levels_are_its_own():
    # a schedule whose time is the level has no end but its own
    est = energy_of(ROUND, EDMSchedule(sigma_min=0.1, sigma_max=2.0))
    found = est.noise_posterior([[0.3, 0.1]])
    assert np.exp(found.log_levels).min() > 0.1
    assert np.exp(found.log_levels).max() < 2.0
