r"""The background of a mixture: a broad component for rows that no other expects.

A mixture of normal laws gives a row at :math:`r` widths from its components the log-density
:math:`-r^2/2`: one row in a thousand at fifty widths costs more than any choice of components
gains on the others. A component that covers all of the data (Fraley & Raftery 1998 use a uniform
law) bounds that loss. Here it is :math:`N(\bar x, (3)^2\,\bar S)`, fixed, with

.. math:: \bar S = \frac{W S + e I}{W + e}, \qquad w_0 = \frac{N_0 + 1}{W + 1}, \qquad
          w_k = \frac{N_k}{W + 1},

in standardised columns: the covariance of the data, pulled to independent columns by as many
pseudo-rows :math:`e` as determine a covariance, and one pseudo-row of the background among the
:math:`W` that were seen, the rule of succession: so likely is a row unlike all before. Rows that
are like the others pay :math:`1/W` nats for it.
"""

from __future__ import annotations

import numpy as np

from skdiffusion.estimators._mixture_forms import Mixture

__all__ = ["background_of"]

WIDTH = 3.0
"""Standard deviations of the data in one of the background; held-out densities of tables hardly
change between two and four."""


def background_of(form, rows) -> Mixture:
    """The background of standardised rows as a mixture of one component.

    Parameters
    ----------
    form : FullForm
        Of the components.
    rows : Rows

    Returns
    -------
    Mixture
    """
    X, weights = rows.imputed(), rows.all_weights
    total, d = rows.total, X.shape[1]
    scatter = (X * weights[:, None]).T.astype(np.float64) @ X
    pseudo_rows = form.enough(d)
    shape = (scatter + pseudo_rows * np.eye(d)) / (total + pseudo_rows)
    spread = form.from_matrices(WIDTH**2 * shape[None], np.ones(1))
    return Mixture(np.ones(1), np.zeros((1, d)), spread)
