"""Random manifolds of images of known dimension, to calibrate estimators of dimension on.

Pixels are columns, and ``d`` latent variables move what is seen: blobs, strokes, a pattern that is
bent or lit. A latent that changes the image ten times less than another would be noise rather than
a dimension: by a finite difference each is scaled until all change the image about equally.
"""

import numpy as np
from _dimension_law import Law
from _dimension_laws import EVEN, coordinates, log_uniform, noisy

SIDES = (8, 9, 10, 11, 12, 13, 14, 16, 20)
ROWS, DIMENSIONS = (40, 3000), (1, 46)
PROBES, STEP = 24, 0.02
"""Rows at which the effect of a latent is taken, and the step it is moved by."""


def grid(side):
    """Centres of the pixels of the unit square, from -1 to 1."""
    return np.float32(np.linspace(-1, 1, side))


def blobs(rng, d, side):
    """Gaussians whose places, widths and heights move."""
    n_blobs = -(-d // int(rng.integers(1, 6))) + int(rng.integers(0, 3))
    moved = rng.choice(5 * n_blobs, d, replace=False)
    place = rng.uniform(-0.8, 0.8, (2, n_blobs))
    width = log_uniform(rng, 0.12, 0.6, (2, n_blobs))
    height = rng.uniform(0.4, 1, n_blobs) * rng.choice([1, 1, -1], n_blobs)
    axis = grid(side)

    def render(z):
        v = np.zeros((len(z), 5 * n_blobs), np.float32)
        v[:, moved] = z
        x, y, w, u, h = v.reshape(len(z), 5, n_blobs).swapaxes(0, 1)
        across = (axis - (place[0] + x)[..., None]) / (width[0] * np.exp(w))[..., None]
        along = (axis - (place[1] + y)[..., None]) / (width[1] * np.exp(u))[..., None]
        across, along = (
            np.exp(-0.5 * np.float32(across) ** 2),
            np.exp(-0.5 * np.float32(along) ** 2),
        )
        across *= np.float32(height * np.exp(h))[..., None]
        return across.swapaxes(1, 2) @ along

    return render


def strokes(rng, d, side):
    """Bars between two points, or chains of them, of some thickness."""
    n_bars = -(-d // int(rng.integers(1, 5))) + int(rng.integers(0, 2))
    moved = rng.choice(4 * n_bars, d, replace=False)
    if rng.random() < 0.5:
        ends = rng.uniform(-0.8, 0.8, (4, n_bars))
    else:
        path = np.clip(rng.normal(0, 0.5, (2, n_bars + 1)).cumsum(axis=1), -0.9, 0.9)
        ends = np.concatenate([path[:, :-1], path[:, 1:]])
    thick = np.float32(log_uniform(rng, 1.2, 3) / side)
    sharp = rng.uniform(1, 4)
    x, y = (np.ravel(a) for a in np.meshgrid(grid(side), grid(side)))

    def render(z):
        v = np.zeros((len(z), 4 * n_bars), np.float32)
        v[:, moved] = z
        p = np.float32(v.reshape(len(z), 4, n_bars) + ends)
        closest = np.full((len(z), side * side), np.inf, np.float32)
        for k in range(n_bars):
            a, b, da, db = (q[:, None] for q in (*p[:, :2, k].T, *(p[:, 2:, k] - p[:, :2, k]).T))
            px, py = x - a, y - b
            t = np.clip((px * da + py * db) / (da**2 + db**2 + 1e-3), 0, 1)
            closest = np.minimum(closest, (px - t * da) ** 2 + (py - t * db) ** 2)
        return 1 / (1 + (closest / thick**2) ** sharp)

    return render


def pattern(rng, d, side):
    """A pattern that is bent, moved, turned, brightened, and lit from a side."""
    n_waves = int(rng.integers(3, 8))
    speed = rng.standard_normal((n_waves, 2)) * log_uniform(rng, 1, 6)
    phase, height = rng.uniform(0, 2 * np.pi, n_waves), rng.uniform(0.3, 1, n_waves)
    window = log_uniform(rng, 0.4, 4)
    x, y = (np.ravel(a) for a in np.meshgrid(grid(side), grid(side)))
    one, none = np.ones_like(x), np.zeros_like(x)
    fields = [(one, none), (none, one), (-y, x), (x, y), (y, x), (x, -y)]  # rigid, then affine
    if rng.random() < 0.4:  # of unequal depth: near parts move more when it turns
        depth = 0.5 + np.cos(2 * x + phase[0]) * np.cos(2 * y + phase[1])
        fields[:2] = [(depth, none), (none, depth)]
    shades = [(x + 0.3), (y - 0.2), one]
    n_bent = int(rng.binomial(d, rng.uniform(0.3, 1)))
    while len(fields) < n_bent:
        fields.append((_smooth_field(rng, x, y), _smooth_field(rng, x, y)))
    order = rng.permutation(len(fields)) if rng.random() < 0.5 else np.arange(len(fields))
    while len(shades) < d - n_bent:
        shades.append(_smooth_field(rng, x, y))
    shift = np.float32([fields[k] for k in order[:n_bent]]).reshape(n_bent, 2, side**2)
    shade = np.float32(shades[: d - n_bent]).reshape(d - n_bent, side**2)
    lit = rng.random() < 0.5  # a factor, or an addition

    def render(z):
        z = np.float32(z)
        u = x + z[:, :n_bent] @ shift[:, 0]
        v = y + z[:, :n_bent] @ shift[:, 1]
        out = np.zeros_like(u)
        for (a, b), c, h in zip(np.float32(speed), np.float32(phase), height, strict=True):
            out += np.float32(h) * np.sin(a * u + b * v + c)
        out *= np.exp(-(u**2 + v**2) / np.float32(2 * window**2))
        light = z[:, n_bent:] @ shade
        return out * np.exp(np.clip(light, -3, 3)) if lit else out + light

    return render


def _smooth_field(rng, x, y):
    a, b = rng.normal(0, 2.5, 2)
    return np.cos(a * x + b * y + rng.uniform(0, 2 * np.pi))


SCENES = {"blobs": blobs, "strokes": strokes, "pattern": pattern}


def image_law(rng):
    """Images of a scene."""
    n = int(np.exp(np.log(ROWS[0]) + rng.random() ** 0.6 * np.log(ROWS[1] / ROWS[0])))
    d = int(log_uniform(rng, *DIMENSIONS))
    side = int(rng.choice(SIDES))
    kind = str(rng.choice(list(SCENES), p=[0.3, 0.25, 0.45]))
    scene = SCENES[kind](rng, d, side)
    z = coordinates(rng, n, d, EVEN.densities) - 0.5
    reach = log_uniform(rng, 0.08, 1.2)
    scale = np.exp(rng.uniform(-1, 1, d) * rng.uniform(0, 0.8)) * reach
    z = z * scale * _equal(rng, scene, z * scale)
    X = np.float64(scene(np.clip(z, -4, 4)).reshape(n, -1))
    X = _exposed(rng, X)
    if rng.random() < 0.4:
        X = noisy(rng, X)
    if rng.random() < 0.2:
        step = np.ptp(X) / 255
        X = np.round(X / step) * step
    return Law(X, np.full(n, d), kind, z)


def _equal(rng, scene, z):
    """Factors by which the latents change the image about equally; their mean square is one."""
    at = np.clip(z[rng.choice(len(z), min(len(z), PROBES), replace=False)], -2, 2)
    here = scene(at)
    effect = np.empty(z.shape[1])
    for j in range(z.shape[1]):
        there = at.copy()
        there[:, j] += STEP
        effect[j] = np.sqrt(np.mean((scene(there) - here) ** 2))
    factor = np.clip(effect.mean() / np.maximum(effect, 1e-9), 1 / 8, 8)
    return factor / np.sqrt(np.mean(factor**2))


def _exposed(rng, X):
    """Film: linear, saturating, or bright on dark."""
    kind = rng.integers(3)
    if kind == 0:
        return X
    X = (X - np.median(X)) / max(X.std(), 1e-12)
    if kind == 1:
        return np.tanh(X * log_uniform(rng, 0.3, 3))
    return np.clip(X * log_uniform(rng, 0.5, 3), rng.choice([0, -1]), log_uniform(rng, 1, 4))
