"""Models of other libraries are the denoisers that their own schedulers make of them."""

import functools
import pickle

import numpy as np
import pytest
import torch

from skdiffusion import DiscreteSchedule
from skdiffusion.models import MixtureModel, as_score_model, jacobian, jvp
from skdiffusion.models.adapters import Preconditioned, recognise
from skdiffusion.samplers import EulerSampler, run_sampler

SHAPE = (1, 8, 8)
D = 64


@pytest.fixture(scope="module")
def diffusers():
    return pytest.importorskip("diffusers")


@functools.cache
def unet(**options):
    """A small network of diffusers with random weights everywhere, in double precision."""
    from diffusers import UNet2DModel

    attention = {"down_block_types": ("DownBlock2D", "AttnDownBlock2D")}
    attention["up_block_types"] = ("AttnUpBlock2D", "UpBlock2D")
    sizes = {"layers_per_block": 1, "block_out_channels": (8, 16), "norm_num_groups": 4}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = UNet2DModel(
            **{"sample_size": 8, "in_channels": 1, "out_channels": 1, "attention_head_dim": 8}
            | attention
            | sizes
            | options
        )
    return made.double().eval()


def points(n, seed=0):
    return np.random.default_rng(seed).standard_normal((n, D))


def images(x):
    return torch.tensor(x).reshape(-1, *SHAPE)


# ------------------------------------------------------------------ numbered timesteps


@pytest.mark.parametrize(
    "name, betas, kind",
    [
        ("DDPMScheduler", "linear", "epsilon"),
        ("DDPMScheduler", "scaled_linear", "sample"),
        ("DDIMScheduler", "linear", "v_prediction"),
        ("DDIMScheduler", "squaredcos_cap_v2", "epsilon"),
    ],
)
@pytest.mark.foreign_state
def test_denoiser_at_every_timestep_is_the_schedulers(diffusers, name, betas, kind):
    scheduler = getattr(diffusers, name)(
        beta_schedule=betas, prediction_type=kind, clip_sample=False
    )
    model = as_score_model(unet(), schedule=scheduler)
    assert model.input_shape == SHAPE and isinstance(model.schedule, DiscreteSchedule)
    steps = torch.arange(scheduler.config.num_train_timesteps)
    alpha = scheduler.alphas_cumprod.double().sqrt().numpy()
    noise = (1 - scheduler.alphas_cumprod.double()).sqrt().numpy()
    x_t = alpha[:, None] * points(1000) + noise[:, None] * points(1000, 1)
    with torch.no_grad():
        output = unet()(images(x_t), steps).sample
    scheduler.set_timesteps(1000)
    expected = torch.cat(
        [
            scheduler.step(output[k : k + 1], k, images(x_t[k : k + 1])).pred_original_sample
            for k in range(1000)
        ]
    ).flatten(1)
    found = model.denoise(x_t / alpha[:, None], noise / alpha)
    # relative to the largest term, for theirs has coefficients in single precision
    size = np.maximum(1, noise / alpha)[:, None]
    assert np.abs((found - expected.numpy()) / size).max() < 1e-5


def in_their_loop(network, scheduler, x, **options):
    """A run as diffusers' pipelines have it."""
    with torch.no_grad():
        for t in scheduler.timesteps:
            output = network(scheduler.scale_model_input(x, t), t).sample
            x = scheduler.step(output, t, x, **options).prev_sample
    return x.flatten(1).numpy()


def ours(model, x, levels):
    return run_sampler(EulerSampler(), model, x, [*map(float, levels), 0.0])


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize("spacing", ["leading", "trailing"])
@pytest.mark.foreign_state
def test_ddim_run(diffusers, kind, spacing):
    scheduler = diffusers.DDIMScheduler(
        prediction_type=kind, clip_sample=False, timestep_spacing=spacing
    )
    scheduler.set_timesteps(20)
    model = as_score_model(unet(), schedule=scheduler)
    start = points(3)
    expected = in_their_loop(unet(), scheduler, images(start))
    first = float(scheduler.timesteps[0])
    levels = model.schedule.noise_level(scheduler.timesteps.double().numpy())
    found = ours(model, start / model.schedule.alpha(first), levels)
    assert np.abs(found - expected).max() < 1e-4 * max(1, np.abs(expected).max())


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("spacing, karras", [("leading", 0), ("linspace", 0), ("trailing", 1)])
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
@pytest.mark.foreign_state
def test_euler_run_also_between_the_timesteps(diffusers, kind, spacing, karras):
    scheduler = diffusers.EulerDiscreteScheduler(
        prediction_type=kind, timestep_spacing=spacing, use_karras_sigmas=bool(karras)
    )
    scheduler.set_timesteps(20)
    assert bool((scheduler.timesteps % 1 != 0).any()) == (spacing != "leading")
    model = as_score_model(unet(), schedule=scheduler)
    start = points(3) * float(scheduler.sigmas[0])
    expected = in_their_loop(unet(), scheduler, images(start))
    found = ours(model, start, scheduler.sigmas[:-1])
    assert np.abs(found - expected).max() < 1e-4 * max(1, np.abs(expected).max())


