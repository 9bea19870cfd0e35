"""Random laws of known dimension, to calibrate estimators of dimension on.

A law is a density on ``d`` coordinates, a map of them into more, and noise. All three are drawn at
random from broad families, so that no particular data set is aimed at. Strands of a folded curve
are farther apart than rows along it, and noise is smaller than the distance to the 16th neighbour:
what no estimator could see at this number of rows teaches nothing.
"""

from typing import NamedTuple

import numpy as np
from _dimension_law import Law
from sklearn.neighbors import NearestNeighbors

MAX_COLUMNS = 200
FAR = 1e4
"""Between laws side by side, in coordinates on the law."""


def log_uniform(rng, low, high, size=None):
    return np.exp(rng.uniform(np.log(low), np.log(high), size))


class Prior(NamedTuple):
    """How often what is drawn.

    ``densities`` and ``maps`` are probabilities, in the order of ``DENSITIES`` and ``MAPS``;
    ``rows`` and ``dimensions`` are ranges; ``folds``, where given, is the range of frequencies as a
    share of the highest that can be told apart. ``mixed``, ``stretched``, ``pure`` and ``joined``
    are probabilities: of laws of several dimensions side by side, of coordinates of unequal
    extents, of columns that are all of few forms, of two laws in columns of their own.
    """

    densities: list[float]
    maps: list[float] | None
    rows: tuple[int, int] = (24, 4000)
    dimensions: tuple[int, int] = (1, 141)
    folds: tuple[float, float] | None = None
    mixed: float = 0.06
    stretched: float = 0.0
    pure: float = 0.0
    joined: float = 0.0


EVEN = Prior([0.28, 0.08, 0.16, 0.14, 0.12, 0.12, 0.10], None)
CURVED = Prior([0.24, 0.06, 0.14, 0.22, 0.12, 0.12, 0.10], [0.15, 0.10, 0.15, 0.20, 0.20, 0.20])
"""More curvature, more uneven densities."""
FOLDED = Prior(
    EVEN.densities, [0, 0, 0.1, 0.3, 0.3, 0.3], (500, 4000), (1, 4), folds=(0.4, 1.0), mixed=0
)
"""Few dimensions, folded as much as so many rows can show: near rows see one, far ones all."""
TURNED = Prior(
    CURVED.densities, [0, 0, 0.1, 0.2, 0.35, 0.35], (500, 4000), (4, 31), folds=(0.4, 1.0), mixed=0
)
"""More dimensions, each bent by about a full turn: as much as so many rows can show."""
BORDERED = Prior([0.65, 0.2, 0, 0.15, 0, 0, 0], CURVED.maps, dimensions=(1, 81), mixed=0)
"""Densities that end abruptly: in many dimensions nearly all rows are near a border."""
WIDER = dict(stretched=0.5, pure=0.5, joined=0.15)
EVEN_WIDER = CURVED._replace(**WIDER, mixed=0)
FOLDED_WIDER = FOLDED._replace(**WIDER, maps=[0.1, 0, 0.2, 0.2, 0.25, 0.25], folds=(0.1, 1.0))
TURNED_WIDER = TURNED._replace(**WIDER)
MIXED = EVEN._replace(mixed=1.0)
"""Laws of several dimensions side by side."""
MIXED_LOW = MIXED._replace(
    maps=[0.35, 0.2, 0.1, 0.15, 0.1, 0.1], rows=(100, 4000), dimensions=(1, 9)
)
"""Plain ones of few dimensions."""
PRIOR = EVEN


# ---------------------------------------------------------------------- densities of coordinates


def uniform(rng, n, d):
    return rng.random((n, d))


def ball(rng, n, d):
    x = rng.standard_normal((n, d))
    return x / np.linalg.norm(x, axis=1, keepdims=True) * rng.random((n, 1)) ** (1 / d)


def normal(rng, n, d):
    return rng.standard_normal((n, d))


def beta(rng, n, d):
    """One shape for all coordinates, or one each."""
    size = d if rng.random() < 0.5 else 1
    a, b = log_uniform(rng, 0.3, 12, size), log_uniform(rng, 0.3, 12, size)
    return rng.beta(a, b, (n, d))


