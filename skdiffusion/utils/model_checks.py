r"""The contract of score models, as checks for ours and for yours.

:func:`~skdiffusion.utils.estimator_checks.check_score_model` tests identities that hold for every
law and every exact model of it, for instance

.. math::
    D = x + \sigma^2 \nabla\log p_\sigma, \qquad
    \partial_\sigma \log p_\sigma = \sigma\,(\nabla\!\cdot s + |s|^2), \qquad
    E_{p_\sigma}[s] = 0, \quad E_{p_\sigma}[x \cdot s] = -d,

with :math:`s = \nabla \log p_\sigma`; the heat equation and the Gaussian limit at large
:math:`\sigma` together fix every normalising constant. What a model does not claim by its
flags is not tested.

A failed check raises ``AssertionError`` with one sentence.
"""

from __future__ import annotations

import copy
import importlib.util
import pickle
from typing import Any

import numpy as np

from skdiffusion.models import GaussianModel, as_score_model, jacobian, jvp
from skdiffusion.schedules import SCHEDULES
from skdiffusion.utils.arrays import is_torch, to_numpy

__all__ = ["assert_close", "assert_raises", "assert_same_global_state", "check_score_model"]


def check_score_model(
    model: Any, x: Any = None, levels: Any = None, *, random_state: int = 0
) -> None:
    """Check a score model against the identities that its flags promise.

    Parameters
    ----------
    model : BaseScoreModel
        Or anything that :func:`skdiffusion.as_score_model` takes.
    x : array-like of shape (n, d), optional
        Points to check at; draws of the model or standard normal ones by default.
    levels : sequence of float, optional
        Noise levels to check at; by default a tenth, one and ten times the spread of ``x``,
        within the model's range.
    random_state : int
        Seed of what is drawn.

    Raises
    ------
    AssertionError
        If an identity does not hold; the sentence names it.

    Examples
    --------
    >>> from skdiffusion.models import GaussianModel
    >>> check_score_model(GaussianModel(mean=[1.0, 2.0], covariance=[3.0, 0.5]))
    """
    model = as_score_model(model)
    rng = np.random.default_rng(random_state)
    global_state = np.random.get_state()  # noqa: NPY002
    d = model.n_features
    if x is None:
        sigma = max(model.sigma_range[0], 0.0)
        x = (
            model.sample(7, sigma, random_state=random_state)
            if model.has_sample
            else rng.standard_normal((7, d))
        )
    x = np.asarray(x, dtype=np.float64)
    spread = float(np.sqrt(np.mean((x - x.mean(0)) ** 2))) or 1.0
    if levels is None:
        low, high = model.sigma_range
        levels = [np.clip(f * spread, low * 1.001, high / 1.001) for f in (0.1, 1.0, 10.0)]
    for level in dict.fromkeys(float(level) for level in levels):
        at = x + level * np.asarray(model.noise_scale) * rng.standard_normal(x.shape)
        for check in _MODEL_CHECKS:
            check(model, at, level, rng)
    _check_model_errors(model, x, float(levels[-1]))
    if model.has_sample:
        _check_draws(model, spread, random_state)
    if model.has_log_prob:
        _check_far_normalisation(model, x, spread)
    _check_persistence(model, x, float(levels[-1]))
    assert_same_global_state(global_state)


def _check_tweedie(model, x, level, rng):
    denoised, score = model.denoise(x, level), model.score(x, level)
    assert denoised.shape == x.shape and score.shape == x.shape, (
        f"score and denoise must return the shape of x, {x.shape}."
    )
    scale = level * np.asarray(model.noise_scale)
    # rounding of x - D is what remains where the noise is far below the scale of x
    slack = 1e-9 * (1 + np.abs(x - denoised).max()) + 1e-12 * np.abs(x).max()
    assert_close(denoised, x + scale**2 * score, slack, "denoise = x + sigma^2 score")
    assert_close(
        scale * model.predict_noise(x, level), x - denoised, slack, "sigma noise = x - denoise"
    )


def _check_rows(model, x, level, rng):
    whole = model.score(x, level)
    size = np.abs(whole).max()
    for k in (0, len(x) - 1):
        alone = model.score(x[k : k + 1], level)
        assert_close(alone[0], whole[k], 1e-9 * size, "a row scores the same alone as in a batch")
    per_row = model.score(x, np.full(len(x), level))
    assert_close(per_row, whole, 1e-9 * size, "one level per row equals the scalar level")
    before = x.copy()
    model.denoise(x, level)
    assert np.array_equal(before, x), "the model must not change its input."


