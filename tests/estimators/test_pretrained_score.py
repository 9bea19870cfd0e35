"""PretrainedScore: the model is as it came, everything else is learnt from rows."""

import pickle

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import load_digits, load_iris
from sklearn.model_selection import GridSearchCV
from sklearn.utils.estimator_checks import parametrize_with_checks

from skdiffusion import DiscreteSchedule, GaussianScore, MarginalEnergy, PretrainedScore
from skdiffusion.datasets import make_embedded_circles
from skdiffusion.likelihood import flow_log_prob
from skdiffusion.models import AffineModel, GaussianModel, MixtureModel, as_score_model
from skdiffusion.samplers import AdamsSampler
from skdiffusion.utils.estimator_checks import check_score_estimator

LAW = MixtureModel([0.4, 0.6], [[-2.0, 0.0], [1.0, 1.0]], [0.3, 0.1])
ROWS = LAW.sample(400, random_state=0)


class ShrinkToMean:
    """The denoiser of a standard normal law of any width; its name is the same in any process."""

    def __call__(self, x, sigma):
        return x / (1 + sigma[:, None] ** 2)

    def __repr__(self):
        return "shrink"


shrink = ShrinkToMean()


def wide(x, sigma):
    """A Gaussian like the rows of the checks: two correlated columns of different scale."""
    factor = np.array([[2.0, 1.5], [0.0, 0.3]])
    return GaussianModel([10.0, -1.0], factor.T @ factor).denoise(x, sigma)


# rows of scikit-learn's checks are what they are, and the model does not suit them
@pytest.mark.filterwarnings("ignore:at noise level:UserWarning")
@pytest.mark.filterwarnings("ignore:the denoiser changes too fast:UserWarning")
@pytest.mark.foreign_state
@parametrize_with_checks([PretrainedScore(shrink, prediction="data")])
def test_scikit_learn_checks(estimator, check):
    check(estimator)


@pytest.mark.filterwarnings("ignore:at noise level:UserWarning")  # it scales the rows in a pipeline
def test_score_estimator_contract():
    check_score_estimator(PretrainedScore(wide, prediction="data"))


def test_everything_is_that_of_the_law_behind_the_model():
    network = LAW.at_time("vp").predict_noise
    est = PretrainedScore(network, schedule="vp", prediction="noise").fit(ROWS)
    np.testing.assert_allclose(est.denoise(ROWS, 0.5), LAW.denoise(ROWS, 0.5), rtol=1e-9, atol=1e-9)
    found, exact = est.score_samples(ROWS[:5]), LAW.log_prob(ROWS[:5], est.sigma_min_)
    # the far field has the mean of 400 rows, which costs nothing: the model says its own
    np.testing.assert_allclose(found, exact, atol=5e-5)
    flow = flow_log_prob(LAW, ROWS[:5], est.far_field_, est.sigma_min_, est.sigma_max_)
    np.testing.assert_allclose(found, flow.log_prob, atol=1e-5)  # of steps to 1e-6
    bound = est.denoising_bound(ROWS)
    exact = np.mean(LAW.log_prob(ROWS))
    assert abs(bound.score - exact) < 4 * bound.score_std_error + 1e-3
    assert est.score(ROWS) == bound.score
    draws = est.sample(2000, random_state=0)
    assert abs(np.mean(draws[:, 0] < -0.7) - 0.4) < 5 * (0.24 / 2000) ** 0.5  # mass of one half
    assert est.at_time().schedule is est.model_.schedule
    codes = est.transform(ROWS[:5])
    np.testing.assert_allclose(est.inverse_transform(codes), ROWS[:5], atol=1e-4)


def test_far_field_and_range_are_those_of_the_data():
    gaussian = GaussianScore("ledoit_wolf").fit(ROWS)
    est = PretrainedScore(LAW).fit(ROWS)
    assert est.model_ is LAW
    np.testing.assert_allclose(est.far_field_.mean, gaussian.mean_)
    np.testing.assert_allclose(
        est.far_field_.covariance.to_matrix(), gaussian.covariance_, rtol=1e-5
    )
    plain = GaussianScore().fit(ROWS)
    for name in ("scale_", "sigma_min_", "sigma_max_"):
        assert getattr(est, name) == pytest.approx(getattr(plain, name))
    weights = np.random.default_rng(0).integers(0, 3, len(ROWS))
    weighted = PretrainedScore(LAW).fit(ROWS, sample_weight=weights)
    repeated = PretrainedScore(LAW).fit(np.repeat(ROWS, weights, axis=0))
    np.testing.assert_allclose(weighted.far_field_.mean, repeated.far_field_.mean)
    assert weighted.sigma_max_ == pytest.approx(repeated.sigma_max_)