def powers(rng, n, d):
    """Gamma variables and powers of normals: peaks or holes at zero, light or heavy tails."""
    if rng.random() < 0.5:
        return rng.gamma(log_uniform(rng, 0.4, 5), size=(n, d))
    z = rng.standard_normal((n, d))
    return np.sign(z) * np.abs(z) ** log_uniform(rng, 0.5, 2.5)


def ratios(rng, n, d):
    """Elliptical or one-sided laws with a common random scale: heavy tails that all share."""
    z = rng.standard_normal((n, d)) if rng.random() < 0.5 else rng.exponential(size=(n, d))
    scale = rng.gamma(log_uniform(rng, 0.7, 6), size=(n, 1))
    return z / (scale**0.5 if rng.random() < 0.5 else scale)


def clusters(rng, n, d):
    k = int(rng.integers(2, 9))
    centres = rng.standard_normal((k, d)) * log_uniform(rng, 0.5, 3)
    spread = log_uniform(rng, 0.3, 1.0, k)
    label = rng.choice(k, n, p=rng.dirichlet(np.full(k, 3.0)))
    return centres[label] + spread[label, None] * rng.standard_normal((n, d))


DENSITIES = [uniform, ball, normal, beta, powers, ratios, clusters]


SQUASHES = [np.tanh, np.exp, np.square, lambda z: 1 / (1 + np.abs(z)), lambda z: np.abs(z) ** 0.5]


def coordinates(rng, n, d, densities=None):
    """Rows of a random density, columns of about unit range."""
    pick = rng.choice(len(DENSITIES), p=PRIOR.densities if densities is None else densities)
    z = _unit_range(DENSITIES[pick](rng, n, d))
    if rng.random() < 0.2:
        squash = SQUASHES[rng.integers(len(SQUASHES))]
        steepness = log_uniform(rng, 0.5, 3)
        z = _unit_range(squash(np.clip(steepness * (z - rng.choice([0, 0.5])), -8, 8)))
    return z * _extents(rng, n, d) if _so_often(rng, PRIOR.stretched) else z


def _so_often(rng, probability):
    """True so often; what cannot be true draws nothing."""
    return probability > 0 and rng.random() < probability


def _extents(rng, n, d):
    """Unequal extents of coordinates, none of them below three distances of neighbours."""
    extents = np.exp(-rng.uniform(0, 3, d) * rng.random())
    distance = (extents.prod() / n) ** (1 / d)
    return np.maximum(extents, min(0.4, 3 * distance))


def _unit_range(z):
    low, high = np.percentile(z, [5, 95])
    return (z - low) / max(high - low, 1e-12)


# ---------------------------------------------------------------------- maps of them


def frequency(rng, n, d):
    """Radians over the range of a coordinate: a turn and more, where that can be told apart.

    A manifold folded ``f`` times has strands some ``1 / f`` apart, and its rows must be closer to
    each other than that.
    """
    most = max(2.5 * np.pi, n ** (1 / (d + 1)))
    if PRIOR.folds:
        return most * rng.uniform(*PRIOR.folds)
    if rng.random() < 0.5:
        return log_uniform(rng, 0.3, most)
    return rng.uniform(0, most)


def columns_for(rng, d, least):
    return int(min(max(least, d + rng.integers(0, 3 * d + 3)), MAX_COLUMNS))


def flat(rng, n, d):
    z = coordinates(rng, n, d)
    return z * np.exp(rng.uniform(-1, 1, d) * rng.uniform(0, 0.8)), z


def closed(rng, n, d):
    """Spheres, ellipsoids, products of spheres and circles, surfaces of cubes."""
    x = CLOSED[rng.integers(4)](rng, n, d)
    return x, x


def _ellipsoid(rng, n, d):
    return sphere(rng, n, d) * np.exp(rng.uniform(-1, 1, d + 1) * rng.choice([0, 0.5]))


def _torus(rng, n, d):
    angle = rng.uniform(0, 2 * np.pi, (n, d))
    radius = np.exp(rng.uniform(-1, 1, d) * rng.choice([0, 0.5]))
    return np.hstack([radius * np.cos(angle), radius * np.sin(angle)])


