"""Scores compared where every fraction and error is known."""

import numpy as np
import pytest
from sklearn import config_context
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from skdiffusion import GaussianScore, GMMScore, NeuralScore
from skdiffusion.datasets import make_gaussian_mixture
from skdiffusion.inspection import compare_scores, score_references
from skdiffusion.models import AffineModel, EmpiricalModel, GaussianModel, MixtureModel

TWO = np.array([[-1.0], [1.0]])
POINTS, NORMAL = EmpiricalModel(TWO), GaussianModel([0.0], 1.0)


def test_two_points_at_one_probe():
    # D(0.5, 0.8) = tanh(0.5 / 0.64), of the Gaussian 0.5 / 1.64
    d, g = np.tanh(0.5 / 0.64), 0.5 / 1.64
    probe = np.full((1, 1, 1), 0.5)
    found = compare_scores(POINTS, NORMAL, TWO, sigmas=0.8, probes=probe)
    assert d == pytest.approx(0.6534235881413468, rel=1e-14)
    assert found.distance["reference"][0] == pytest.approx((d - g) ** 2, rel=1e-12)
    assert found.unexplained["reference"][0] == pytest.approx(((d - g) / (d - 0.5)) ** 2, rel=1e-12)
    assert found.error is None and found.gap is None and found.best is None
    options = {"sigmas": 0.8, "probes": probe}
    of_denoiser = compare_scores(POINTS, NORMAL, TWO, target="denoiser", **options)
    assert of_denoiser.explained["reference"][0] == pytest.approx(1 - ((d - g) / d) ** 2, rel=1e-12)
    reverse = compare_scores(POINTS, NORMAL, TWO, reverse=True, **options)
    assert reverse.unexplained["reference"][0] == pytest.approx(((d - g) / (g - 0.5)) ** 2)


@pytest.mark.parametrize(
    "sigma, mmse, excess",
    [
        (2.0, 0.7959457344, 0.0040542656),
        (1.0, 0.4495995092, 0.0504004908),
        (0.5, 0.0685973928, 0.131402607),
    ],
)
def test_errors_and_the_gap_of_a_perfect_model(sigma, mmse, excess):
    found = compare_scores(POINTS, NORMAL, TWO, sigmas=sigma, n_noise=100_000)
    # squared errors scatter by some of their mean: 400,000 draws leave half a percent of it
    assert found.error["model"][0] == pytest.approx(mmse, rel=0.01)
    assert found.error["reference"][0] == pytest.approx(1 - 1 / (1 + sigma**2), rel=0.01)
    # far out the two differ where the points lie far from both only: more scatter
    assert found.distance["reference"][0] == pytest.approx(excess, rel=0.02)
    # the gap is the same by orthogonality, with the cross term's scatter on top: four deviations
    scatter = 2 * np.sqrt(mmse * excess / 400_000)
    assert found.gap["reference"][0] == pytest.approx(excess, abs=4 * scatter)


VARIANCES, SIGMA = np.array([4.0, 1.0, 0.25]), 0.7


def _design(variances):
    """Points with exactly the second moments of N(0, C + sigma^2): one pair per axis."""
    root = np.diag(np.sqrt(len(variances) * (variances + SIGMA**2)))
    return np.concatenate([root, -root])[None]


def test_isotropic_reference_of_a_gaussian():
    d = len(VARIANCES)
    law = GaussianModel(np.zeros(d), VARIANCES)
    round_law = GaussianModel(np.zeros(d), float(VARIANCES.mean()))
    rows = np.concatenate([np.eye(d), -np.eye(d)])
    gain, flat = (v / (v + SIGMA**2) for v in (VARIANCES, VARIANCES.mean()))
    total = VARIANCES + SIGMA**2
    options = {"sigmas": SIGMA, "probes": _design(VARIANCES)}
    found = compare_scores(law, round_law, rows, **options)
    expected = ((gain - flat) ** 2 * total).sum() / ((1 - gain) ** 2 * total).sum()
    assert found.unexplained["reference"][0] == pytest.approx(expected, rel=1e-12)
    by_point = compare_scores(law, round_law, rows, average="per_sample", **options)
    expected = (((gain - flat) / (1 - gain)) ** 2).mean()
    assert by_point.unexplained["reference"][0] == pytest.approx(expected, rel=1e-12)


