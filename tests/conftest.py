"""Every test leaves the process as it found it: randomness, dtypes, flags, settings."""

import random
import sys

import numpy as np
import pytest
import sklearn

pytest_plugins = ["pytester"]


def _torch_state():
    torch = sys.modules.get("torch")
    if torch is None:
        return {}
    return {
        "torch's random state": torch.get_rng_state().numpy().tobytes(),
        "torch's default dtype": torch.get_default_dtype(),
        "torch's number of threads": torch.get_num_threads(),
        "torch's grad mode": torch.is_grad_enabled(),
        "torch's deterministic mode": torch.are_deterministic_algorithms_enabled(),
        "torch's matmul precision": torch.get_float32_matmul_precision(),
        "cudnn.benchmark": torch.backends.cudnn.benchmark,
        "cudnn.deterministic": torch.backends.cudnn.deterministic,
    }


def global_state():
    """What code must not touch behind its user's back."""
    numpy_state = np.random.get_state()  # noqa: NPY002
    return {
        "NumPy's random state": (numpy_state[1].tobytes(), *numpy_state[2:]),
        "NumPy's error handling": tuple(sorted(np.geterr().items())),
        "Python's random state": hash(random.getstate()),
        "scikit-learn's configuration": tuple(sorted(sklearn.get_config().items(), key=str)),
        **_torch_state(),
    }


@pytest.fixture(autouse=True)
def no_global_side_effects(request):
    """Fail a test after which global state differs. Mark what is not ours ``foreign_state``."""
    if request.node.get_closest_marker("foreign_state"):
        yield
        return
    before = global_state()
    yield
    after = global_state()
    # torch may have been imported by the test itself: what it had then is its default
    changed = [name for name, value in before.items() if after[name] != value]
    assert not changed, f"the test changed {', '.join(changed)}"


@pytest.fixture
def rng():
    """A generator seeded alike for every test."""
    return np.random.default_rng(0)