def _two_spheres(rng, n, d):
    first = int(rng.integers(1, d)) if d > 1 else 1
    parts = [sphere(rng, n, first)]
    if d > first:
        parts.append(sphere(rng, n, d - first) * log_uniform(rng, 0.4, 2.5))
    return np.hstack(parts)


def _cube_surface(rng, n, d):
    x = rng.random((n, d + 1))
    x[np.arange(n), rng.integers(d + 1, size=n)] = rng.integers(2, size=n)
    return x


CLOSED = [_ellipsoid, _torus, _two_spheres, _cube_surface]


def sphere(rng, n, d):
    x = rng.standard_normal((n, d + 1))
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def graph(rng, n, d):
    """The coordinates themselves and functions of them."""
    z = coordinates(rng, n, d)
    extra = int(rng.integers(1, 2 * d + 2))
    height = log_uniform(rng, 0.1, 2)
    if rng.random() < 0.5:
        weights = rng.standard_normal((d, extra)) / np.sqrt(d)
        bent = (z**2 if rng.random() < 0.5 else z**2 - 1.5 * z) @ weights
    else:
        bent = _waves(rng, z, extra, frequency(rng, n, d))
    return np.hstack([z, height * bent]), z


def smooth(rng, n, d):
    """A random smooth map of all coordinates."""
    z = coordinates(rng, n, d)
    m = columns_for(rng, d, d + 1)
    if rng.random() < 0.5:
        return _waves(rng, z, m, frequency(rng, n, d)) + rng.uniform(0, 1) * _linear(rng, z, m), z
    hidden = int(rng.integers(d + 1, 3 * d + 4))
    inner = np.tanh(_linear(rng, z - z.mean(0), hidden) * log_uniform(rng, 0.5, 6))
    return _linear(rng, inner, m), z


def _linear(rng, z, m):
    return z @ rng.standard_normal((z.shape[1], m)) / np.sqrt(z.shape[1])


def _waves(rng, z, m, scale):
    """Sums of a few sines along random directions, each over some or all coordinates."""
    d = z.shape[1]
    out = np.zeros((len(z), m))
    for _ in range(int(rng.integers(1, 4))):
        direction = rng.standard_normal((d, m))
        if rng.random() < 0.5:
            direction *= rng.random((d, m)) < min(1, 3 / d)
        direction /= np.maximum(np.linalg.norm(direction, axis=0), 1e-12)
        out += rng.standard_normal(m) * np.sin(scale * z @ direction + rng.uniform(0, 2 * np.pi, m))
    return out


def sparse(rng, n, d):
    """Columns that are products of a function of one coordinate and a function of another."""
    z = coordinates(rng, n, d)
    m = columns_for(rng, d, 2 * d)
    first = np.arange(m) % d
    second = rng.integers(d, size=m)
    scale = frequency(rng, n, d)
    return _univariate(rng, z[:, first], scale) * _univariate(rng, z[:, second], scale), z


def _univariate(rng, z, scale):
    """A random function for each column: constant, affine, a power, or a wave."""
    m = z.shape[1]
    phase = rng.uniform(0, 2 * np.pi, m)
    speed = scale * np.exp(rng.uniform(-0.7, 0, m))
    forms = [
        np.ones_like(z),
        z + rng.uniform(-0.5, 0.5, m),
        np.tanh(rng.uniform(0.5, 2, m) * (z - 0.5)),
        np.sin(speed * z + phase),
    ]
    shares = [0.25, 0.25, 0.15, 0.35]
    if _so_often(rng, PRIOR.pure):
        shares = rng.dirichlet(np.full(4, 0.5))
    pick = rng.choice(4, size=m, p=shares)
    return np.select([pick == j for j in range(4)], forms)