def test_a_model_explains_itself():
    X, law = make_gaussian_mixture(50, random_state=0)
    found = compare_scores(law, {"itself": law, "rows": EmpiricalModel(X)}, X)
    assert len(found.sigmas) == 16
    assert not found.unexplained["itself"].any() and not found.gap["itself"].any()
    assert (found.explained["rows"] < 1).all()
    assert set(found.excess) == set(found.error) == {"model", "itself", "rows"}
    assert np.min(list(found.excess.values())) == 0


def test_it_is_the_same_in_other_units():
    X, law = make_gaussian_mixture(40, random_state=0)
    gaussian = law.gaussian()
    rotation = np.array([[0.6, -0.8], [0.8, 0.6]])
    points = np.stack([s * np.ones((5, 2)) + X[:5] for s in (0.3, 2.0)])
    here = compare_scores(law, gaussian, X, sigmas=[0.3, 2.0], probes=points, target="denoiser")
    moved = {"shift": [5.0, -3.0], "scale": 4.0, "rotation": rotation}
    there = compare_scores(
        AffineModel(law, **moved),
        AffineModel(gaussian, **moved),
        5 * np.ones(2) * [1, -0.6] + 4 * X @ rotation.T,
        sigmas=[1.2, 8.0],
        probes=[5.0, -3.0] + 4 * points @ rotation.T,
        target="denoiser",
    )
    np.testing.assert_allclose(
        there.unexplained["reference"], here.unexplained["reference"], rtol=1e-10
    )


def test_noise_of_another_size_per_column():
    X, law = make_gaussian_mixture(40, random_state=0)
    gaussian, scale = law.gaussian(), np.array([10.0, 0.1])  # of unit volume
    points = np.stack([X[:7] + 0.5])
    here = compare_scores(law, gaussian, X, sigmas=0.5, probes=points)
    models = [AffineModel(model, scale=scale) for model in (law, gaussian)]
    there = compare_scores(*models, X * scale, sigmas=0.5, probes=points * scale)
    for name in ("unexplained", "distance"):
        np.testing.assert_allclose(
            getattr(there, name)["reference"], getattr(here, name)["reference"], rtol=1e-9
        )
    with pytest.raises(ValueError, match="share one noise_scale"):
        compare_scores(models[0], gaussian, X)
    # their rows, noised: the noise is keyed by the row, so that errors agree up to chance
    noised = compare_scores(*models, X * scale, sigmas=0.5, n_noise=500)
    plain = compare_scores(law, gaussian, X, sigmas=0.5, n_noise=500)
    assert noised.error["model"] == pytest.approx(plain.error["model"], rel=0.03)


def test_batches_make_no_difference():
    X, law = make_gaussian_mixture(3000, random_state=0)
    whole = compare_scores(law, law.gaussian(), X, sigmas=[0.2, 1.0])
    with config_context(working_memory=1):
        parts = compare_scores(law, law.gaussian(), X, sigmas=[0.2, 1.0])
    for name in ("unexplained", "distance", "gap", "gap_std_error"):
        np.testing.assert_allclose(
            getattr(parts, name)["reference"], getattr(whole, name)["reference"], rtol=1e-10
        )


def test_far_field_probes_are_the_gaussian_of_the_rows():
    X, law = make_gaussian_mixture(500, random_state=0)
    gaussian = GaussianModel(X.mean(0), np.cov(X, rowvar=False, bias=True))
    found = compare_scores(gaussian, law, X, sigmas=50.0, probes="far_field", n_noise=20)
    assert found.error is None
    # E|s|^2 = tr (C + sigma^2)^-1 there, so that the fraction is the distance over that
    expected = found.distance["reference"][0] * 2 / 50.0**4 / np.trace(
        np.linalg.inv(gaussian.covariance.to_matrix() + 50.0**2 * np.eye(2))
    )  # fmt: skip
    assert found.unexplained["reference"][0] == pytest.approx(expected, rel=0.05)


class _Labelled(GaussianModel):
    """Knows its row when told so."""

    is_conditional = True

    def _denoise(self, x, sigma, y=None):
        found = super()._denoise(x, sigma)
        return found if y is None else found + 0 * y[:, None] + y[:, None]


def test_labels_reach_conditional_models_only():
    model = _Labelled([0.0], 1.0)
    y = np.array([0.0, 1.0])
    found = compare_scores(model, NORMAL, TWO, y=y, sigmas=1.0, n_noise=3)
    assert found.distance["reference"][0] == pytest.approx(0.5, rel=1e-12)
    with pytest.raises(ValueError, match="one label per row"):
        compare_scores(model, NORMAL, TWO, y=y[:1])


@pytest.fixture(scope="module")
def digits():
    X = load_digits().data / 8 - 1
    train, test = train_test_split(X, train_size=1197, random_state=0)
    return train, test


