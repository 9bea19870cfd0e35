r"""Where EM starts: seeds and partitions that see weights as repeated rows.

k-means++ (Arthur & Vassilvitskii 2007) draws each new seed with probability proportional
to :math:`w_i \min_j \|x_i - c_j\|^2`, best of a few tries. Draws invert the cumulative
weights over *distinct* rows in a *canonical order*, that of a fixed projection: the same
uniform number then finds the same point whether a row is repeated or weighted, and however
the rows are ordered. A weight of 2 is a repeated row, exactly, not just in law.
"""

from __future__ import annotations

import numpy as np

__all__ = ["canonical_key", "distinct_rows", "nearest", "seeds"]

CHUNK = 2**21


def canonical_key(X: np.ndarray) -> np.ndarray:
    """A fixed generic projection of each row: equal for equal rows, else different."""
    direction = np.random.default_rng(20240917).standard_normal(X.shape[1])
    # summed row by row: a matrix product may round equal rows differently
    return np.einsum("nd,d->n", X, direction, dtype=np.float64)


def distinct_rows(X: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The rows of positive weight in the order of their keys, equal ones merged.

    Parameters
    ----------
    X : ndarray of shape (n, d)
        NaN where missing; rows without any value are left out.
    weights : ndarray of shape (n,)

    Returns
    -------
    X : ndarray of shape (m, d)
    weights : ndarray of shape (m,)
    """
    missing = np.isnan(X)
    gaps = missing.any()
    kept = weights > 0
    if gaps:
        kept &= ~missing.all(axis=1)
    if not kept.all():
        X, weights, missing = X[kept], weights[kept], missing[kept]
    key = canonical_key(np.where(missing, 0.0, X) if gaps else X)
    order = np.argsort(key, kind="stable")
    X, weights, key = X[order], weights[order], key[order]
    same = np.zeros(len(X), dtype=bool)
    near = np.flatnonzero(key[1:] == key[:-1]) + 1
    before, after = X[near - 1], X[near]
    same[near] = ((before == after) | (np.isnan(before) & np.isnan(after))).all(axis=1)
    if same.any():
        first = np.flatnonzero(~same)
        # integer weights add up exactly: as exact as the repetitions they stand for
        X, weights = X[first], np.add.reduceat(weights, first)
    return X, weights


def seeds(X, weights, k: int, method: str, rng: np.random.Generator) -> np.ndarray:
    """Centres to start from, shape ``(k, d)``; rows must be in canonical order.

    Parameters
    ----------
    X : ndarray of shape (n, d)
    weights : ndarray of shape (n,)
        Positive.
    k : int
    method : {"kmeans", "k-means++", "random"}
    rng : Generator
    """
    if method == "random":
        return X[_draw(weights, rng.random(k))].astype(np.float64)
    centres = _plus_plus(X, weights, k, rng)
    if method == "kmeans":
        centres = _lloyd(X, weights, centres)
    return centres


def nearest(X, centres) -> np.ndarray:
    """Index of the nearest centre of each row."""
    labels = np.empty(len(X), dtype=np.intp)
    step = max(CHUNK // len(centres), 1)
    half = 0.5 * (centres**2).sum(axis=1)
    for start in range(0, len(X), step):
        block = slice(start, start + step)
        labels[block] = (X[block] @ centres.T.astype(X.dtype) - half).argmax(axis=1)
    return labels


def _draw(masses, uniforms):
    """Indices where the cumulative mass passes each share of the total."""
    cumulative = np.cumsum(masses, dtype=np.float64)
    indices = np.searchsorted(cumulative, uniforms * cumulative[-1], side="right")
    return np.minimum(indices, len(masses) - 1)


def _plus_plus(X, weights, k, rng):
    tries = 2 + int(np.log(k))
    centres = np.empty((k, X.shape[1]))
    centres[0] = X[_draw(weights, rng.random(1))[0]]
    closest = _squared_distances(X, centres[:1])[:, 0]
    for j in range(1, k):
        uniforms = rng.random(tries)
        masses = weights * closest
        # where all rows sit on a seed already, any row will do
        candidates = _draw(masses if masses.sum() > 0 else weights, uniforms)
        distances = np.minimum(_squared_distances(X, X[candidates]), closest[:, None])
        best = int(np.argmin(weights @ distances))
        centres[j], closest = X[candidates[best]], distances[:, best]
    return centres


def _squared_distances(X, centres):
    centres = centres.astype(X.dtype)
    own = np.einsum("nd,nd->n", X, X)[:, None]
    return np.maximum(own + np.einsum("kd,kd->k", centres, centres) - 2 * (X @ centres.T), 0)


def _lloyd(X, weights, centres, max_iter=20):
    """Weighted k-means from these centres; an emptied cluster keeps its centre."""
    labels = None
    for _ in range(max_iter):
        new = nearest(X, centres)
        if labels is not None and np.array_equal(new, labels):
            break
        labels = new
        mass = np.bincount(labels, weights, minlength=len(centres))
        order = np.argsort(labels, kind="stable")
        bounds = np.searchsorted(labels[order], np.arange(len(centres) + 1))
        for j in np.flatnonzero(mass):
            rows = order[bounds[j] : bounds[j + 1]]
            centres[j] = weights[rows] @ X[rows] / mass[j]
    return centres
