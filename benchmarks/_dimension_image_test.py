"""Manifolds of images that no calibration was taught, to test estimators of dimension on.

Nothing here is shared with what calibrates (``_dimension_images.py``): scenes, their latent
variables and their rendering are other ones. Sprites move over a canvas; a cloud of points turns
in space; an arm of joints bends; a texture is seen through a bent glass; a light field is a sum of
lamps. ``d`` is the number of numbers that say which image it is.
"""

import numpy as np
from _dimension_law import Law
from scipy.ndimage import gaussian_filter, map_coordinates, zoom
from scipy.spatial.transform import Rotation

HIGHEST = 40


def sprites(rng, n, d):
    """Small textured sprites, each anywhere in a box of its own size: two numbers each."""
    side, n_sprites = 24, -(-d // 2)
    out = np.zeros((n, side, side))
    at = rng.uniform(-2.0, 2.0, (n, d))
    for k in range(n_sprites):
        sprite = np.zeros((side, side))
        r, c = rng.integers(5, side - 8, 2)
        sprite[r : r + 4, c : c + 4] = rng.uniform(0.3, 1, (4, 4))
        sprite = gaussian_filter(sprite, 1.5)
        dy = at[:, 2 * k]
        dx = at[:, 2 * k + 1] if 2 * k + 1 < d else np.zeros(n)
        frequency = [np.fft.fftfreq(side), np.fft.rfftfreq(side)]
        turn = np.exp(
            -2j
            * np.pi
            * (dy[:, None, None] * frequency[0][:, None] + dx[:, None, None] * frequency[1])
        )
        out += np.fft.irfft2(np.fft.rfft2(sprite) * turn, (side, side))
    return out


def cloud(rng, n, d):
    """A rigid cloud of soft points that turns freely (3 numbers), moves (2) and grows (1)."""
    side = 20
    points = rng.normal(size=(12, 3)) * 0.55
    weight = rng.uniform(0.3, 1, 12)
    turned = Rotation.from_rotvec(0.9 * rng.uniform(-1, 1, (n, 3)) * (np.arange(3) < d)).as_matrix()
    seen = np.einsum("nij,pj->npi", turned, points)[:, :, :2]
    extra = rng.uniform(-1, 1, (n, 3)) * (np.arange(3) < d - 3)
    seen = seen * (1 + 0.2 * extra[:, 2, None, None]) + 0.25 * extra[:, None, :2]
    axis = np.linspace(-1.6, 1.6, side)
    gap = (axis[:, None, None, None] - seen[None]) ** 2  # side, n, points, 2
    bump = 1 / (1 + gap / 0.08)
    return np.einsum("inp,jnp,p->nij", bump[..., 0], bump[..., 1], weight)


def arm(rng, n, d):
    """A chain of d joints, drawn as soft discs along its links; angles turn by up to a radian."""
    side = 22
    base = rng.normal(0, 0.8, d)
    angle = np.cumsum(base + rng.uniform(-0.5, 0.5, (n, d)) * min(1, 4 / np.sqrt(d)), axis=1)
    link = 2.2 / d**0.6
    joints = link * np.stack([np.cos(angle), np.sin(angle)], axis=2).cumsum(axis=1)
    joints -= joints.mean(axis=(0, 1))
    axis = np.linspace(-1.5, 1.5, side)
    gap = (axis[:, None, None, None] - joints[None]) ** 2
    bump = np.exp(-gap / 0.06)
    return np.tanh(np.einsum("inp,jnp->nij", bump[..., 0], bump[..., 1]))


def glass(rng, n, d):
    """A texture through a glass bent by a coarse random displacement of d numbers."""
    side = 20
    texture = gaussian_filter(rng.normal(size=(40, 40)), 3)
    texture /= texture.std()
    cells = int(np.ceil(np.sqrt(d / 2)))
    chosen = rng.permutation(2 * cells * cells)[:d]
    knots = np.zeros((n, 2 * cells * cells))
    knots[:, chosen] = rng.normal(size=(n, d)) * 1.2
    row, column = np.mgrid[0:side, 0:side] + 10.0
    base = [zoom(unit.reshape(cells, cells), side / cells, order=1, mode="nearest", grid_mode=True)
            if cells > 1 else np.ones((side, side)) for unit in np.eye(cells * cells)]  # fmt: skip
    bent = np.einsum("nak,kij->anij", knots.reshape(n, 2, -1), np.array(base))
    return map_coordinates(texture, [row + bent[0], column + bent[1]], order=1, mode="nearest")


def lamps(rng, n, d):
    """A relief under d lamps of random brightness, seen by a film that saturates."""
    side = 20
    relief = gaussian_filter(rng.normal(size=(side, side)), 2)
    slope = np.stack([*np.gradient(relief / relief.std()), np.full((side, side), 0.5)])
    slope /= np.linalg.norm(slope, axis=0)
    direction = rng.normal(size=(d, 3))
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    place = gaussian_filter(rng.normal(size=(d, side, side)), (0, 4, 4))
    shine = np.maximum(np.einsum("dk,kij->dij", direction, slope), 0) + 0.5
    shine = shine * np.exp(place / place.std())
    bright = rng.gamma(4, size=(n, d)) / 4
    light = np.einsum("nd,dij->nij", bright, shine)
    return light / (light + light.mean())


SCENES = {"sprites": (sprites, HIGHEST), "cloud": (cloud, 6), "arm": (arm, 20),
          "glass": (glass, HIGHEST), "lamps": (lamps, HIGHEST)}  # fmt: skip


def unseen_images(rng):
    """Images of a scene; its coordinates are not told."""
    name = list(SCENES)[rng.integers(len(SCENES))]
    scene, highest = SCENES[name]
    d = int(np.floor(np.exp(rng.uniform(0, np.log(highest + 1)))))
    n = int(np.exp(rng.uniform(np.log(200), np.log(2500))))
    X = scene(rng, n, d).reshape(n, -1)
    if rng.random() < 0.3:
        X = X + 0.01 * X.std() * rng.normal(size=X.shape)
    return Law(X, np.full(n, d), f"unseen {name}")