def test_range_is_cut_to_the_levels_of_the_model():
    model = as_score_model(LAW.denoise, prediction="data", n_features=2, sigma_range=(0.1, 3.0))
    est = PretrainedScore(LAW.denoise, prediction="data", sigma_range=(0.1, 3.0)).fit(ROWS)
    assert (est.sigma_min_, est.sigma_max_) == (0.1, 3.0)
    np.testing.assert_allclose(est.noise_levels(5, "heun")[[0, -1]], [3.0, 0.1], rtol=1e-12)
    asked = PretrainedScore(model, sigma_min=0.2, sigma_max=2.0).fit(ROWS)
    assert (asked.sigma_min_, asked.sigma_max_) == (0.2, 2.0)
    for wrong in ({"sigma_min": 0.01}, {"sigma_max": 5.0}):
        with pytest.raises(ValueError, match=r"must lie within the noise levels of the model, 0.1"):
            PretrainedScore(model, **wrong).fit(ROWS)
    assert np.isfinite(est.score(ROWS)) and np.isfinite(est.score_samples(ROWS[:3])).all()


def test_from_parameters_is_a_fit_without_rows():
    fitted = PretrainedScore(LAW).fit(ROWS)
    given = PretrainedScore.from_parameters(
        LAW, fitted.far_field_.mean, fitted.far_field_.covariance.to_matrix(), sigma_min=0.01
    )
    assert given.n_features_in_ == 2 and given.sigma_min_ == 0.01
    np.testing.assert_allclose(
        given.sample(3, n_steps=8, random_state=0),
        PretrainedScore(LAW, sigma_min=0.01, sigma_max=given.sigma_max_)
        .fit(ROWS)
        .sample(3, n_steps=8, random_state=0),
        rtol=1e-8,
    )
    with pytest.raises(ValueError, match="X has 3 columns, but the model 2"):
        PretrainedScore.from_parameters(LAW, np.zeros(3), 1.0)


def test_samplers_find_their_levels_by_the_spacing():
    est = PretrainedScore(LAW, spacing="ve").fit(ROWS)
    ratios = np.diff(np.log(est.noise_levels(6, "heun")))
    np.testing.assert_allclose(ratios, ratios[0])
    schedule = DiscreteSchedule()
    own = PretrainedScore(
        LAW.at_time("vp").predict_noise, schedule="vp", prediction="noise", spacing=schedule
    ).fit(ROWS)
    times = schedule.time_of(own.noise_levels(10))
    np.testing.assert_allclose(np.diff(times), times[1] - times[0], rtol=1e-9)
    assert np.isfinite(own.sample(3, sampler="heun", n_steps=10, random_state=0)).all()


def test_the_score_finds_the_schedule_and_prediction_a_model_was_trained_with():
    network = LAW.at_time("cosine").predict_noise
    grid = {"schedule": ["vp", "cosine"], "prediction": ["noise", "v", "data"]}
    with pytest.warns(UserWarning, match="denoises rows of X worse than by leaving them"):
        search = GridSearchCV(PretrainedScore(network), grid, cv=2, refit=False).fit(ROWS[:60])
    assert search.best_params_ == {"schedule": "cosine", "prediction": "noise"}


def test_labels_reach_the_model():
    one, other = (GaussianModel([mean, 0.0], 0.1) for mean in (-2.0, 2.0))

    def fn(x, sigma, y=None):
        if y is None:
            return MixtureModel([0.5, 0.5], [[-2, 0], [2, 0]], [0.1, 0.1]).denoise(x, sigma)
        return np.where(y[:, None] == "left", one.denoise(x, sigma), other.denoise(x, sigma))

    X = np.vstack([one.sample(50, random_state=0), other.sample(50, random_state=1)])
    labels = np.repeat(["left", "right"], 50)
    est = PretrainedScore(fn, prediction="data", conditional=True).fit(X, labels)
    sides = est.sample(20, y=np.repeat(["left", "right"], 10), random_state=0)[:, 0] > 0
    assert sides.tolist() == [False] * 10 + [True] * 10
    assert 0 < (est.sample(40, random_state=0)[:, 0] > 0).mean() < 1
    plain = clone(est).set_params(conditional=False).fit(X, labels)
    with pytest.raises(ValueError, match="unconditional"):
        plain.sample(2, y=["left", "left"])


