r"""The mean of mixtures, which is a mixture again.

EM ends in one of many optima, and none of them is the density. By Jensen's inequality the mean of
:math:`m` mixtures from different starts is the better one on average (Ormoneit & Tresp 1998),

.. math:: \log \frac1m \sum_j p_j(x) \ge \frac1m \sum_j \log p_j(x).
"""

from __future__ import annotations

import numpy as np

from skdiffusion.estimators._seeding import canonical_key
from skdiffusion.models import MixtureModel

__all__ = ["apart", "average", "distinct"]


def distinct(mixtures):
    """Mixtures that differ, and how often each was found: equal starts end in the same optimum."""
    kept, counts = [], []
    for mixture in mixtures:
        found = [j for j, other in enumerate(kept) if _same(mixture, other)]
        if found:
            counts[found[0]] += 1
        else:
            kept.append(mixture)
            counts.append(1)
    return kept, counts


def _same(one, other):
    """Whether two mixtures are the same but for rounding and the order of their components."""
    sorted_pair = []
    for mixture in (one, other):
        order = np.argsort(canonical_key(mixture.means), kind="stable")
        sorted_pair.append(np.column_stack([mixture.weights, mixture.means])[order])
    return np.allclose(*sorted_pair, rtol=0, atol=1e-9)


def average(models, counts, background):
    """The mean of mixtures as a mixture, with one background if they have it in common."""
    if len(models) == 1:
        return models[0]
    shares = np.array(counts) / np.sum(counts)
    own = slice(None, -1 if background else None)
    weights = [share * model.weights[own] for share, model in zip(shares, models, strict=True)]
    means = [model.means[own] for model in models]
    covariances = [c for model in models for c in model.covariances[own]]
    if background:
        weights.append([shares @ [model.weights[-1] for model in models]])
        means.append(models[0].means[-1:])
        covariances.append(models[0].covariances[-1])
    return MixtureModel(np.concatenate(weights), np.concatenate(means), covariances)


def apart(model, k, number, background):
    """The mixtures of ``k`` components each that a mean of ``number`` is made of.

    Equal ones are told from their share. ``None`` if it is no such mean.
    """
    own = model.n_components - bool(background)
    if own % k or own > k * number:
        return None
    blocks = model.weights[:own].reshape(-1, k)
    shares = blocks.sum(axis=1) / blocks.sum()
    parts = []
    for j, count in enumerate(np.maximum(np.rint(number * shares), 1).astype(int)):
        index = [*range(j * k, (j + 1) * k), *range(own, model.n_components)]
        weights = np.append(blocks[j] / shares[j], model.weights[own:])
        part = MixtureModel(weights, model.means[index], [model.covariances[i] for i in index])
        parts += [part] * count
    return parts
