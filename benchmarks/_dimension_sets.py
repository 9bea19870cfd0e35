"""Sets of a few parts whose dimensions are known, most of them side by side."""

import numpy as np
from _dimension_laws import sphere
from sklearn.datasets import make_moons


def lollipop(rng):
    """A stick and a disc."""
    stick = np.stack([rng.uniform(-2, -1, 500), np.zeros(500)], axis=1)
    angle, radius = rng.uniform(0, 2 * np.pi, 1000), rng.random(1000) ** 0.5
    return {1: stick, 2: radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)}


def line_square_cube(rng):
    return {1: rng.random((800, 1)), 2: rng.random((800, 2)) + 1.5, 3: rng.random((800, 3)) - 2}


def line_square_normal(rng):
    return {1: rng.random((500, 1)), 2: rng.random((500, 2)) + 3, 5: rng.normal(10, 1, (500, 5))}


def sphere_and_normal(rng):
    return {3: np.pad(sphere(rng, 1000, 3), ((0, 0), (0, 6))), 8: rng.normal(4, 1, (1000, 8))}


def sphere_and_cube(rng):
    return {2: sphere(rng, 700, 2), 4: np.pad(rng.random((700, 4)), ((0, 0), (2, 0))) - 3}


def ring_and_ball(rng):
    return {1: 2 * sphere(rng, 400, 1), 3: rng.normal(0, 0.3, (800, 3))}


def line_through_cube(rng):
    return {1: rng.uniform(-2, 2, (400, 1)), 3: rng.uniform(-0.5, 0.5, (1000, 3))}


def four_clusters(rng):
    return {2: rng.standard_normal((1000, 2)) + 8 * rng.integers(0, 2, (1000, 2))}


def four_clusters_in_space(rng):
    return {
        3: np.vstack([rng.normal(middle, 1, (300, 3)) for middle in rng.uniform(-8, 8, (4, 3))])
    }


def moons(rng):
    return {1: make_moons(1000, noise=0.02, random_state=int(rng.integers(1000)))[0]}


def few_normal(rng):
    return {2: rng.standard_normal((150, 2))}


SETS = {
    "stick and disc": lollipop,
    "line, square, cube": line_square_cube,
    "line, square, normal": line_square_normal,
    "sphere, normal": sphere_and_normal,
    "sphere, cube": sphere_and_cube,
    "ring round a ball": ring_and_ball,
    "line through a cube": line_through_cube,
    "four clusters in a plane": four_clusters,
    "four clusters in space": four_clusters_in_space,
    "two moons": moons,
    "150 normal rows": few_normal,
}


def side_by_side(parts):
    """Rows of all parts in as many columns, and the part of each."""
    columns = max(part.shape[1] for part in parts)
    rows = [np.pad(part, ((0, 0), (0, columns - part.shape[1]))) for part in parts]
    return np.vstack(rows), np.repeat(np.arange(len(parts)), [len(part) for part in parts])