@pytest.mark.filterwarnings("ignore:at noise level 0.01:UserWarning")
def test_wrong_units_are_noticed():
    with pytest.warns(UserWarning, match="are schedule, prediction and the units of X those"):
        PretrainedScore(LAW.denoise, prediction="data").fit(50 * ROWS + 100)
    with pytest.raises(ValueError, match="X must be in the units it was trained in"):
        PretrainedScore(LAW.denoise, prediction="data", sigma_range=(0.01, 100)).fit(1e-5 * ROWS)
    scaled = AffineModel(LAW, shift=100.0, scale=50.0)
    est = PretrainedScore(scaled).fit(50 * ROWS + 100)
    assert est.score(50 * ROWS + 100) == pytest.approx(np.mean(scaled.log_prob(50 * ROWS + 100)))


# ------------------------------------------------------------------ torch modules and images


class Shrink(torch.nn.Module):
    """The denoiser of a standard normal law, of images."""

    def __init__(self):
        super().__init__()
        self.gain = torch.nn.Parameter(torch.ones(()))

    def forward(self, x, sigma):
        assert x.shape[1:] == (1, 8, 8)
        return self.gain * x / (1 + sigma.reshape(-1, 1, 1, 1) ** 2)


DIGITS = (load_digits().data - 4.9) / 6.0


def test_clones_share_the_weights_and_keep_the_rest():
    module = Shrink()
    est = PretrainedScore(module, prediction="data", input_shape=(1, 8, 8), sigma_max=30.0)
    est.set_output(transform="pandas")
    copied = clone(est)
    assert copied.model is module and copied is not est and copied.sigma_max == 30.0
    assert copied._sklearn_output_config == est._sklearn_output_config
    assert not hasattr(clone(est.fit(DIGITS)), "model_")
    assert est.model is module
    before = [p.clone() for p in module.parameters()]
    est.sample(2, n_steps=3)
    assert all(torch.equal(a, b) for a, b in zip(before, module.parameters(), strict=True))


def test_images_batches_and_jobs():
    est = PretrainedScore(Shrink(), prediction="data", input_shape=(1, 8, 8)).fit(DIGITS)
    whole = est.denoise(DIGITS, 0.7)
    np.testing.assert_allclose(whole, DIGITS / 1.49, rtol=1e-6)
    small = clone(est).set_params(batch_size=100).fit(DIGITS)
    np.testing.assert_allclose(small.denoise(DIGITS, 0.7), whole, rtol=1e-12)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(est)).denoise(DIGITS, 0.7), whole)
    search = GridSearchCV(
        est, {"sigma_min": [0.01, 0.02]}, cv=2, n_jobs=2, scoring=lambda e, X, y=None: e.sigma_min_
    ).fit(DIGITS[:100])
    assert search.best_params_ == {"sigma_min": 0.02}
    with pytest.raises(ValueError, match=r"X has 4 columns, but input_shape \(1, 8, 8\) holds 64"):
        clone(est).fit(load_iris().data)


def test_wide_rows_have_a_far_field_of_low_rank():
    rng = np.random.default_rng(0)
    X = rng.standard_normal((40, 2)) @ rng.standard_normal((2, 1200))
    X += 0.1 * rng.standard_normal(X.shape)
    est = PretrainedScore(shrink, prediction="data").fit(X)
    assert est.far_field_.covariance.axes.shape[1] < 40
    assert est.sample(2, n_steps=4, random_state=0).shape == (2, 1200)