# ------------------------------------------------------------------ other kinds


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
@pytest.mark.foreign_state
def test_edm_run(diffusers, kind):
    scheduler = diffusers.EDMEulerScheduler(prediction_type=kind, sigma_data=0.7)
    scheduler.set_timesteps(20)
    network = unet(time_embedding_type="positional")
    model = as_score_model(network, schedule=scheduler)
    assert model.sigma_range == (0.002, 80.0)
    start = points(3) * 80
    expected = in_their_loop(network, scheduler, images(start))
    found = ours(model, start, scheduler.sigmas[:-1])
    assert np.abs(found - expected).max() < 1e-4 * max(1, np.abs(expected).max())


@pytest.mark.parametrize("shift", [1.0, 3.0])
@pytest.mark.foreign_state
def test_flow_matching_run(diffusers, shift):
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=shift)
    scheduler.set_timesteps(sigmas=np.linspace(0.97, 0.02, 20))
    model = as_score_model(unet(), schedule=scheduler)
    times, x = scheduler.sigmas[:-1].double().numpy(), images(points(3))
    with torch.no_grad():
        for t in scheduler.timesteps:
            x = scheduler.step(unet()(x, t).sample, t, x).prev_sample
    expected = x.flatten(1).numpy()
    found = ours(model, points(3) / (1 - times[0]), times / (1 - times))
    assert np.abs(found - expected).max() < 1e-4 * max(1, np.abs(expected).max())


@pytest.mark.foreign_state
def test_variance_exploding_network_returns_the_score(diffusers):
    network = unet(time_embedding_type="fourier")
    model = as_score_model(network, schedule=diffusers.ScoreSdeVeScheduler())
    x, levels = points(4), np.array([0.01, 0.5, 3.0, 1000.0])
    with torch.no_grad():
        expected = network(images(x), torch.tensor(levels)).sample.flatten(1)
    size = expected.abs().amax(1).numpy()[:, None]
    assert np.abs((model.score(x, levels) - expected.numpy()) / size).max() < 1e-5
    with pytest.raises(ValueError, match=r"from 0\.01 to 1348"):
        model.score(x, 0.001)