def _check_arrays(model, x, level, rng):
    whole = model.score(x, level)
    size = np.abs(whole).max()
    single = model.score(x.astype(np.float32), level)
    assert single.dtype == np.float32, f"float32 points must give float32; got {single.dtype}."
    # float32 keeps 7 digits of x; the score sees the error of x - D
    slack = 1e-3 * size + 1e-5 * np.abs(x).max() / level**2
    assert_close(single, whole, slack, "float32 agrees with float64")
    if importlib.util.find_spec("torch") is None:
        return
    import torch

    point = torch.tensor(x, requires_grad=model.is_differentiable)
    score = model.score(point, level)
    assert is_torch(score) and score.dtype == torch.float64, "a tensor must give a tensor."
    assert_close(to_numpy(score), whole, 1e-9 * size, "torch agrees with NumPy")
    if model.is_differentiable:
        (gradient,) = torch.autograd.grad(score.sum(), point)
        assert bool(torch.isfinite(gradient).all()), "the autograd graph must reach x."
    single = model.score(torch.tensor(x, dtype=torch.float32), level)
    assert single.dtype == torch.float32, "float32 tensors must give float32 tensors."


def _check_jacobian(model, x, level, rng):
    v = rng.standard_normal(x.shape)
    step = level * np.cbrt(1e-15 * max(1.0, np.abs(x).max() / level))
    for of in ("score", "denoise"):
        field = getattr(model, of)
        difference = (field(x + step * v, level) - field(x - step * v, level)) / (2 * step)
        product = jvp(model, x, level, v, of=of)
        size = np.abs(difference).max() + 1e-300
        rounding = 1e-15 * np.abs(field(x, level)).max() / step
        assert_close(product, difference, 1e-4 * size + 10 * rounding, f"jvp of {of} = derivative")
        matrices = jacobian(model, x, level, of=of)
        # a denoiser's Jacobian is of order one, and rounded there where it vanishes
        slack = 1e-7 * size + 1e-12 * np.abs(v).max() / (level**2 if of == "score" else 1)
        assert_close(
            np.einsum("nij,nj->ni", matrices, v), product, slack, f"jacobian of {of} times v"
        )
    if model.has_jacobian:
        matrices = jacobian(model, x, level)
        trace = np.trace(matrices, axis1=1, axis2=2)
        assert_close(
            model.divergence(x, level), trace, 1e-8 * np.abs(matrices).max(), "divergence = trace"
        )
        denoised, trace = model.denoise_and_divergence(x, level)
        expected = model.denoise(x, level)
        slack = 1e-10 * np.abs(expected).max()
        assert_close(denoised, expected, slack, "denoise_and_divergence denoises")
        expected = model.divergence(x, level, of="denoise")
        slack = 1e-8 * (1 + np.abs(expected).max())
        assert_close(trace, expected, slack, "denoise_and_divergence = divergence of denoise")
    if model.is_conservative:
        matrices = jacobian(model, x, level)
        asymmetry = np.abs(matrices - matrices.transpose(0, 2, 1)).max()
        assert asymmetry <= 1e-7 * np.abs(matrices).max(), (
            "a conservative score has a symmetric Jacobian; "
            f"this one is asymmetric by {asymmetry:g}."
        )


def _check_log_prob(model, x, level, rng):
    if not model.has_log_prob:
        return
    log_prob = model.log_prob(x, level)
    assert log_prob.shape == (len(x),), f"log_prob must have shape ({len(x)},)."
    scale = np.broadcast_to(np.asarray(model.noise_scale), (model.n_features,))
    v = rng.standard_normal(x.shape)
    h = level * 1e-4
    slope = (model.log_prob(x + h * v, level) - model.log_prob(x - h * v, level)) / (2 * h)
    score = model.score(x, level)
    size = np.abs(score).sum(1).max() * np.abs(v).max()
    rounding = 1e-15 * np.abs(log_prob).max() / h
    assert_close(slope, (score * v).sum(1), 1e-5 * size + 10 * rounding, "score = grad log_prob")
    low, high = model.sigma_range
    if low < level * (1 - 1e-4) and level * (1 + 1e-4) < high:
        rate = (
            model.log_prob(x, level * (1 + 1e-4)) - model.log_prob(x, level * (1 - 1e-4))
        ) / 2e-4
        curvature = jacobian(model, x, level)[:, range(x.shape[1]), range(x.shape[1])]
        terms = level**2 * scale**2 * (curvature + score**2)
        slack = 1e-5 * (np.abs(terms).sum(1).max() + 1) + 10 * rounding * level
        assert_close(rate, terms.sum(1), slack, "the heat equation in sigma")


def _check_flow(model, x, level, rng):
    if not model.has_flow:
        return
    there = model.flow(x, level, 3 * level)
    size = 1e-9 * (np.abs(x).max() + np.abs(there).max())
    assert_close(model.flow(there, 3 * level, level), x, size, "flow back and forth = identity")
    halfway = model.flow(model.flow(x, level, 2 * level), 2 * level, 3 * level)
    assert_close(halfway, there, size, "the flow is a semigroup")
    h = 1e-4
    slope = (model.flow(x, level, level * (1 + h)) - model.flow(x, level, level * (1 - h))) / (
        2 * h
    )
    velocity = x - model.denoise(x, level)
    slack = 1e-6 * (np.abs(velocity).max() + np.abs(x).max() * 1e-5)
    assert_close(slope, velocity, slack, "the flow moves with x - denoise")
    code = model.to_latent(x, level)
    assert_close(model.from_latent(code, level), x, size, "from_latent inverts to_latent")
    assert_close(
        model.to_latent(there, 3 * level), code, 1e-8 * (1 + np.abs(code).max()), "flow keeps codes"
    )


