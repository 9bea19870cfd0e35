r"""Randomness without global state.

``random_state=None`` means fresh entropy, never NumPy's global stream; a seed
repeats exactly. Everything is drawn by a :class:`numpy.random.Generator` on the
host and then shown to the array library at work, so that NumPy and torch see
the same numbers.

Some noise is *keyed by the row it belongs to*: draw :math:`(p, j)` of row :math:`x_i` is a
hash of :math:`(x_i, p, j, seed)`. A row then has the same noise alone and in any batch,
a repeated row has that of its original, and different rows have independent noise.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.special import gammainc, gammaincinv, ndtri

from skdiffusion.utils.arrays import like, to_numpy

__all__ = [
    "as_generator",
    "as_seed",
    "balanced_by_row",
    "check_random_state",
    "generator_beside",
    "normal_by_row",
    "normal_like",
    "rademacher_like",
    "row_keys",
    "uniform_by_key",
]

GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def check_random_state(random_state: Any) -> None:
    """Raise ``ValueError`` for what makes no generator; nothing is drawn.

    Accepted are ``None``, a non-negative int, a ``Generator`` and a ``RandomState``.
    """
    if random_state is None or isinstance(
        random_state, (np.random.Generator, np.random.RandomState)
    ):
        return
    if not isinstance(random_state, (int, np.integer)) or isinstance(random_state, bool):
        raise ValueError(
            "random_state must be None, an int, a numpy.random.Generator or a "
            f"numpy.random.RandomState; got {random_state!r}."
        )
    if random_state < 0:
        raise ValueError(f"random_state must be a non-negative seed; got {random_state}.")


def as_generator(random_state: Any = None) -> np.random.Generator:
    """A NumPy ``Generator`` from ``None``, a seed, a ``Generator`` or a ``RandomState``.

    A ``RandomState`` seeds a new generator and is advanced by doing so.

    Raises
    ------
    ValueError
        If ``random_state`` is none of these.
    """
    check_random_state(random_state)
    if isinstance(random_state, np.random.RandomState):
        random_state = random_state.randint(0, 2**32, size=8, dtype=np.uint32)
    return np.random.default_rng(random_state)  # a generator stays itself


def generator_beside(rng: np.random.Generator) -> np.random.Generator:
    """Another generator that follows from a generator, and not from how much that draws later.

    One without a sequence of seeds stands for itself.
    """
    bits = rng.bit_generator
    seeds = getattr(bits, "seed_seq", getattr(bits, "_seed_seq", None))  # before NumPy 1.25
    if not isinstance(seeds, np.random.SeedSequence):
        return rng
    return np.random.default_rng(seeds.spawn(1)[0])


def as_seed(random_state: Any = None) -> int:
    """A seed for noise that is keyed by rows: an int is one, anything else gives one by a draw."""
    rng = as_generator(random_state)
    return int(random_state if isinstance(random_state, (int, np.integer)) else rng.integers(2**62))


def normal_like(x: Any, random_state: Any = None, shape: tuple[int, ...] | None = None):
    """Standard normal draws in the namespace, on the device and in the dtype of ``x``."""
    shape = tuple(x.shape) if shape is None else shape
    return like(as_generator(random_state).standard_normal(shape), x)


def _mix(bits: np.ndarray) -> np.ndarray:
    """A bijective 64-bit finaliser: flipping one input bit flips half of the output."""
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return bits ^ (bits >> np.uint64(31))


def row_keys(x: Any, seed: int = 0) -> np.ndarray:
    """A 64-bit hash of each row of ``x`` and the seed: equal rows have equal keys."""
    rows = np.ascontiguousarray(to_numpy(x), dtype=np.float64) + 0.0  # -0.0 is 0.0
    with np.errstate(over="ignore"):
        column_keys = _mix(GOLDEN * np.arange(1, rows.shape[1] + 1, dtype=np.uint64))
        keys = _mix(rows.view(np.uint64) ^ column_keys).sum(axis=1, dtype=np.uint64)
        return _mix(keys + GOLDEN * np.uint64(seed + 1))


def _bits_by_key(keys, n_columns, draws, seed):
    """Random bits ``(n_draws, n, n_columns)`` that depend on each key, draw and seed alone."""
    with np.errstate(over="ignore"):
        column_keys = _mix(GOLDEN * np.arange(1, n_columns + 1, dtype=np.uint64))
        # never without an offset, lest draw p of column j be draw j of column p
        draw_keys = _mix(GOLDEN * np.asarray(draws, dtype=np.uint64) + np.uint64(seed or 1))
        return _mix(
            draw_keys[:, None, None] + _mix(keys)[None, :, None] + column_keys[None, None, :]
        )


def _bits_by_row(x, n_draws, seed):
    """Random bits of shape ``(n_draws, n, d)`` that depend on each row and the seed alone."""
    return _bits_by_key(row_keys(x, seed), np.shape(x)[1], np.arange(1, n_draws + 1), seed)


def uniform_by_key(keys: np.ndarray, n_columns: int, draw: int) -> np.ndarray:
    """Uniform draws in (0, 1), ``(n, n_columns)``, that depend on each key and ``draw`` alone."""
    return _open_interval(_bits_by_key(keys, n_columns, [draw + 1], 0)[0])


def _open_interval(bits):
    return (bits >> np.uint64(11)) * 2.0**-53 + 2.0**-54


def rademacher_like(x: Any, n_probes: int, seed: int = 0):
    """Signs of shape ``(n_probes, n, d)`` that depend on each row of ``x`` and the seed alone."""
    return like(np.where(_bits_by_row(x, n_probes, seed) >> np.uint64(63), 1.0, -1.0), x)


def normal_by_row(x: np.ndarray, n_draws: int, seed: int = 0) -> np.ndarray:
    """Standard normals of shape ``(n_draws, n, d)`` that depend on each row and the seed alone."""
    return ndtri(_open_interval(_bits_by_row(x, n_draws, seed)))


def balanced_by_row(x: np.ndarray, n_draws: Any, seed: int = 0) -> np.ndarray:
    r"""As :func:`normal_by_row`, but the draws of a row balance each other.

    Each is standard normal. Together their directions are orthogonal, as many in turn as there are
    columns: over so many draws and their opposites the mean of a quadratic form in the directions
    is its trace, with nothing left to chance. Squared lengths lie one in each of ``n_draws``
    equally likely ranges. Of several numbers each is of a set of draws, one after the other, with
    ranges of its own, while directions go on from set to set.
    """
    sizes = np.atleast_1d(n_draws)
    normal = normal_by_row(x, sizes.sum(), seed).transpose(1, 2, 0)
    d = normal.shape[1]
    range_ = np.concatenate([np.arange(size) for size in sizes])
    share = gammainc(d / 2, (normal**2).sum(axis=1) / 2)  # uniform
    share = np.minimum((range_ + share) / np.repeat(sizes, sizes), 1 - 2.0**-53)
    lengths = np.sqrt(2 * gammaincinv(d / 2, share))
    directions = [_orthogonal(normal[:, :, k : k + d]) for k in range(0, sizes.sum(), d)]
    return (np.concatenate(directions, axis=2) * lengths[:, None]).transpose(2, 0, 1)


def _orthogonal(columns):
    """Orthonormal columns, uniformly distributed where the columns are standard normal."""
    found, factor = np.linalg.qr(columns)
    return found * np.sign(np.diagonal(factor, axis1=1, axis2=2))[:, None]