@pytest.mark.foreign_state
def test_unknown_kinds_are_refused(diffusers):
    for scheduler, message in (
        (
            diffusers.CMStochasticIterativeScheduler(),
            "CMStochasticIterativeScheduler is of no kind",
        ),
        (
            diffusers.EulerDiscreteScheduler(timestep_type="continuous"),
            "EulerDiscreteScheduler is of no kind",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            as_score_model(unet(), schedule=scheduler)


# ------------------------------------------------------------------ whole models


@pytest.mark.foreign_state
def test_pipelines_shapes_and_overrides(diffusers):
    scheduler = diffusers.DDPMScheduler(clip_sample=False)
    pipeline = diffusers.DDPMPipeline(unet(), scheduler)
    by_hand = as_score_model(unet(), schedule=scheduler)
    x = points(3)
    np.testing.assert_array_equal(as_score_model(pipeline).denoise(x, 1.0), by_hand.denoise(x, 1.0))
    for copied in (pickle.loads(pickle.dumps(by_hand)), as_score_model(by_hand)):
        np.testing.assert_array_equal(copied.denoise(x, 1.0), by_hand.denoise(x, 1.0))
    larger = as_score_model(pipeline, input_shape=(1, 16, 12), batch_size=2)
    assert larger.denoise(np.zeros((3, 192)), 1.0).shape == (3, 192)
    said = as_score_model(pipeline, prediction="data", sigma_range=(0.1, 2.0))
    assert said.prediction == "data" and said.sigma_range == (0.1, 2.0)
    with pytest.raises(ValueError, match="holds 64 numbers, but a point has 60"):
        as_score_model(pipeline, n_features=60)


@pytest.mark.foreign_state
def test_learned_variances_are_left_aside(diffusers):
    network = unet(out_channels=2)
    scheduler = diffusers.DDPMScheduler(variance_type="learned_range", clip_sample=False)
    model = as_score_model(network, schedule=scheduler)
    t, x_t = 300, points(2)
    with torch.no_grad():
        output = network(images(x_t), t).sample
    scheduler.set_timesteps(1000)
    expected = scheduler.step(output, t, images(x_t)).pred_original_sample.flatten(1)
    alpha = model.schedule.alpha(float(t))
    found = model.denoise(x_t / alpha, model.schedule.noise_level(float(t)))
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.foreign_state
def test_classes_of_diffusers(diffusers):
    network = unet(num_class_embeds=3)
    scheduler = diffusers.DDIMScheduler(clip_sample=False)
    model = as_score_model(network, schedule=scheduler, batch_size=2)
    assert model.is_conditional
    y, x, level = [0, 2, 1], points(3), model.schedule.noise_level(400.0)
    alpha = model.schedule.alpha(400.0)
    with torch.no_grad():
        noise = network(images(alpha * x), 400, torch.tensor(y)).sample.flatten(1)
    np.testing.assert_allclose(model.predict_noise(x, level, y=y), noise, rtol=1e-9, atol=1e-9)
    with pytest.raises(ValueError, match=r"one label per row, shape \(3,\); got shape \(2,\)"):
        model.denoise(x, level, y=[0, 1])
    with pytest.raises(ValueError, match="class_labels should be provided"):
        model.denoise(x, level)


@pytest.mark.foreign_state
def test_half_precision_keeps_the_timesteps(diffusers):
    seen = []

    class Network(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.gain = torch.nn.Parameter(torch.ones((), dtype=torch.bfloat16))

        def forward(self, x, t):
            seen.append((x.dtype, t))
            return self.gain * x

    model = as_score_model(Network(), schedule=diffusers.DDIMScheduler(), input_shape=SHAPE)
    found = model.denoise(points(2), model.schedule.noise_level(997.0))
    assert found.dtype == np.float64 and np.isfinite(found).all()
    dtype, times = seen[0]
    assert dtype == torch.bfloat16 and times.tolist() == pytest.approx([997, 997])
    half = as_score_model(Network(), prediction="data", n_features=D)
    np.testing.assert_allclose(half.denoise(points(2), 1.0), points(2), rtol=0.01)  # 8 bits


@pytest.mark.filterwarnings("ignore:`torch.jit.script`:DeprecationWarning")
@pytest.mark.foreign_state
def test_derivatives_through_fused_attention(diffusers):
    model = as_score_model(unet(), schedule=diffusers.DDIMScheduler())
    x, v = points(2), points(2, 1)
    h, level = 1e-4, 0.8
    difference = (model.denoise(x + h * v, level) - model.denoise(x - h * v, level)) / (2 * h)
    product = jvp(model, x, level, v, of="denoise")
    size = np.abs(difference).max()
    assert np.abs(product - difference).max() < 1e-6 * size  # O(h^2)
    matrices = jacobian(model, x, level, of="denoise")
    assert np.abs(np.einsum("nij,nj->ni", matrices, v) - product).max() < 1e-9 * size


# ------------------------------------------------------------------ EDM, without diffusers

LAW = MixtureModel([0.4, 0.6], [[-1.0, 0.0], [0.5, 0.3]], [0.1, 0.2])
POINTS = np.random.default_rng(5).standard_normal((4, 2))
LEVELS = np.array([0.01, 0.3, 1.0, 9.0])


def inner(sigma_data):
    """What a perfect network inside EDM's coefficients returns, by solving for it."""

    def network(z, noise):
        sigma = np.exp(4 * noise)[:, None]
        total = sigma**2 + sigma_data**2
        x = z * total**0.5
        denoised = LAW.denoise(x, sigma[:, 0])
        return (denoised - sigma_data**2 / total * x) * total**0.5 / (sigma * sigma_data)

    return network


def test_a_network_inside_edms_coefficients_is_the_denoiser():
    model = as_score_model(inner(0.7), prediction="edm", sigma_data=0.7, n_features=2)
    for sigma in (0.4, LEVELS):
        np.testing.assert_allclose(
            model.denoise(POINTS, sigma), LAW.denoise(POINTS, sigma), rtol=1e-9, atol=1e-11
        )
    opposite = Preconditioned(lambda z, noise: -inner(0.5)(z, noise), 0.5, sign=-1.0)
    np.testing.assert_allclose(
        opposite(POINTS, LEVELS), LAW.denoise(POINTS, LEVELS), rtol=1e-9, atol=1e-11
    )
    with pytest.raises(ValueError, match="schedule must be None"):
        as_score_model(inner(0.7), prediction="edm", schedule="vp", n_features=2)
    with pytest.raises(ValueError, match="sigma_data must be a finite number above 0"):
        as_score_model(inner(0.7), prediction="edm", sigma_data=0.0, n_features=2)


class EDMNetwork(torch.nn.Module):
    """The looks of EDM's released networks."""

    img_channels, img_resolution, sigma_min, sigma_max = 2, 4, 0.1, 50.0

    def __init__(self):
        super().__init__()
        self.gain = torch.nn.Parameter(torch.ones(()))

    def forward(self, x, sigma, class_labels=None):
        assert x.shape[1:] == (2, 4, 4) and x.dtype == torch.float32
        return self.gain * x / (1 + sigma.reshape(-1, 1, 1, 1) ** 2)


def test_edms_own_networks_are_recognised():
    model = as_score_model(EDMNetwork())
    assert model.n_features == 32 and model.sigma_range == (0.1, 50.0)
    x = np.random.default_rng(0).standard_normal((3, 32))
    np.testing.assert_allclose(model.denoise(x, 2.0), x / 5, rtol=1e-6)  # a float32 network
    tensor = torch.tensor(x, requires_grad=True)
    model.denoise(tensor, 2.0).sum().backward()
    np.testing.assert_allclose(tensor.grad, np.full((3, 32), 0.2), rtol=1e-6)


class LabelledEDMNetwork(EDMNetwork):
    label_dim = 3

    def forward(self, x, sigma, class_labels=None):
        out = super().forward(x, sigma)
        if class_labels is None:
            return out
        return out + (class_labels @ torch.tensor([1.0, 10.0, 100.0])).reshape(-1, 1, 1, 1)


def test_classes_of_edm_are_unit_vectors():
    model = as_score_model(LabelledEDMNetwork())
    assert model.is_conditional and not as_score_model(EDMNetwork()).is_conditional
    x = np.zeros((3, 32))
    found = model.denoise(x, 1.0, y=np.array([2, 0, 1]))
    np.testing.assert_allclose(found[:, 0], [100, 1, 10])
    assert not model.denoise(x, 1.0).any()
    for wrong in ([0, 1, 3], [0, -1, 2], [0.5, 1.0, 2.0]):
        with pytest.raises(ValueError, match="whole numbers from 0 to 2"):
            model.denoise(x, 1.0, y=wrong)


def test_what_is_not_known_is_left_to_the_user():
    assert recognise(lambda x, t: x) is None
    assert recognise(EDMNetwork(), "vp") is None
    with pytest.raises(ValueError, match=r"needs prediction= .*'edm'.* and n_features= or input"):
        as_score_model(EDMNetwork(), schedule="vp")


def test_callables_of_images_and_batches():
    seen = []

    def network(x, sigma):
        seen.append(x.shape)
        return x / (1 + sigma[:, None, None, None] ** 2)

    model = as_score_model(network, prediction="data", input_shape=(1, 2, 2), batch_size=3)
    x = np.random.default_rng(0).standard_normal((7, 4))
    sigma = np.arange(1.0, 8.0)
    np.testing.assert_allclose(model.denoise(x, sigma), x / (1 + sigma[:, None] ** 2), rtol=1e-14)
    assert seen == [(3, 1, 2, 2), (3, 1, 2, 2), (1, 1, 2, 2)]
    assert model.denoise(np.empty((0, 4)), 1.0).shape == (0, 4)
    flat = as_score_model(lambda x, t: x.sum(axis=1), prediction="data", input_shape=(2, 2))
    with pytest.raises(ValueError, match=r"must return shape \(3, 2, 2\); got \(3, 2\)"):
        flat.denoise(np.zeros((3, 4)), 1.0)
    with pytest.raises(ValueError, match="batch_size must be an integer"):
        as_score_model(network, prediction="data", n_features=2, batch_size=0)


def test_callables_of_labels():
    def fn(x, sigma, y=None):
        return x if y is None else x + y[:, None]

    model = as_score_model(fn, prediction="data", n_features=2, conditional=True, batch_size=3)
    y = np.arange(4.0)
    np.testing.assert_allclose(model.denoise(POINTS, 1.0, y=y), POINTS + y[:, None])
    np.testing.assert_allclose(model.denoise(POINTS, 1.0), POINTS)
    for labels in (y, torch.tensor(y)):
        found = model.denoise(torch.tensor(POINTS), 1.0, y=labels)
        np.testing.assert_allclose(found, POINTS + y[:, None])
    np.testing.assert_allclose(
        jacobian(model, POINTS, 1.0, y=y, of="denoise")[0], np.eye(2), atol=1e-8
    )


def test_modules_in_training_mode_are_named():
    class Network(torch.nn.Module):
        def __init__(self, p):
            super().__init__()
            self.dropout = torch.nn.Dropout(p)

        def forward(self, x, t):
            return self.dropout(x)

    with pytest.warns(UserWarning, match="training mode, in which Dropout make"):
        as_score_model(Network(0.5), prediction="data", n_features=2)
    for harmless in (Network(0.0), Network(0.5).eval()):
        model = as_score_model(harmless, prediction="data", n_features=2)
        np.testing.assert_array_equal(model.denoise(POINTS, 1.0), POINTS)