def _check_time_views(model, x, level, rng):
    for name, schedule in SCHEDULES.items():
        view = model.at_time(schedule())
        t = view.schedule.time_of(level)
        alpha = view.schedule.alpha(t)
        x_t = alpha * x
        denoised = model.denoise(x, level)
        size = np.abs(x).max() + np.abs(denoised).max()
        assert_close(view.denoise(x_t, t), denoised, 1e-6 * size, f"denoise in {name} time")
        drift = view.drift(x_t, t)
        score = view.score(x_t, t) * np.asarray(model.noise_scale) ** 2
        pull = 0.5 * view.diffusion(t) ** 2 * score
        slack = 1e-6 * (np.abs(drift).max() + np.abs(pull).max())
        assert_close(view.velocity(x_t, t), drift - pull, slack, f"velocity in {name} time")


_MODEL_CHECKS = [
    _check_tweedie,
    _check_rows,
    _check_arrays,
    _check_jacobian,
    _check_log_prob,
    _check_flow,
    _check_time_views,
]


def _check_draws(model, spread, random_state):
    low, _ = model.sigma_range
    sigma = max(low, 0.5 * spread)
    draws = model.sample(2000, sigma, random_state=random_state)
    again = model.sample(2000, sigma, random_state=random_state)
    assert draws.shape == (2000, model.n_features), "sample must return (n_samples, d)."
    assert np.array_equal(draws, again), "the same seed must give the same draws."
    fresh = model.sample(5, sigma), model.sample(5, sigma)
    assert not np.array_equal(*fresh), "random_state=None must be fresh entropy at every call."
    score = model.score(draws, sigma)
    centred = draws - draws.mean(0)
    for values, expected, what in (
        (score, 0.0, "E[score] = 0"),
        ((centred * score).sum(1, keepdims=True), -model.n_features, "E[x . score] = -d"),
    ):
        error = np.abs(values.mean(0) - expected)
        # five standard errors; the sample mean in place of the mean costs d/n
        bound = 5 * values.std(0) / len(draws) ** 0.5 + 2 * model.n_features / len(draws)
        assert (error <= bound).all(), (
            f"{what} fails at draws of the model: off by {error.max():g}, expected at most "
            f"{bound.max():g}."
        )


def _check_far_normalisation(model, x, spread):
    _, high = model.sigma_range
    sigma = 1e5 * spread
    if high < sigma:
        return
    scale = sigma * np.broadcast_to(np.asarray(model.noise_scale), (model.n_features,))
    limit = GaussianModel(model.denoise(x, sigma)[0], scale**2).log_prob(x)
    slack = 1e-6 + 1e-13 * np.abs(limit).max()
    assert_close(model.log_prob(x, sigma), limit, slack, "log_prob is normalised at large sigma")


def _check_model_errors(model, x, level):
    wide = np.zeros((2, model.n_features + 1))
    for call, what in (
        (lambda: model.score(wide, level), "a wrong number of columns"),
        (lambda: model.score(x[0], level), "a one-dimensional x"),
        (lambda: model.score(x, -level), "a negative sigma"),
        (lambda: model.score(x, float("nan")), "sigma = nan"),
        (lambda: model.score(x, np.full(len(x) + 1, level)), "a sigma of the wrong length"),
    ):
        assert_raises(call, what)
    if not model.is_conditional:
        assert_raises(lambda: model.score(x, level, y=np.zeros(len(x))), "labels y")


def _check_persistence(model, x, level):
    expected = model.score(x, level)
    for copied in (pickle.loads(pickle.dumps(model)), copy.deepcopy(model)):
        assert np.array_equal(copied.score(x, level), expected), "a copy must score the same."


def assert_close(actual, expected, slack, what):
    """Largest difference within ``slack``, or a sentence that names ``what``."""
    error = float(np.max(np.abs(np.asarray(actual) - np.asarray(expected)), initial=0.0))
    assert error <= slack, f"{what} fails: off by {error:.3g}, expected at most {slack:.3g}."


def assert_raises(call, what):
    """The call is refused by an error that says something."""
    try:
        call()
    except (ValueError, TypeError) as error:
        assert str(error), f"the error for {what} must say what was wrong."
        return
    raise AssertionError(f"{what} must raise a ValueError.")


def assert_same_global_state(before):
    """NumPy's global random state is as it was ``before``."""
    after = np.random.get_state()  # noqa: NPY002
    same = all(np.array_equal(a, b) for a, b in zip(before, after, strict=True))
    assert same, "NumPy's global random state must not be touched."