def test_held_out_digits(digits):
    train, test = digits
    rows = EmpiricalModel(train)
    references = {
        "10": GMMScore(10, random_state=0).fit(train),
        "50": GMMScore(50, random_state=0).fit(train),
        "rows": rows,
    }
    gaussian = GaussianScore("ledoit_wolf").fit(train)
    found = compare_scores(gaussian, references, test, sigmas=[0.1, 1.0])
    order = [found.error[name][1] for name in ("model", "10", "50")]
    assert order == sorted(order, reverse=True)
    others = [found.error[name][0] for name in ("model", "10", "50")]
    assert found.error["rows"][0] > 4 * max(others)
    assert found.error["rows"][0] > 10 * min(others)
    # at the rows it was fitted to, the law of the rows knows the answer
    seen = compare_scores(gaussian, {"rows": rows}, train, sigmas=[0.1])
    assert seen.error["rows"][0] < 1e-3 * found.error["rows"][0]
    assert "rows" in str(found) and "left unexplained" in str(found)


def test_a_network_learns_the_gaussian_part_first():
    law = MixtureModel([0.3, 0.7], [[-1.5, 0.0], [1.0, 0.5]], [0.05, 0.1])
    rows, fresh = (law.sample(500, random_state=seed) for seed in (0, 1))
    est = NeuralScore(
        parameterization="edm", scaling="global", batch_size=64, ema_decay=0.9, module__width=32,
        module__dropout=0.0, random_state=0,
    )  # fmt: skip
    found = []
    for passes in (1, 5, 24):
        for _ in range(passes):
            est.partial_fit(rows)
        references = {"gaussian": law.gaussian(), "law": law}
        found.append(compare_scores(est, references, fresh, sigmas=1.0).unexplained)
    gaussian, exact = (np.array([at[name][0] for at in found]) for name in ("gaussian", "law"))
    # what the Gaussian leaves unexplained falls, then rises; what the law itself does only falls
    assert gaussian[1] < 0.6 * gaussian[0] and gaussian[2] > 1.5 * gaussian[1]
    assert exact[1] < 0.6 * exact[0] and exact[2] < 0.8 * exact[1]


def test_usual_references(digits):
    train, _ = digits
    references = score_references(train, n_components=3, random_state=0)
    np.testing.assert_allclose(references["gaussian"].mean, train.mean(0))
    assert references["isotropic"].covariance.total == pytest.approx(train.var(0).sum())
    assert len(references["mixture"].weights) == 3
    assert references["rows"].points.shape == train.shape


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"references": {}}, "non-empty mapping"),
        ({"references": {"model": NORMAL}}, "none of them named 'model'"),
        ({"references": GaussianModel([0.0, 0.0], 1.0)}, "same number of features"),
        ({"X": np.zeros((3, 2))}, "X must have 1 columns; got 2"),
        ({"X": np.zeros((3, 1))}, "X has no variance"),
        ({"target": "scores"}, "did you mean 'score'"),
        ({"average": "mean"}, "accepted are 'pooled', 'per_sample'"),
        ({"probes": "training"}, "or an array of points per level"),
        ({"probes": np.zeros((3, 4, 1)), "sigmas": 1.0}, "here \\(1, n_points, 1\\)"),
        ({"probes": np.full((1, 4, 1), np.nan), "sigmas": 1.0}, "probes must be finite"),
        ({"sigmas": [1.0, 0.5]}, "positive noise levels, rising"),
        ({"sigmas": []}, "positive noise levels, rising"),
        ({"sigmas": 0.0}, "positive noise levels, rising"),
        ({"sigmas": "low"}, "positive noise levels, rising; got 'low'"),
        ({"probes": [["here"]]}, "probes must have shape"),
        ({"reverse": "yes"}, "reverse must be True or False"),
        ({"n_noise": 0}, "n_noise must be an integer of at least 1"),
    ],
)
def test_what_cannot_be_compared(arguments, message):
    arguments = {"model": POINTS, "references": NORMAL, "X": TWO} | arguments
    with pytest.raises(ValueError, match=message):
        compare_scores(**arguments)


def test_levels_outside_a_models_range_are_refused_or_avoided():
    known = EmpiricalModel(TWO, sigma_min=0.5)
    found = compare_scores(known, NORMAL, TWO)
    assert found.sigmas[0] == pytest.approx(0.5)
    with pytest.raises(ValueError, match=r"defined for noise levels from 0\.5"):
        compare_scores(known, NORMAL, TWO, sigmas=0.1)
