r"""Stepwise EM: parameters that follow a stream of batches.

The expected statistics per row, :math:`\bar s = (N, F, S)/W`, move towards those of each
batch under the present parameters (Cappé & Moulines 2009),

.. math:: \bar s \leftarrow (1 - \eta) \bar s + \eta\, \bar s_b, \qquad
          \eta = (W_b / W)^{0.7},

with :math:`W` the weight of all rows so far: steps that sum to infinity while their
squares do not, whatever the sizes of the batches. Statistics are carried from the old
means to the new ones, about which the next batch is summed.
"""

from __future__ import annotations

import numpy as np

from skdiffusion.estimators._em import one_pass
from skdiffusion.estimators._seeding import distinct_rows

__all__ = ["Stepwise"]

DECAY = 0.7


class Stepwise:
    """Running statistics of a mixture.

    Parameters
    ----------
    frame : Frame
        Units, from the first batch.
    form : FullForm
    mixture : Mixture
        Fitted to the first batch.
    rows : Rows
        The first batch.
    """

    def __init__(self, frame, form, mixture, rows):
        # batches meet different axes: low rank must keep whole scatters
        form.matrix_up_to = np.inf
        self.frame, self.form, self.mixture = frame, form, mixture
        self.statistics = self._per_row(rows)[0]
        self.weight = rows.total

    def update(self, X, weights) -> float | None:
        """Move towards a batch; its mean log-likelihood before that, in units of the data.

        ``None`` if the batch has no value at all: nothing moves then.
        """
        rows = self.frame.rows(*distinct_rows(X, weights))
        if not len(rows.all_X):
            return None
        new, log_likelihood = self._per_row(rows)
        self.weight += rows.total
        step = (rows.total / self.weight) ** DECAY
        old = self.form.recentred(self.statistics, new.centres)
        self.statistics = old.towards(new, step)
        # the pseudo-rows of the prior count against all rows seen
        self.mixture = self.form.maximise(self.statistics.scaled(self.weight), self.mixture)
        return log_likelihood + self.frame.log_jacobian(rows)

    def model(self):
        """The present mixture as a score model of the data."""
        return self.frame.model(self.mixture, self.form)

    def _per_row(self, rows):
        statistics, log_likelihood = one_pass(self.form, self.mixture, rows)
        return statistics.scaled(1 / rows.total), log_likelihood