def curves(rng, n, d):
    """Products of curves: each coordinate moves a point in a space of its own."""
    z = coordinates(rng, n, d)
    per = int(rng.integers(2, 5))
    per = max(2, min(per, MAX_COLUMNS // d))
    scale = frequency(rng, n, d)
    straight = 0 if _so_often(rng, PRIOR.pure) else 1
    out = []
    for _ in range(per):
        amplitude, phase = rng.normal(size=d), rng.uniform(0, 2 * np.pi, d)
        speed = scale * rng.integers(1, 3)
        line = rng.normal(size=d) * z * rng.uniform(0, 1)
        out.append(amplitude * np.sin(speed * z + phase) + straight * line)
    return np.hstack(out), z


MAPS = {"flat": flat, "closed": closed, "graph": graph, "smooth": smooth, "sparse": sparse,
        "curves": curves}  # fmt: skip


def random_law(rng, prior=EVEN):
    """A law from such a prior."""
    global PRIOR
    PRIOR = prior
    share = rng.random() ** 0.6  # more of the larger samples, where there is more to see
    low, high = prior.rows
    n = int(np.exp(np.log(low) + share * np.log(high / low)))
    if rng.random() < prior.mixed and n >= 100:
        return mixed(rng, n)
    d = int(log_uniform(rng, *prior.dimensions))
    X, z, kind = single(rng, n, d)
    return Law(X, np.full(n, d), kind, z)


def single(rng, n, d):
    kind = str(rng.choice(list(MAPS), p=PRIOR.maps))
    if d > 1 and _so_often(rng, PRIOR.joined):
        first = int(rng.integers(1, d))
        other = str(rng.choice(list(MAPS), p=PRIOR.maps))
        beside, its = MAPS[other](rng, n, d - first)
        beside = beside * log_uniform(rng, 0.3, 3)
        X, z = MAPS[kind](rng, n, first)
        X, z, kind = np.hstack([X, beside]), np.hstack([z, its]), "joined"
    else:
        X, z = MAPS[kind](rng, n, d)
    if rng.random() < 0.5:
        return X, z, kind
    spare = int(rng.integers(0, X.shape[1] + 2)) if rng.random() < 0.5 else 0
    X = np.hstack([X, np.zeros((n, min(spare, max(MAX_COLUMNS - X.shape[1], 0))))])
    return noisy(rng, X), z, kind


def noisy(rng, X):
    """Rows with noise in all columns, smaller than the distance to the 16th neighbour."""
    n = len(X)
    some = X[rng.choice(n, min(n, 100), replace=False)]
    search = NearestNeighbors(n_neighbors=min(17, n - 1)).fit(X)
    reach = np.median(search.kneighbors(some)[0][:, -1])
    level = reach * log_uniform(rng, 0.01, 0.7) / np.sqrt(X.shape[1])
    noise = rng.standard_normal(X.shape) if rng.random() < 0.5 else rng.uniform(-1.7, 1.7, X.shape)
    return X + level * noise


def mixed(rng, n):
    """A few laws side by side, of like extent, of any dimensions or all of one."""
    n_parts = int(rng.integers(2, 6))
    sizes = np.maximum((rng.dirichlet(np.full(n_parts, 4.0)) * n).astype(int), 20)
    low, high = PRIOR.dimensions
    dimensions = log_uniform(rng, low, min(high, 31), n_parts).astype(int)
    if rng.random() < 0.3:
        dimensions[:] = dimensions[0]
    rows, intrinsic = [], []
    for size, d in zip(sizes, dimensions, strict=True):
        part, z, _ = single(rng, size, d)
        part = part - np.median(part, axis=0)
        extent = max(np.median(np.linalg.norm(part, axis=1)), 1e-12)
        rows.append(part / extent * log_uniform(rng, 0.5, 2))
        intrinsic.append((z - z.mean(axis=0)) / z.std())
    columns = max(part.shape[1] for part in rows)
    middles = rng.standard_normal((n_parts, columns)) / np.sqrt(columns) * rng.uniform(0, 8)
    placed = [
        _placed(rng, part, columns) + middle for part, middle in zip(rows, middles, strict=True)
    ]
    X = np.vstack(placed)
    widest = max(z.shape[1] for z in intrinsic)
    labels = np.repeat(np.arange(n_parts), sizes)
    on_law = np.vstack([np.pad(z, ((0, 0), (0, widest - z.shape[1]))) for z in intrinsic])
    on_law = np.column_stack([on_law, FAR * labels])
    return Law(X, dimensions[labels], "mixed", on_law)


def _placed(rng, part, columns):
    """Columns of zeros put after those of a part, or between them."""
    part = np.pad(part, ((0, 0), (0, columns - part.shape[1])))
    return part if rng.random() < 0.5 else part[:, rng.permutation(columns)]
