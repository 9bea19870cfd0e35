"""Two circles in many columns: what exact blind fields say of them, and where they lead.

The numbers are those of an independent computation with the same fields; the circles are those of
the toy example of Sahraee-Ardakan, Delbracio and Milanfar (2026), figure 5.
"""

import numpy as np
import pytest
from scipy.interpolate import RectBivariateSpline
from scipy.special import i0e, i1e
from scipy.stats import chi

from skdiffusion.geometry import MarginalEnergy, UniformPrior
from skdiffusion.models import BaseScoreModel, BlindModel, EmpiricalModel
from skdiffusion.samplers import DDPMSampler, EulerSampler, run_sampler
from skdiffusion.schedules import check_schedule
from skdiffusion.targets import target_coefficients, target_gains

RADII, WIDTH = np.array([[1.0], [0.5]]), 0.02
FIRST = {"flow_matching": 0.999, "vp": 1.0}


class Circles(BaseScoreModel):
    """The law of ``make_embedded_circles`` in the first two columns, by SciPy's Bessel functions.

    A tenth of the time of those that have a gradient.
    """

    has_log_prob = True

    def __init__(self, d):
        self.n_features = d

    def draw(self, n, rng):
        angle, radius = rng.uniform(0, 2 * np.pi, n), RADII[np.arange(n) % 2, 0]
        x = np.zeros((n, self.n_features))
        x[:, :2] = radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)
        x[:, :2] += WIDTH * rng.standard_normal((n, 2))
        return x

    def _circles(self, x, sigma):
        """Noise left in the plane, radius, log-densities of both circles and their means."""
        variance, rho = WIDTH**2 + sigma**2, np.linalg.norm(x[:, :2], axis=1)
        kappa = rho * RADII / variance
        log = np.log(i0e(kappa)) - (rho - RADII) ** 2 / (2 * variance)
        return variance, rho, log, RADII * i1e(kappa) / i0e(kappa)

    def _log_prob(self, x, sigma):
        sigma, empty = np.broadcast_to(np.ravel(sigma), len(x)), self.n_features - 2
        variance, _, log, _ = self._circles(x, sigma)
        across = (x[:, 2:] ** 2).sum(axis=1) / (2 * sigma**2) + empty * np.log(sigma)
        constant = np.log(4 * np.pi) + empty * np.log(2 * np.pi) / 2
        return np.logaddexp(*log) - np.log(variance) - across - constant

    def _denoise(self, x, sigma):
        variance, rho, log, means = self._circles(x, np.broadcast_to(np.ravel(sigma), len(x)))
        mean = (np.exp(log - np.logaddexp(*log)) * means).sum(axis=0)
        mean = mean + WIDTH**2 / variance * (rho - mean)
        denoised = np.zeros_like(x)
        denoised[:, :2] = x[:, :2] * (mean / np.maximum(rho, 1e-300))[:, None]
        return denoised


def energy_of(law, schedule, **options):
    made = MarginalEnergy(law, schedule=schedule, standardize=False, **options)
    return made.fit(np.zeros((2, law.n_features)))


def parts(x):
    """Distances from the axis of the circles and from their plane."""
    return np.linalg.norm(x[:, :2], axis=1), np.linalg.norm(x[:, 2:], axis=1)


def tabulated(est, target, d):
    """The blind field, which depends on two distances, by splines between tabulated ones."""
    rho = np.r_[np.linspace(0, 0.3, 5), np.linspace(0.35, 1.15, 33), np.linspace(1.3, 6, 8)]
    # fields change over 1/sqrt(2d) of the logarithm
    away = np.geomspace(0.005, 12, max(4, int(6 * np.sqrt(2 * d)) if d > 2 else 0))
    u = np.zeros((len(rho), len(away), max(d, 3)))
    u[..., 0], u[..., 2] = rho[:, None], away
    field = est.blind_field(u[..., :d].reshape(-1, d), target)
    field = np.pad(field, ((0, 0), (0, 3)))[:, [0, 2]].reshape(len(rho), len(away), 2)
    along, across = (RectBivariateSpline(rho, np.log(away), field[..., k]) for k in (0, 1))

    def spline(u):
        r, h = parts(u)
        at = np.clip(r, 0, 6), np.log(np.clip(h, away[0], away[-1]))
        out = u.copy()
        out[:, :2] *= (along(*at, grid=False) / np.maximum(r, 1e-12))[:, None]
        out[:, 2:] *= (across(*at, grid=False) / np.maximum(h, 1e-12))[:, None]
        return out

    return BlindModel(spline, d, est.schedule_, target)


