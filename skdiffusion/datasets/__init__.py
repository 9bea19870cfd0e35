r"""Laws with known answers: every maker returns ``X`` and the exact score model of its law.

.. math:: X_1, \dots, X_n \sim p_0, \qquad
          (x, \sigma) \mapsto \nabla \log (p_0 \star N(0, \sigma^2 I))(x) .

So whatever is learned from ``X`` can be compared with the truth at every noise level:
score, denoiser, log-density, Jacobian. ``model.has_density`` says whether level zero may be
asked for too, ``model.sigma_range`` where a curve was replaced by quadrature nodes.

=========================== ======================================== ====================
maker                       law                                      dimensions
=========================== ======================================== ====================
``make_gaussian``           normal, any spectrum                     any
``make_gaussian_mixture``   eight on a circle, or given              any
``make_ring``               uniform on a circle                      1 in 2
``make_sphere``             uniform on a sphere                      k in D
``make_concentric_circles`` two noisy circles                        1 in D
``make_embedded_circles``   the same at even angles                  1 in D
``make_moons``              two half circles                         1 in 2
``make_swiss_roll``         rolled rectangle                         2 in D
``make_thirteen_points``    empirical law of 13 points on an arc     0 in 2
=========================== ======================================== ====================
"""

from skdiffusion.datasets._curves import (
    CurveModel,
    make_moons,
    make_swiss_roll,
    make_thirteen_points,
)
from skdiffusion.datasets._normal import make_gaussian, make_gaussian_mixture
from skdiffusion.datasets._spheres import (
    make_concentric_circles,
    make_embedded_circles,
    make_ring,
    make_sphere,
)
from skdiffusion.datasets.patches import load_image_patches

__all__ = [
    "CurveModel",
    "load_image_patches",
    "make_concentric_circles",
    "make_embedded_circles",
    "make_gaussian",
    "make_gaussian_mixture",
    "make_moons",
    "make_ring",
    "make_sphere",
    "make_swiss_roll",
    "make_thirteen_points",
]