def test_a_model_that_is_not_told_the_level_goes_by_that_of_its_points():
    """A perfect blind velocity of two circles in 16 columns, as a function of the point alone."""
    X, _, plane = make_embedded_circles(200, 16, random_state=0, return_plane=True)
    energy = MarginalEnergy(schedule="flow_matching", standardize=False).fit(X)

    def off_plane(x):
        return np.linalg.norm(x - x @ plane @ plane.T, axis=1).mean()

    options = {"schedule": "flow_matching", "prediction": "velocity", "backend": "numpy"}
    est = PretrainedScore(
        lambda u: energy.blind_field(u, "velocity"), noise_conditioning=False, **options
    ).fit(X)
    assert est.model_.blind_target == "velocity"
    own, on_schedule = (
        est.sample(12, sampler=AdamsSampler(clock=clock), n_steps=16, random_state=0)
        for clock in ("auto", "schedule")
    )
    # on the schedule's clock noise of an eighth of the circles' radius stays, on its own hardly any
    assert off_plane(own) < 1e-3 and off_plane(on_schedule) > 0.1
    np.testing.assert_array_equal(est.sample(12, n_steps=16, random_state=0), own)
    again = pickle.loads(pickle.dumps(est.level_estimator_))
    np.testing.assert_array_equal(again.predict(X), est.level_estimator_.predict(X))
    est.set_params(model=lambda u, t: u, noise_conditioning=True, prediction="data").fit(X)
    assert not hasattr(est, "level_estimator_")
    with pytest.raises(ValueError, match="level_estimator must be a NoiseLevelEstimator"):
        PretrainedScore(np.tanh, prediction="data", level_estimator="trees").fit(X)


def test_refusals():
    for wrong, message in (
        ({"prediction": "epsilon"}, "Unknown prediction 'epsilon'"),
        ({"prediction": None}, "needs prediction="),
        ({"schedule": "ddpm"}, "Unknown schedule 'ddpm'"),
        ({"spacing": "ddpm"}, "Unknown schedule 'ddpm'.*or 'auto'"),
        ({"sampler": "no"}, "Unknown sampler"),
        ({"likelihood": "no"}, "Unknown likelihood"),
        ({"batch_size": 0}, "batch_size must be an integer"),
        ({"backend": "jax"}, "backend must be"),
        ({"input_shape": 2}, "input_shape must be a tuple of integers"),
        ({"input_shape": (-1, -2)}, "every entry of input_shape must be an integer"),
    ):
        est = PretrainedScore(**{"model": shrink, "prediction": "data"} | wrong)
        with pytest.raises(ValueError, match=message):
            est.fit(ROWS)
    labelled = PretrainedScore(shrink, prediction="data", conditional=True)
    with pytest.raises(ValueError, match=r"y must hold one label per row, .* got shape \(3,\)"):
        labelled.fit(ROWS, [0, 1, 2])
    with pytest.raises(TypeError, match="got int"):
        PretrainedScore(3).fit(ROWS)
    with pytest.raises(ValueError, match="no variance"):
        PretrainedScore(LAW).fit(np.ones((5, 2)))


# ------------------------------------------------------------------ diffusers


@pytest.mark.filterwarnings("ignore:at noise level:UserWarning")  # the weights are random
@pytest.mark.foreign_state
def test_pipelines_of_diffusers():
    diffusers = pytest.importorskip("diffusers")
    network = diffusers.UNet2DModel(
        sample_size=8,
        in_channels=1,
        out_channels=1,
        layers_per_block=1,
        block_out_channels=(8, 16),
        norm_num_groups=4,
        down_block_types=("DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D"),
    ).eval()
    pipeline = diffusers.DDPMPipeline(network, diffusers.DDIMScheduler(clip_sample=False))
    est = PretrainedScore(pipeline).fit(DIGITS[:200])
    assert clone(est).model is pipeline
    assert est.sigma_min_ == pytest.approx(0.01, rel=0.01)  # that of timestep 0
    assert est.sigma_max_ < 157
    assert est.sample(3, n_steps=5, random_state=0).shape == (3, 64)
    assert np.isfinite(est.denoising_bound(DIGITS[:4], n_noise=4).score)
    assert est.jacobian(DIGITS[:2], 0.5).shape == (2, 64, 64)
    by_hand = PretrainedScore(network, schedule=pipeline.scheduler).fit(DIGITS[:200])
    np.testing.assert_array_equal(by_hand.denoise(DIGITS, 0.7), est.denoise(DIGITS, 0.7))