@pytest.mark.filterwarnings("ignore:a model that is not told")  # it is what is measured
@pytest.mark.parametrize(
    "schedule, target, sampler, d, distance, far, off",
    [
        ("flow_matching", "velocity", EulerSampler, 2, 0.0905, 0.413, 0),
        ("flow_matching", "velocity", EulerSampler, 8, 0.0813, 0.251, 0.20),
        ("flow_matching", "data", EulerSampler, 8, 0.0129, 0.001, 0),
        ("vp", "noise", DDPMSampler, 2, 0.1387, 0.581, 0),
        ("vp", "noise", DDPMSampler, 8, 0.0893, 0.356, 0.36),
        ("vp", "noise", EulerSampler, 2, 0.1612, 0.727, 0),
        ("vp", "noise", EulerSampler, 8, 0.0513, 0.208, 0.32),
        ("vp", "noise", EulerSampler, 32, 0.0454, 0.181, 0.52),
        ("vp", "data", EulerSampler, 2, 0.4638, 1.0, 0),
        ("vp", "data", EulerSampler, 8, 0.0124, 0.003, 0),
    ],
)
def test_blind_samples(schedule, target, sampler, d, distance, far, off):
    est = energy_of(Circles(d), schedule, n_nodes=64)
    model, rng = tabulated(est, target, d), np.random.default_rng(1)
    levels = est.schedule_.noise_level(np.linspace(FIRST[schedule], 1e-3, 100))
    start = levels[0] * rng.standard_normal((1000, d))
    x = run_sampler(sampler(clock="schedule"), model, start, [*levels, 0.0], random_state=2)
    rho, away = parts(x)
    gap = np.abs(rho - RADII).min(axis=0)
    # what another start and the digits of the table leave open
    assert gap.mean() == pytest.approx(distance, abs=0.01)
    assert (gap > 0.1).mean() == pytest.approx(far, abs=0.05)
    assert away.mean() == pytest.approx(off, abs=0.02)


TIMES = (0.003, 0.1, 0.6, 0.9, 0.99)


@pytest.mark.parametrize(
    "schedule, target, errors, drifts, slack",
    [
        (
            "flow_matching",
            "noise",
            [0.708, 0.715, 0.692, 0.513, 0.643],
            [0.710, 0.794, 1.730, 5.13, 64.3],
            0.1,
        ),
        ("flow_matching", "velocity", [0.708, 0.716, 0.689, 0.505, 0.632], None, 0.1),
        # in the plane, where less of the noise is at even quantiles
        ("flow_matching", "data", None, [0.117, 0.081, 0.160, 0.066, 0.064], 0.25),
        ("vp", "noise", None, [2.83, 2.32, 1.68, 2.68, 2.94], 0.1),
    ],
)
def test_drift_errors_of_blind_fields(schedule, target, errors, drifts, slack):
    d, n, rng = 32, 100, np.random.default_rng(0)
    law, path = Circles(d), check_schedule(schedule)
    est = energy_of(law, schedule, prior=UniformPrior(1e-6, 0.9999), n_nodes=64)
    found = []
    for t in TIMES:
        a, b, rates = path.alpha(t), path.sigma(t), path.rates(t)
        noise = rng.standard_normal((n, d))
        # lengths off the plane, which decide, at even quantiles: less is left to chance
        length = chi(d - 2).ppf((rng.permutation(n) + 0.5) / n)
        noise[:, 2:] *= (length / np.linalg.norm(noise[:, 2:], axis=1))[:, None]
        u = a * law.draw(n, rng) + b * noise
        data = law.denoise(u / a, b / a)
        c, e = target_coefficients(target, a, b, rates)
        told = c * data + e * (u - a * data) / b
        rms = np.sqrt(((est.blind_field(u, target) - told) ** 2).sum(axis=1).mean())
        found.append((rms, abs(target_gains(target, a, b, rates).sampler) * rms))
    for values, expected in zip(np.transpose(found), (errors, drifts), strict=True):
        if expected is not None:
            np.testing.assert_allclose(values, expected, rtol=slack)


@pytest.mark.filterwarnings("ignore:a model that is not told")  # it is what is measured
@pytest.mark.parametrize("target, low, high", [("data", 0, 1e-3), ("velocity", 0.1, 1.0)])
def test_of_a_finite_set_data_are_remembered_and_velocities_leave_noise(target, low, high):
    d, rng = 128, np.random.default_rng(0)
    points = np.zeros((120, d))
    angle = 2 * np.pi * np.arange(120) / 60
    points[:, :2] = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    points[60:] /= 2
    law = EmpiricalModel(points)
    est = energy_of(law, "flow_matching", prior=UniformPrior(1e-4, 0.9999), n_nodes=32)
    levels = est.schedule_.noise_level(np.linspace(0.999, 1e-3, 10))
    start = levels[0] * rng.standard_normal((10, d))
    sampler = EulerSampler(clock="schedule")
    x = run_sampler(sampler, est.blind_model(target), start, [*levels, 0.0])
    nearest = np.linalg.norm(x[:, None] - points, axis=2).min(axis=1)
    assert low <= np.median(nearest) <= nearest.max() < high
