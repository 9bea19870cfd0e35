"""U-Net and transformer: any image size, rows on their own, shifts, derivatives, and they learn."""

import copy
import math
import shutil

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from skdiffusion import GaussianScore
from skdiffusion.models import as_score_model
from skdiffusion.networks import NETWORKS, check_network
from skdiffusion.networks.images import check_input_shape
from skdiffusion.networks.transformer import DiT
from skdiffusion.networks.unet import UNet, _doubled
from skdiffusion.utils.estimator_checks import check_score_model

SMALL = {"unet": {"width": 16, "depth": 1}, "dit": {"width": 32, "n_blocks": 2}}
NAMES = list(SMALL)
SHAPES = [(1, 8, 8), (1, 28, 28), (3, 32, 32), (2, 7, 5), (1, 1, 9), (1, 3, 3), (1, 1, 1)]


def network(name, shape=(1, 8, 8), dtype=torch.float64, *, trained=True, seed=0, **options):
    """A network with random weights everywhere, as after training, or as it starts."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        made = check_network(name)(math.prod(shape), input_shape=shape, **SMALL[name] | options)
        if trained:
            for weights in made.parameters():
                if not weights.any():
                    torch.nn.init.normal_(weights, std=0.2)
    return made.to(dtype)


def inputs(shape, n=3, n_conditions=0):
    rng = np.random.default_rng(0)
    x = torch.tensor(rng.standard_normal((n, math.prod(shape))))
    noise = torch.tensor(rng.uniform(-1, 1, n))
    condition = torch.tensor(rng.standard_normal((n, n_conditions))) if n_conditions else None
    return x, noise, condition


def test_names():
    assert check_network("unet") is UNet and check_network("dit") is DiT
    assert set(SMALL) < set(NETWORKS)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", NAMES)
def test_any_size_and_no_output_before_training(name, shape):
    x, noise, _ = inputs(shape)
    for depth in (0, 1, 3) if name == "unet" else (0,):
        options = {"depth": depth, "width": 8} if name == "unet" else {}
        assert not network(name, shape, trained=False, **options)(x, noise).any()
        out = network(name, shape, **options)(x, noise)
        assert out.shape == x.shape and bool(out.isfinite().all()) and bool(out.any())


@pytest.mark.parametrize("shape", [(1, 8, 8), (2, 7, 5)])
@pytest.mark.parametrize("name", NAMES)
def test_a_row_alone_is_as_in_a_batch_even_while_training(name, shape):
    x, noise, condition = inputs(shape, 5, n_conditions=3)
    net = network(name, shape, n_conditions=3)
    for mode in (True, False):
        net.train(mode)
        whole = net(x, noise, condition)
        for k in range(5):
            alone = net(x[k : k + 1], noise[k : k + 1], condition[k : k + 1])
            torch.testing.assert_close(alone[0], whole[k], rtol=1e-10, atol=1e-12)  # rounding


@pytest.mark.parametrize("name", NAMES)
def test_noise_and_condition_matter_and_no_label_is_the_zero_vector(name):
    x, noise, condition = inputs((1, 8, 8), n_conditions=3)
    net = network(name, n_conditions=3)
    plain = net(x, noise)
    torch.testing.assert_close(net(x, noise, 0 * condition), plain, rtol=0, atol=0)
    assert (net(x, noise, condition) - plain).abs().max() > 1e-2
    assert (net(x, noise + 0.5) - plain).abs().max() > 1e-2


@pytest.mark.filterwarnings("ignore:`torch.jit.script`:DeprecationWarning")  # torch.func's own
@pytest.mark.parametrize("name", NAMES)
def test_derivatives_are_those_of_differences(name):
    """Forward and reverse, to first and second order, in float64."""
    x, noise, _ = inputs((2, 7, 5))
    net = network(name, (2, 7, 5))
    net.requires_grad_(False)
    v, u = torch.roll(x, 1, dims=0), torch.roll(x, 2, dims=0)

    def field(z):
        return net(z, noise)

    h = 1e-5
    difference = (field(x + h * v) - field(x - h * v)) / (2 * h)
    value, forward = torch.func.jvp(field, (x,), (v,))
    torch.testing.assert_close(value, field(x))
    torch.testing.assert_close(forward, difference, rtol=1e-6, atol=1e-7)  # O(h^2)
    (backward,) = torch.func.vjp(field, x)[1](u)
    torch.testing.assert_close((backward * v).sum(), (forward * u).sum(), rtol=1e-9, atol=0)

    def slope(z):
        return torch.func.vjp(field, z)[1](u)[0]

    second = torch.func.jvp(slope, (x,), (v,))[1]
    difference = (slope(x + h * v) - slope(x - h * v)) / (2 * h)
    torch.testing.assert_close(second, difference, rtol=1e-5, atol=1e-6)
    rows = torch.func.vmap(lambda z, c: net(z[None], c[None])[0])(x, noise)
    torch.testing.assert_close(rows, field(x), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_every_weight_is_learnt_in_float32(name):
    x, noise, condition = (a.float() for a in inputs((1, 8, 8), 4, n_conditions=2))
    net = network(name, dtype=torch.float32, n_conditions=2, dropout=0.1)
    with torch.random.fork_rng():  # dropout draws
        out = net(x, noise, condition)
    assert out.dtype == torch.float32
    (out**2).sum().backward()
    for weights_name, weights in net.named_parameters():
        # a softmax does not see what is added to all of its arguments: half the keys' offset
        assert weights.grad is not None and bool(weights.grad.any()), weights_name


@pytest.mark.parametrize("name", NAMES)
def test_networks_start_alike_on_the_same_seed_and_copy(name):
    x, noise, _ = inputs((1, 8, 8))
    a, b = network(name, seed=3), network(name, seed=3)
    torch.testing.assert_close(a(x, noise), b(x, noise), rtol=0, atol=0)
    torch.testing.assert_close(copy.deepcopy(a)(x, noise), a(x, noise), rtol=0, atol=0)


@pytest.mark.filterwarnings("ignore:`torch.jit.script`:DeprecationWarning")
@pytest.mark.parametrize("name", NAMES)
def test_networks_keep_the_contract_of_score_models(name):
    net = network(name, (1, 3, 4))
    check_score_model(as_score_model(net, prediction="edm", sigma_data=1.0, n_features=12))


# ------------------------------------------------------------------ where a pixel is


def shifted(x, shape, rows, columns):
    images = x.reshape(-1, *shape)
    return torch.roll(images, (rows, columns), dims=(2, 3)).flatten(1)


@pytest.mark.parametrize("depth", [0, 1, 2])
def test_a_periodic_unet_commutes_with_shifts_of_its_coarsest_pixel(depth):
    shape = (2, 8, 12)
    x, noise, _ = inputs(shape)
    net = network("unet", shape, depth=depth, periodic=True)
    step = 2**depth
    for by in ((step, 0), (0, 3 * step), (-step, 2 * step)):
        expected = shifted(net(x, noise), shape, *by)
        torch.testing.assert_close(
            net(shifted(x, shape, *by), noise), expected, rtol=1e-9, atol=1e-10
        )
    if depth:  # a finer shift mixes other pixels
        finer = net(shifted(x, shape, 1, 0), noise)
        assert (finer - shifted(net(x, noise), shape, 1, 0)).abs().max() > 1e-3


@pytest.mark.parametrize("name", NAMES)
def test_otherwise_a_network_knows_the_place(name):
    shape = (1, 8, 8)
    x, noise, _ = inputs(shape)
    net = network(name, shape)
    moved = net(shifted(x, shape, 4, 4), noise)
    assert (moved - shifted(net(x, noise), shape, 4, 4)).abs().max() > 1e-3


def test_without_positions_a_transformer_commutes_with_shifts_of_patches():
    shape = (1, 8, 8)
    x, noise, _ = inputs(shape)
    net = network("dit", shape)
    net.positions.zero_()
    expected = shifted(net(x, noise), shape, 2, 4)
    torch.testing.assert_close(net(shifted(x, shape, 2, 4), noise), expected, rtol=1e-9, atol=1e-10)


@pytest.mark.foreign_state  # torch draws the weights
def test_positions_tell_all_patches_apart():
    for grid in ((4, 4), (7, 7), (1, 9), (16, 3)):
        positions = DiT(grid[0] * grid[1], input_shape=(1, *grid), patch=1).positions
        distances = torch.cdist(positions, positions) + 99 * torch.eye(grid[0] * grid[1])
        assert distances.min() > 0.1


def test_patches_are_cut_and_pasted():
    for shape in ((1, 8, 8), (3, 7, 5), (2, 1, 4)):
        net = network("dit", shape, patch=2)
        x, _, _ = inputs(shape)
        patches = net._cut(x)
        torch.testing.assert_close(net._paste(patches), x, rtol=0, atol=0)
    net = network("dit", (1, 4, 4), patch=2)
    rows = torch.arange(16.0, dtype=torch.float64)[None]
    assert net._cut(rows)[0, 1].tolist() == [2, 3, 6, 7]  # the patch to the right of the first


@pytest.mark.foreign_state
def test_default_patches():
    sides = {(8, 8): 2, (28, 28): 4, (32, 32): 4, (64, 64): 8, (17, 3): 2}
    for (height, width), side in sides.items():
        assert DiT(height * width, input_shape=(1, height, width), width=8).patch == side


# ------------------------------------------------------------------ learning


def denoiser(net, x, sigma):
    """Karras et al. (2022) for data of unit scale."""
    root = (1 + sigma**2) ** 0.5
    out = net(x / root[:, None], sigma.log() / 4)
    return x / root[:, None] ** 2 + (sigma / root)[:, None] * out


@pytest.mark.parametrize("name", NAMES)
def test_digits_are_soon_denoised_better_than_by_any_linear_map(name):
    X = load_digits().data
    X = (X - X.mean()) / X.std()
    train, test = train_test_split(X, test_size=0.3, random_state=0)
    linear = GaussianScore("ledoit_wolf").fit(train)
    width, rate, n_steps = {"unet": (16, 4e-3, 150), "dit": (64, 5e-3, 300)}[name]
    net = network(name, dtype=torch.float32, trained=False, width=width)
    optimizer = torch.optim.Adam(net.parameters(), rate)
    generator = torch.Generator().manual_seed(0)
    rows = torch.tensor(train, dtype=torch.float32)
    for step in range(n_steps):
        for group in optimizer.param_groups:  # the rate falls to zero in the second half
            group["lr"] = rate * min(1, 2 - 2 * step / n_steps)
        x0 = rows[torch.randint(len(rows), (128,), generator=generator)]
        sigma = torch.exp(torch.randn(128, generator=generator) * 0.8 - 0.5)
        x = x0 + sigma[:, None] * torch.randn(x0.shape, generator=generator)
        weight = (1 + sigma**2) / sigma**2
        loss = (weight[:, None] * (denoiser(net, x, sigma) - x0) ** 2).mean()
        optimizer.zero_grad(), loss.backward(), optimizer.step()
    noise = np.random.default_rng(0).standard_normal(test.shape)
    for level in (0.2, 0.4, 0.8):
        noised = test + level * noise
        error = np.mean((linear.denoise(noised, level) - test) ** 2)
        with torch.no_grad():
            found = denoiser(
                net, torch.tensor(noised, dtype=torch.float32), torch.full((len(test),), level)
            )
        assert np.mean((found.numpy() - test) ** 2) < 0.95 * error


@pytest.mark.skipif(shutil.which("g++") is None, reason="compiling needs a C++ compiler")
def test_doubling_an_image_keeps_the_gradient_when_compiled_in_bfloat16():
    """torch's own way of doubling lost it: a U-Net learned at its highest resolution alone."""

    class Up(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.below, self.above = (torch.nn.Conv2d(8, 8, 3, padding=1) for _ in range(2))

        def forward(self, x):
            return self.above(torch.nn.functional.silu(_doubled(self.below(x))))

    with torch.random.fork_rng():
        torch.manual_seed(0)
        net, x = Up(), torch.randn(4, 8, 4, 4)

    def gradient(module, low):
        net.zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16, enabled=low):
            output = module(x)
        output.float().square().mean().backward()
        return net.below.weight.grad.clone()

    exact, found = gradient(net, False), gradient(torch.compile(net), True)
    # bfloat16 keeps eight bits: half a percent for each of a handful of operations
    assert torch.norm(found - exact) < 0.05 * torch.norm(exact)


# ------------------------------------------------------------------ refusals


@pytest.mark.foreign_state
def test_refusals():
    assert check_input_shape([3, 2, 2], 12) == (3, 2, 2)
    for wrong in (None, (8, 8), 64):
        with pytest.raises((ValueError, TypeError), match=r"input_shape must be|not iterable"):
            check_input_shape(wrong, 64)
    with pytest.raises(ValueError, match="holds 64 numbers, but the rows have 60 columns"):
        UNet(60, input_shape=(1, 8, 8))
    with pytest.raises(ValueError, match="width must be a multiple of 8; got 12"):
        UNet(64, input_shape=(1, 8, 8), width=12)
    with pytest.raises(ValueError, match="width must be a multiple of 4 and of n_heads"):
        DiT(64, input_shape=(1, 8, 8), width=30)
    with pytest.raises(ValueError, match="patch must be an integer"):
        DiT(64, input_shape=(1, 8, 8), patch=0)
